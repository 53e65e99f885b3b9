"""Reading JSON files that others wrote, with one-line errors."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

from landmarks_fastai.errors import UserError

MAX_BYTES = 2_000_000_000


def read_json(path: Path) -> object:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises
    ------
    UserError
        If the file cannot be read, is not JSON, is nested too deeply, or is larger than `MAX_BYTES`.
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
    if not content.strip(b" \t\r\n\0"):
        raise UserError(f"{path}: the file is empty; copy it again")
    try:
        parsed: object = json.loads(content.decode(_encoding(content)))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8, UTF-16 or UTF-32; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); correct it, or copy"
            " the file again"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: not usable as JSON: its brackets are nested too deeply") from None
    except ValueError:  # an integer with more digits than Python converts
        raise UserError(f"{path}: not usable as JSON: a number has too many digits") from None
    return parsed


def _encoding(content: bytes) -> str:
    """Return the encoding that `content` is in, judged by its first bytes."""
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if content.startswith(codecs.BOM_UTF8) else json.detect_encoding(content)
