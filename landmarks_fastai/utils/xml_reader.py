"""Reading XML files that may be hostile: limits on size, depth and elements, and no entity declarations."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from landmarks_fastai.errors import UserError

MAX_BYTES = 512 << 20
MAX_DEPTH = 100
MAX_ELEMENTS = 10_000_000

CHUNK = 1 << 16
"""Bytes that are parsed at a time, and that `leading_tags` examines."""


def read_xml(path: Path) -> Element:
    """Read an XML file and return its root element.

    A document type without declarations (``<!DOCTYPE annotations>``) and processing instructions
    (``<?xml-stylesheet …?>``) are ignored.

    Raises
    ------
    UserError
        If the file cannot be read or is not well-formed XML; if its document type declares anything or refers
        to another file; or if it exceeds `MAX_BYTES`, `MAX_DEPTH` or `MAX_ELEMENTS`, which is checked while
        parsing.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB; split it into several files")
        with path.open("rb") as stream:
            return _parse(stream, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def parse_fragment(text: str) -> Element | None:
    """Return an element that contains the elements of an XML text without a root; None if it is not XML."""
    parser = _TreeParser("text")
    try:
        parser.feed(f"<fragment>{text}</fragment>".encode(errors="replace"), is_last=True)
    except (expat.ExpatError, ValueError, UserError):
        return None
    return parser.root()


def starts_as_xml(path: Path) -> bool:
    """Return True if the first character of a file that is neither a space nor a line break is ``<``."""
    return _starts_with_bracket(_read_start(path))


def leading_tags(path: Path) -> list[str]:
    """Return the tags of the first elements of an XML file: at most those in its first 64 KiB.

    Returns an empty list, without an exception, for a folder or any other file.
    """
    start = _read_start(path)
    if not _starts_with_bracket(start):
        return []
    tags: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: tags.append(tag)
    with suppress(expat.ExpatError, LookupError, ValueError):  # what precedes an error counts
        parser.Parse(start, False)
    return tags


class _TreeParser:
    """Expat with the limits, building a tree of elements.

    xml.etree's own parser is not used, because it does not report the declarations of a document type.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._builder = TreeBuilder()
        self._depth = self._elements = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._start_doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._builder.data

    def feed(self, content: bytes, *, is_last: bool) -> None:
        """Parse the next bytes."""
        self._parser.Parse(content, is_last)

    def root(self) -> Element:
        """Return the root element after the last bytes."""
        return self._builder.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"elements are nested deeper than {MAX_DEPTH}; correct the file")
        if self._elements > MAX_ELEMENTS:
            raise self._error(f"more than {MAX_ELEMENTS:,} elements; split it into several files")
        self._builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(tag)

    def _start_doctype(self, _: str, system: str | None, public: str | None, has_declarations: bool) -> None:
        if system or public or has_declarations:
            raise self._error(
                "the document type (<!DOCTYPE …>) declares entities or refers to another file, which is not"
                " accepted; remove it"
            )

    def _error(self, reason: str) -> UserError:
        return UserError(f"{self._source}, line {self._parser.CurrentLineNumber}: {reason}")


def _parse(stream: IO[bytes], path: Path) -> Element:
    parser = _TreeParser(str(path))
    try:
        while chunk := stream.read(CHUNK):
            parser.feed(chunk, is_last=False)
        parser.feed(b"", is_last=True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise UserError(
            f"{path}, line {error.lineno}: not valid XML ({reason}); restore or correct the file"
        ) from error
    except (LookupError, ValueError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:80]
        raise UserError(
            f"{path}: the encoding of the XML is not supported ({reason}); save it as UTF-8"
        ) from error
    return parser.root()


def _read_start(path: Path) -> bytes:
    """Return the first bytes of a file; none if it is a folder or cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(CHUNK)
    except (OSError, ValueError):
        return b""


def _starts_with_bracket(start: bytes) -> bool:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16
        return start[2:4].strip(b"\0") == b"<"
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"
