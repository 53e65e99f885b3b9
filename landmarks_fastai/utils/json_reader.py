"""Reading JSON files that others wrote, with one-line errors."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from landmarks_fastai.errors import UserError

MAX_BYTES = 2_000_000_000
MAX_DEPTH = 100
"""Deepest nesting; what reads the values by recursion can rely on it."""


def read_json(path: Path) -> object:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises
    ------
    UserError
        If the file cannot be read, is not JSON, or exceeds `MAX_BYTES` or `MAX_DEPTH`.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{path}: {size / 1e9:.1f} GB are too large for a JSON file; the limit is"
                f" {MAX_BYTES / 1e9:g} GB: split it"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_json(content, str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that this package wrote, with an object.

    Raises
    ------
    UserError
        As `read_json`; also if it contains no JSON object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: does not contain a JSON object; restore the original file")
    return content


def parse_json(content: bytes | str, source: str) -> object:
    """Parse JSON; see `read_json`.

    Parameters
    ----------
    content
        The JSON document.
    source
        Name of the file in messages.

    Raises
    ------
    UserError
        As `read_json`.
    """
    if not (content.strip() if isinstance(content, str) else content.strip(b" \t\r\n\0")):
        raise UserError(f"{source}: the file is empty; copy it again")
    try:
        text = content if isinstance(content, str) else content.decode(_encoding(content))
        parsed: object = json.loads(text)
    except UnicodeDecodeError:
        raise UserError(f"{source}: not text in UTF-8, UTF-16 or UTF-32; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{source}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); correct it, or"
            " copy the file again"
        ) from None
    except RecursionError:
        raise _nested_too_deeply(source) from None
    except ValueError:  # an integer with more digits than Python converts
        raise UserError(f"{source}: not usable as JSON: a number has too many digits") from None
    if _is_deeper(parsed, MAX_DEPTH):
        raise _nested_too_deeply(source)
    return parsed


def _nested_too_deeply(source: str) -> UserError:
    return UserError(f"{source}: not usable as JSON: its brackets are nested too deeply")


def _is_deeper(value: object, depth: int) -> bool:
    """Return True if lists and objects are nested more than `depth` levels deep."""
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        level = [
            child
            for each in level
            for child in (each.values() if type(each) is dict else each)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _encoding(content: bytes) -> str:
    """Return the encoding that `content` is in, judged by its first bytes."""
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if content.startswith(codecs.BOM_UTF8) else json.detect_encoding(content)
