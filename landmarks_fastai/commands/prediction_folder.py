"""The folder of `predict`: its record and drawings, how results are added, replaced and recognized."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from filelock import Timeout

from landmarks_fastai.commands.landmark_files import ImageResult
from landmarks_fastai.commands.prediction_outputs import CSV_NAME, JSON_NAME, Outputs, remove_stale_outputs
from landmarks_fastai.commands.prediction_record import (
    RECORD_NAME,
    RESUME_HINT,
    FileState,
    Made,
    PredictionRecord,
    RecordedImage,
    check_made,
    source_key,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import atomic_write, remove_stale_partials, report_write_errors
from landmarks_fastai.utils.locks import acquire_lock, release_lock
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.utils.unique_names import UniqueNames, fold_name, numbered_paths

DEFAULT_FOLDER = Path("predictions")

STAGING_NAME = ".predictions"
"""Folder in which results that replace others are collected until they are complete."""

LOCK_NAME = ".predictions.lock"

SUFFIX = "_landmarks.png"
"""End of the name of a drawing."""

Records = tuple[PredictionRecord | None, PredictionRecord | None]
"""The record of a folder, and that of the results that are to replace it."""


class Existing(Enum):
    """What to do with results that exist."""

    REFUSE = "refuse"
    RESUME = "resume"
    """Keep them, and add the images that are not done."""
    OVERWRITE = "overwrite"
    """Replace them, as soon as the new ones are complete."""


def check_available(out: Path, outputs: Outputs, existing: Existing) -> None:
    """Check, before anything is opened, that a folder can take results.

    Raises
    ------
    UserError
        If it is a file; if it contains results, and `existing` is REFUSE; if there is nothing that can be
        resumed; or if files would be overwritten that may contain corrections.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; choose another --out")
    _check_records(out, _read_records(out), outputs, existing)


def _check_records(out: Path, records: Records, outputs: Outputs, existing: Existing) -> None:
    """Raise a UserError if a folder with these records is not available; see `check_available`."""
    earlier, staged = records
    tables = _tables(out)
    if existing is Existing.REFUSE and (earlier or staged or tables):
        record = staged or earlier
        what = tables[0] if record is None else format_count(len(record.images), "image")
        raise UserError(
            f"{out}: contains results of an earlier run ({what}); add to them with --resume, replace them"
            " with --overwrite, or choose another --out"
        )
    if existing is Existing.RESUME:
        if tables and not (earlier or staged):
            raise UserError(
                f"{out}: cannot be resumed, because {RECORD_NAME} is missing; use --overwrite, or choose"
                " another --out"
            )
        if earlier is not None and staged is None:
            outputs.check_unchanged(out, earlier)
    outputs.check_labels(out, [record for record in (earlier, staged) if record is not None])


def choose_folder(existing: Existing) -> Path:
    """Return the folder of results if the user names none: predictions, or predictions-2 and so on.

    Returns
    -------
    Path
        The first one without results; to resume or overwrite results, the one before, which was made last.
    """
    latest = DEFAULT_FOLDER
    for folder in numbered_paths(DEFAULT_FOLDER):
        if folder.is_file():
            continue
        if not (any(_read_records(folder)) or _tables(folder)):
            return folder if existing is Existing.REFUSE else latest
        latest = folder
    raise AssertionError  # the numbers do not end


@contextmanager
def open_folder(out: Path, made: Made, outputs: Outputs, existing: Existing) -> Iterator[PredictionFolder]:
    """Open a folder for results; no other process can do so until the end of the block.

    Parameters
    ----------
    out
        The folder; it is created if needed.
    made
        Options that determine the results.
    outputs
        The files to write.
    existing
        What to do with results in it.

    Raises
    ------
    UserError
        If another process writes to it, the results to resume were made with other options, or it is not
        available; see `check_available`.
    RunError
        If it cannot be written to.
    """
    with lock_predictions(out):
        records = _read_records(out)
        _check_records(out, records, outputs, existing)
        drawings = {name for record in records if record for name in record.drawings}
        for each in (out, out / STAGING_NAME):  # killed processes may have left temporary files
            remove_stale_partials(each, drawings | outputs.written_names)
        with PredictionFolder(out, made, existing, records) as folder:
            yield folder


