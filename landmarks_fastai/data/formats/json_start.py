"""The start of a JSON file, by which its format is recognized without reading all of a large file."""

from __future__ import annotations

from pathlib import Path

EXAMINED = 1 << 16
"""Number of bytes that are read."""


def json_start(path: Path) -> str:
    """Return the start of a file if its first character is a bracket or brace; else an empty text."""
    try:
        with path.open("rb") as stream:
            content = stream.read(EXAMINED)
    except (OSError, ValueError):
        return ""
    is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace").lstrip()
    return text if text[:1] in ("{", "[") else ""
