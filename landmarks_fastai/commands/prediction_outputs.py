"""The files and folders of landmarks that `predict` writes from its record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from landmarks_fastai.commands.landmark_files import write_landmarks_csv, write_landmarks_json
from landmarks_fastai.commands.predicted_labels import label_name, write_predicted_labels
from landmarks_fastai.commands.prediction_record import PredictionRecord
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import file_sha256, partial_path, remove, report_write_errors

JSON_NAME = "landmarks.json"
CSV_NAME = "landmarks.csv"
CHANGED = (
    "was changed since it was written and may contain corrections; move it away, or choose another --out"
)


@dataclass(frozen=True)
class Outputs:
    """The files and folders of landmarks to write.

    Parameters
    ----------
    json, csv
        Write landmarks.json, landmarks.csv.
    formats
        Formats of labels to write.
    """

    json: bool = True
    csv: bool = False
    formats: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the files and folders."""
        tables = [name for name, wanted in ((JSON_NAME, self.json), (CSV_NAME, self.csv)) if wanted]
        return [*tables, *map(label_name, self.formats)]

    @property
    def written_names(self) -> set[str]:
        """Names of everything that is written, also of the files that a format adds beside its own."""
        if not self.formats:
            return set(self.names)
        from landmarks_fastai.data.formats.schema_files import SCHEMA_NAME  # imports all formats

        interfaces = {f"{Path(label_name(name)).stem}.interface.xml" for name in self.formats}
        return {*self.names, *interfaces, SCHEMA_NAME}

    def check_unchanged(self, out: Path, record: PredictionRecord) -> None:
        """Check that what exists in `out` is as it was written, so that it may be written again.

        Raises
        ------
        UserError
            If a file or folder has been changed.
        """
        for name in self.names:
            if not is_unchanged(out / name, record):
                raise UserError(f"{out / name}: {CHANGED}")

    def check_labels(self, out: Path, records: Sequence[PredictionRecord]) -> None:
        """Check that labels in `out` are as one of the records has them: corrections are never overwritten.

        Raises
        ------
        UserError
            If they have been changed, or are in no record.
        """
        for path in (out / label_name(each) for each in self.formats):
            if path.exists() and not any(is_unchanged(path, record) for record in records):
                raise UserError(f"{path}: already exists and may contain corrections; choose another --out")

    def write(
        self, out: Path, record: PredictionRecord, schema: LandmarkSchema, visibility: bool
    ) -> list[str]:
        """Write everything from the record, and record it.

        Parameters
        ----------
        out
            The folder.
        record
            The landmarks.
        schema
            Names of the landmarks.
        visibility
            Whether the model predicts visibility.

        Returns
        -------
        list[str]
            One line for each file or folder, and for each thing that a format cannot hold.

        Raises
        ------
        UserError, RunError
            If a file cannot be written, or a format cannot express the landmarks.
        """
        lines = []
        if self.json:
            with _recorded(out / JSON_NAME, record) as path:
                write_landmarks_json(path, record.results(schema, out), schema, visibility)
            lines.append(f"landmarks: {path}")
        if self.csv:
            with _recorded(out / CSV_NAME, record) as path:
                write_landmarks_csv(path, record.results(schema, out), visibility)
            lines.append(f"landmarks: {path}")
        for name in self.formats:
            with _recorded(out / label_name(name), record) as path, _aside(path):
                results = list(record.results(schema, out))
                lines += [f"{path}: {line}" for line in write_predicted_labels(results, schema, path, name)]
            lines.append(f"labels: {path}")
        return lines


def remove_stale_outputs(out: Path, earlier: PredictionRecord, kept: Sequence[str]) -> list[str]:
    """Remove what an earlier run wrote to `out` and the new one does not; return the names.

    What has been changed since it was written is kept.
    """
    removed = []
    for name in earlier.outputs:
        path = out / name
        if name not in kept and path.exists() and is_unchanged(path, earlier):
            with report_write_errors(path):
                remove(path)
            removed.append(name)
    return removed


def is_unchanged(path: Path, record: PredictionRecord) -> bool:
    """Return whether a file or folder does not exist, or is as `predict` wrote it."""
    recorded = record.outputs.get(path.name)
    return not path.exists() or (recorded is not None and recorded in ("", digest(path)))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of the files in a folder, as hex."""
    if path.is_file():
        return file_sha256(path)
    total = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\n".encode(errors="replace"))
    return total.hexdigest()


@contextmanager
def _recorded(path: Path, record: PredictionRecord) -> Iterator[Path]:
    """Record that `path` is being written, and at the end its digest."""
    record.add_output(path.name, "")
    yield path
    record.add_output(path.name, digest(path))


@contextmanager
def _aside(path: Path) -> Iterator[None]:
    """Move an existing file or folder aside; delete it at the end, or move it back after an error."""
    if not path.exists():
        yield
        return
    old = partial_path(path)
    with report_write_errors(path):
        os.replace(path, old)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.replace(old, path)
        raise
    with report_write_errors(path):
        remove(old)