@contextmanager
def lock_predictions(out: Path) -> Iterator[None]:
    """Create a folder if needed and lock it; at the end, delete it if it is new and still empty.

    Raises
    ------
    UserError
        If another process writes predictions to it.
    RunError
        If it cannot be written to.
    """
    with report_write_errors(out):
        new = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock = acquire_lock(out / LOCK_NAME)
        except Timeout:
            raise UserError(
                f"{out}: another process is writing predictions to it; wait for its end, or choose"
                " another --out"
            ) from None
    try:
        yield
    finally:
        release_lock(lock)
        if new:
            with suppress(OSError):  # it is not empty
                out.rmdir()


class PredictionFolder:
    """Results of `predict` that grow image by image; see `open_folder`.

    Attributes
    ----------
    out
        The folder.
    record
        What is done so far.
    """

    def __init__(self, out: Path, made: Made, existing: Existing, records: Records) -> None:
        self.out = out
        staging = out / STAGING_NAME
        self._is_empty = False
        earlier, staged = records
        resumed = (staged or earlier) if existing is Existing.RESUME else None
        if resumed is None:
            with report_write_errors(staging):
                if staging.exists():
                    shutil.rmtree(staging)
            folder = out if earlier is None else staging
            resumed = PredictionRecord.create(folder / RECORD_NAME, made)
            self._is_empty = True
        check_made(out, resumed.made, made)
        self.record = resumed
        self._folder = resumed.path.parent
        self._earlier = None if self._folder == out else earlier
        self._replaceable = {} if self._earlier is None else self._earlier.drawings
        self._names = UniqueNames(
            used=(name.removesuffix(SUFFIX) for name in resumed.drawings),
            is_free=lambda stem: self._is_free(f"{stem}{SUFFIX}"),
        )

    def __enter__(self) -> PredictionFolder:
        """Return the folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the record if not a single image could be added."""
        if self._is_empty:
            with suppress(OSError):
                self.record.path.unlink(missing_ok=True)
                self._remove_staging()

    @property
    def replaces(self) -> bool:
        """Whether earlier results are replaced by `finish`; until then, they are unchanged."""
        return self._earlier is not None

    def is_done(self, image: Path, state: FileState) -> bool:
        """Return whether the landmarks and the drawing of an image exist, and it is unchanged since then."""
        recorded = self.record.images.get(source_key(image))
        return recorded is not None and recorded.source_state == state and self._has_drawing(recorded)

    def add(
        self,
        image: Path,
        state: FileState,
        size: tuple[int, int],
        landmarks: Landmarks,
        drawing: memoryview | None,
    ) -> ImageResult:
        """Add an image.

        Parameters
        ----------
        image
            Path of the image.
        state
            Its state before it was read; see `file_state`.
        size
            Its width and height, pixels.
        landmarks
            Its landmarks.
        drawing
            Its drawing as the bytes of a PNG; None if it is not drawn.

        Raises
        ------
        RunError
            If the disk is full; what has been added before is kept.
        """
        if drawing is None:
            result = ImageResult(image, size, landmarks, None)
            self.record.add_image(result, state, 0)
        else:
            name = self._drawing_name(image)
            result = ImageResult(image, size, landmarks, self.out / name)
            # the record comes first: without it, a drawing would not be recognized as one
            self.record.add_image(result, state, len(drawing))
            with atomic_write(self._folder / name, RESUME_HINT) as partial:
                partial.write_bytes(drawing)
        self._is_empty = False
        return result

    def _drawing_name(self, image: Path) -> str:
        """Return the file name for the drawing of an image: that of its recorded drawing, or a free one."""
        recorded = self.record.images.get(source_key(image))
        if recorded is not None and recorded.drawing is not None:
            is_ours = self._has_drawing(recorded)
            if is_ours or self._is_free(recorded.drawing):
                return recorded.drawing
        return f"{self._names(image.stem)}{SUFFIX}"

    def finish(self, outputs: Outputs, schema: LandmarkSchema, visibility: bool) -> list[str]:
        """Write the files of landmarks, and replace the earlier results.

        Parameters
        ----------
        outputs
            The files to write.
        schema
            Names of the landmarks.
        visibility
            Whether the model predicts visibility.

        Returns
        -------
        list[str]
            One line for each file, and for what was removed.
        """
        if not self.record.images:
            return []
        # in this order, --resume can complete what is interrupted at any point
        if self._earlier is not None:
            self._move_drawings()
        lines = outputs.write(self.out, self.record, schema, visibility)
        if self._earlier is not None:
            lines += self._remove_earlier(self._earlier, outputs)
            with report_write_errors(self.out / RECORD_NAME):
                os.replace(self.record.path, self.out / RECORD_NAME)
                self._remove_staging()
        return lines

    def _remove_staging(self) -> None:
        if self._folder != self.out:
            shutil.rmtree(self._folder)

    def _move_drawings(self) -> None:
        """Put the new drawings into their place."""
        with report_write_errors(self.out):
            for name in self.record.drawings:
                with suppress(FileNotFoundError):  # it was moved before an interruption
                    os.replace(self._folder / name, self.out / name)

    def _remove_earlier(self, earlier: PredictionRecord, outputs: Outputs) -> list[str]:
        """Remove the earlier results that the new ones do not replace, unless they were changed since."""
        kept = {fold_name(name) for name in self.record.drawings}
        stale = [name for name in self._replaceable if fold_name(name) not in kept]
        removed = 0
        with report_write_errors(self.out):
            for path in (self.out / name for name in stale):
                if _size(path) == self._replaceable[path.name]:
                    path.unlink()
                    removed += 1
        lines = [
            f"removed: {self.out / name}" for name in remove_stale_outputs(self.out, earlier, outputs.names)
        ]
        if removed:
            lines.append(f"removed: {format_count(removed, 'drawing')} of the earlier results")
        return lines

    def _is_free(self, name: str) -> bool:
        """Return whether a drawing may have this name: no file of another origin is overwritten."""
        path = self.out / name
        return _size(path) in (None, self._replaceable.get(name))

    def _has_drawing(self, recorded: RecordedImage) -> bool:
        """Return whether the drawing of an image exists, if there is one."""
        name, size = recorded.drawing, recorded.drawing_bytes
        return name is None or any(_size(each / name) == size for each in {self._folder, self.out})


