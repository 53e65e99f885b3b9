"""Files: atomic writes, CSV, JSON and hashes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from landmarks_fastai.errors import RunError, UserError

DISK_HINT = "free some space or choose another location"


@contextmanager
def atomic_write(path: Path, hint: str = DISK_HINT) -> Iterator[Path]:
    """Yield a temporary path next to `path` that replaces it on success and is deleted on failure.

    Parameters
    ----------
    path
        The file to write; its folder is created if needed.
    hint
        Advice in the error message if the file cannot be written.

    Raises
    ------
    UserError
        If `path` is a folder, or one of its parents is a file.
    RunError
        If the file cannot be written: no permission, no space.
    """
    partial = partial_path(path)
    try:
        with report_write_errors(path, hint):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return the temporary path under which `path` is written until it is complete."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


@contextmanager
def report_write_errors(path: Path, hint: str = DISK_HINT) -> Iterator[None]:
    """Turn an OSError while writing `path` into a UserError or RunError; see `atomic_write`."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{path}: cannot be written because a file exists where a folder is needed, or a folder where the"
            " file is needed; choose another location"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{path}: cannot be written ({reason}); {hint}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the first of which is the header, as CSV, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Write indented JSON atomically; NaN is an error."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    UserError
        If the file cannot be read or does not contain a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); restore the original file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: does not contain a JSON object; restore the original file")
    return content


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
