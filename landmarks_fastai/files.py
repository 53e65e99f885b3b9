"""Writing a file whole or not at all, and reading JSON back. Knows nothing about what is in it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from landmarks_fastai.errors import RunError, UserError


@contextmanager
def replacing(path: Path, remedy: str = "make room or choose another place") -> Iterator[Path]:
    """Yield a file beside `path` to write to, which takes its place if all goes well, and else vanishes.

    Parameters
    ----------
    path
        What is written; its folder is made where needed.
    remedy
        What the message says to do where the disk is full.

    Raises
    ------
    UserError
        If there can be no such file: a part of its path is a file, or it is a folder itself.
    RunError
        If the file can't be written: no permission, no room.
    """
    part = part_of(path)
    try:
        with write_errors(path, remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Name the file beside `path` to which it is written until it is whole."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


@contextmanager
def write_errors(path: Path, remedy: str = "make room or choose another place") -> Iterator[None]:
    """Tell in one line what keeps `path` from being written; as `replacing`, which does the rest too."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{path}: can't be written (a file stands where a folder should be, or the other way round);"
            " choose another place"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{path}: can't be written ({reason}); {remedy}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the header first, quoted where they need it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_json` wrote.

    Raises
    ------
    UserError
        If it is none, or can't be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON ({error}); get a whole copy") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object; get a whole copy")
    return content


def write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Write JSON that a person can read."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