def split_drawings(images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the images that are not drawings of `predict`, and those that are.

    A drawing is recognized by the record in its folder.
    """
    known: dict[Path, set[tuple[str, int]]] = {}
    others: list[Path] = []
    drawings: list[Path] = []
    for image in images:
        folder = image.parent
        if folder not in known:
            known[folder] = _drawings_in(folder)
        is_drawing = (image.name, _size(image)) in known[folder]
        (drawings if is_drawing else others).append(image)
    return others, drawings


def _drawings_in(folder: Path) -> set[tuple[str, int]]:
    """Return the name and size of each drawing that the records of a folder, if it has any, list."""
    try:
        records = _read_records(folder)
    except UserError:  # a file of another origin
        return set()
    return {entry for record in records if record for entry in record.drawings.items()}


def _read_records(folder: Path) -> Records:
    """Return the record of a folder, and that of the results that are to replace it.

    A record without images counts as none.
    """
    paths = (folder / RECORD_NAME, folder / STAGING_NAME / RECORD_NAME)
    earlier, staged = (
        record if record is not None and record.images else None
        for record in map(PredictionRecord.read, paths)
    )
    return earlier, staged


def _tables(folder: Path) -> list[str]:
    """Return the names of the tables of landmarks in a folder."""
    return [name for name in (JSON_NAME, CSV_NAME) if (folder / name).exists()]


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if it does not exist."""
    try:
        return path.lstat().st_size
    except OSError:
        return None
