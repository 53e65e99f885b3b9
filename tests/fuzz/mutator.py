"""Random changes of files: bytes, numbers, lines, tokens of text formats, and whole files.

What `mutate` returns depends on its arguments and the state of the random generator only.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

Files = Mapping[str, bytes]
"""The content of files by their paths relative to a folder."""

MAX_BYTES = 1 << 18
"""A mutated file is cut to this size, or to twice its own size if that is larger."""

EDIT_COUNTS = (1, 1, 1, 2, 2, 3, 4)
"""Numbers of edits of an input; mostly few, because most inputs with many are refused for the first."""

NUMBERS = (
    *b"0 -1 -0 0.5 1,5 1_0 1e5 1e999 -1e300 1e-320 1e-9999999 nan inf -Infinity 0x_ 0b_ 1/0".split(),
    *b"2147483648 4294967296 9223372036854775808 2001-13-45 12:30:45 00:00:1e-99999999".split(),
    *b"true null '' [] {}".split(),
    *(b"\xd9\xa1\xd9\xa2", b"9" * 30, b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000),
)
"""Replacements of numbers."""

TOKENS = (
    *(b"!!int x", b"!!float y", b"!!bool z", b"!!timestamp z", b"!!map [a]", b"!!set {a, b}"),
    *(b"!!binary aGk=", b"&a [*a]", b"<<: *x", b"{<<: [1]}", b"? [a]\n: b", b"--- 1\n", b"|\n  a"),
    *(b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"<![CDATA[", b"<?xml version='1.0' encoding='utf-7'?>"),
    *b"<a> </a> &x; &#0; !!python/name:os.system".split(),
    *rb"""[ { ] } {"a": [[[[ , ; : " ' "" # = % . .. / \ \" \u0000 \ud800""".split(),
    *rb"a/b/c ../../../etc/passwd /dev/zero ~root C:\a\b.png http://localhost/a.png".split(),
    *(b"\t", b"\n", b"\r", b"\r\n", b" ", b"sep=;\n", b"left_", b"_x", b"_visibility"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8"),
    *(b"A" * 300, b"\xc3\xa9" * 200, b"a" * 5000, b"PK\x03\x04", b"\x80", b"\xff", b"\0"),
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8),
)
"""Byte strings that have a meaning in one of the formats, or none in any."""

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def mutate(
    rng: random.Random, files: Files, others: Sequence[Files] = (), keep: str = ""
) -> dict[str, bytes]:
    """Return changed files.

    Parameters
    ----------
    rng
        Where all choices come from.
    files
        The files; images among them are changed rarely.
    others
        Further seeds, from which parts are taken.
    keep
        Path of a file that is not deleted.
    """
    changed = dict(files)
    names = sorted(changed)
    texts = [name for name in names if not name.endswith((".png", ".jpg"))] or names
    for _ in range(rng.choice(EDIT_COUNTS)):
        name = rng.choice(names if rng.random() < 0.05 else texts)
        content = changed.get(name, b"")
        if len(names) > 1 and name != keep and rng.random() < 0.02:
            changed.pop(name, None)
            continue
        donor = rng.choice(others).get(name, b"") if others and rng.random() < 0.1 else content
        limit = max(MAX_BYTES, 2 * len(files[name]))
        changed[name] = rng.choice(EDITS)(rng, content, donor)[:limit]
    return changed


def _flip_bits(rng: random.Random, content: bytes, _: bytes) -> bytes:
    edited = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if edited:
            edited[rng.randrange(len(edited))] ^= 1 << rng.randrange(8)
    return bytes(edited)


def _set_bytes(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start, _ = _span(rng, content, 8)
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, (1 << 8 * width) - 1, (1 << 8 * width - 1) - 1, rng.getrandbits(8 * width)))
    order = rng.choice(("little", "big"))
    return content[:start] + value.to_bytes(width, order) + content[start + width :]


def _delete(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start, stop = _span(rng, content)
    return content[:start] + content[stop:]


def _copy(rng: random.Random, content: bytes, donor: bytes) -> bytes:
    """Insert a part of a file at another place, or in place of what is there."""
    start, stop = _span(rng, donor)
    part = donor[start:stop]
    at = rng.randint(0, len(content))
    return content[:at] + part + content[at + (len(part) if rng.random() < 0.5 else 0) :]


def _insert_token(rng: random.Random, content: bytes, _: bytes) -> bytes:
    at = rng.randint(0, len(content))
    stop = at if rng.random() < 0.5 else min(len(content), at + rng.randint(1, 20))
    return content[:at] + rng.choice(TOKENS) + content[stop:]


def _repeat_token(rng: random.Random, content: bytes, _: bytes) -> bytes:
    at = rng.randint(0, len(content))
    count = rng.choice((2, 60, 300, 3000, 20_000))
    return content[:at] + (rng.choice(TOKENS) * count)[: MAX_BYTES // 4] + content[at:]


def _replace_number(rng: random.Random, content: bytes, _: bytes) -> bytes:
    # from a random place on, because a list of all numbers of a file takes too long
    match = NUMBER.search(content, rng.randint(0, len(content))) or NUMBER.search(content)
    if match is None:
        return _insert_token(rng, content, b"")
    return content[: match.start()] + rng.choice(NUMBERS) + content[match.end() :]


def _truncate(rng: random.Random, content: bytes, _: bytes) -> bytes:
    return content[: rng.randint(0, len(content))]


def _edit_lines(rng: random.Random, content: bytes, _: bytes) -> bytes:
    """Delete, repeat or swap lines."""
    lines = content.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            del lines[i]
        case 1:
            lines[j:j] = [lines[i]] * rng.choice((1, 2, 50))
        case _:
            lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


def _edit_field(rng: random.Random, content: bytes, _: bytes) -> bytes:
    """Replace what is between two separators."""
    separators = re.compile(rb"[,;:\s\"'<>=\[\]{}/]")
    match = separators.search(content, rng.randint(0, len(content)))
    if match is None:
        return _insert_token(rng, content, b"")
    end = separators.search(content, match.end())
    stop = len(content) if end is None else end.start()
    return content[: match.end()] + rng.choice((b"", *NUMBERS, *TOKENS)) + content[stop:]


Edit = Callable[[random.Random, bytes, bytes], bytes]
EDITS: tuple[Edit, ...] = (
    _flip_bits,
    _set_bytes,
    _delete,
    _copy,
    _insert_token,
    _repeat_token,
    _replace_number,
    _replace_number,
    _truncate,
    _edit_lines,
    _edit_field,
    _edit_field,
)
"""The edits; those of numbers and fields twice, because parsers refuse the results of the others early."""


def _span(rng: random.Random, content: bytes, longest: int = 200) -> tuple[int, int]:
    """Return the start and the end of a random part."""
    start = rng.randint(0, len(content))
    length = rng.randint(1, longest) if rng.random() < 0.9 else rng.randint(1, max(1, len(content)))
    return start, min(len(content), start + length)
