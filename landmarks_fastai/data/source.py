"""The one door to faces: a word or a path goes in, a table comes out.

Knows which sources there are and which options act on each. Knows nothing about what is in their files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs

from landmarks_fastai import __version__
from landmarks_fastai.config import Data
from landmarks_fastai.data import kaggle
from landmarks_fastai.data.cache import remember, sha256
from landmarks_fastai.data.csvfile import CsvFile
from landmarks_fastai.data.download import fetch
from landmarks_fastai.data.fixes import apply_fixes
from landmarks_fastai.data.folder import CSV, read_folder
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError, nearest

Progress = Callable[[int, int | None], None]

KAGGLE, SYNTHETIC = "kaggle", "synthetic"
POSSIBLE = (
    "possible: kaggle, synthetic, or a path: Kaggle's zip, training.zip or training.csv, a CSV with the"
    f" columns image, NAME_x and NAME_y, or a folder with {CSV} or with Kaggle's files"
)
DRAWN = 1000
"""How many synthetic faces are drawn where no count is given."""


def default_cache() -> Path:
    """Return the user's cache folder for this package, or what LANDMARKS_FASTAI_CACHE says."""
    chosen = os.environ.get("LANDMARKS_FASTAI_CACHE")
    return (
        Path(chosen).expanduser()
        if chosen
        else platformdirs.user_cache_path("landmarks-fastai", appauthor=False)
    )


def load_table(data: Data, cache: Path, seed: int, progress: Progress | None = None) -> FaceTable:
    """Load the faces that a recipe names, with its fixes, without the rows that it leaves out.

    Raises
    ------
    UserError
        As `load_faces` and `apply_fixes`; also where no row has all points and `complete_only` is set.
    """
    table = load_faces(
        data.source, cache, size=data.size, frame=data.frame, seed=seed, count=data.count, progress=progress
    )
    if data.fixes is not None:
        table = apply_fixes(table, Path(data.fixes).expanduser())
    if data.complete_only:
        table = table.rows(table.complete)
        if not len(table):
            raise UserError(f"data.complete_only: no row of {table.source} has all points")
    if data.limit is not None and data.limit < len(table):
        chosen = np.random.default_rng(seed).permutation(len(table))[: data.limit]
        table = table.rows(np.sort(chosen))
    return table


def load_faces(
    spec: str,
    cache: Path,
    *,
    size: int | None = None,
    frame: str | None = None,
    seed: int = 0,
    count: int | None = None,
    progress: Progress | None = None,
) -> FaceTable:
    """Load all faces of a source.

    Parameters
    ----------
    spec
        ``"kaggle"``, ``"synthetic"``, or a path.
    cache
        Folder for what is downloaded and read; made where needed.
    size
        Side that own images are brought to, in pixels; 128 if None. Own images only.
    frame
        ``"points"`` (if None) or ``"image"``, see `read_folder`. Own images only.
    seed
        Draws the synthetic faces.
    count
        How many synthetic faces; 1,000 if None. Synthetic only.
    progress
        Told of the bytes of a download, done and in all.

    Returns
    -------
    FaceTable
        Its `source` is `spec`.

    Raises
    ------
    UserError
        If there is no such source, an option can't act on it, or its files can't be used.
    RunError
        If the download fails.
    """
    own_options = {"data.size": size, "data.frame": frame}
    if spec == SYNTHETIC:
        _refuse(own_options, "synthetic faces")
        return _synthetic(DRAWN if count is None else count, seed, cache)
    _refuse({"data.count": count}, spec, remedy="use --reduce-data or data.limit for fewer rows")
    if spec == KAGGLE:
        _refuse(own_options, "Kaggle's faces")
        return _kaggle(fetch_kaggle(cache, progress), cache, spec)
    path = Path(spec).expanduser()
    if not path.exists():
        raise UserError(f"{spec}: no such source or file; {_perhaps(spec)}{POSSIBLE}")
    if _is_kaggle(path):
        _refuse(own_options, "Kaggle's faces")
        return _kaggle(kaggle.find(path, "training"), cache, spec)
    table = read_folder(
        path, cache, size=128 if size is None else size, frame="points" if frame is None else frame
    )
    return replace(table, source=spec)


def fetch_kaggle(cache: Path, progress: Progress | None = None) -> Path:
    """Return Kaggle's zip in the cache, fetched and verified if it is not there yet.

    Raises
    ------
    RunError, UserError
        As `fetch`.
    """
    path = cache / kaggle.ARCHIVE
    fresh = not path.is_file()
    fetch(kaggle.URL, path, kaggle.ARCHIVE_BLOB, progress)
    if fresh:
        try:
            kaggle.check_members(path, kaggle.MEMBER_BLOBS)
        except UserError:
            path.unlink()  # else the next call would take it for checked
            raise
    return path


def _kaggle(path: Path, cache: Path, spec: str) -> FaceTable:
    key = (sha256(path), path.name)
    table = remember(cache, KAGGLE, key, lambda: kaggle.read_training(path))
    return replace(table, source=spec)


def _synthetic(count: int, seed: int, cache: Path) -> FaceTable:
    """Draw, or take from the cache what this version of the package drew: a thousand take seconds."""
    key = (__version__, str(count), str(seed))
    table = remember(cache, SYNTHETIC, key, lambda: draw_faces(count, seed))
    return replace(table, source=SYNTHETIC)


def _refuse(options: Mapping[str, object], source: str, remedy: str = "remove it") -> None:
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name}: does nothing for {source}; {remedy}")


def _perhaps(spec: str) -> str:
    hint = nearest(spec, (KAGGLE, SYNTHETIC))
    return f"{hint} " if hint.startswith("did") else ""


def _is_kaggle(path: Path) -> bool:
    """Tell Kaggle's layout from own points by the names in a folder or the header of a CSV.

    Raises
    ------
    UserError
        If it is neither, or both.
    """
    if path.is_dir():
        own = (path / CSV).is_file()
        theirs = any((path / name).is_file() for name in ("training.csv", "training.zip", kaggle.ARCHIVE))
        if own and theirs:
            raise UserError(f"{path}: holds both {CSV} and Kaggle's files; give the file itself")
        if not own and not theirs:
            raise UserError(f"{path}: the folder holds no source of faces; {POSSIBLE}")
        return theirs
    try:
        with path.open("rb") as stream:
            if path.suffix.lower() == ".zip" or stream.read(2) == b"PK":
                return True
            stream.seek(0)
            columns = CsvFile(stream, str(path)).columns
    except UserError as error:
        if path.suffix.lower() == ".csv":
            raise
        raise UserError(f"{error}; {POSSIBLE}") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from error
    if "image" in columns:
        return False
    if {"ImageId", *kaggle.COLUMNS} & set(columns):
        return True
    raise UserError(f"{path}: its first line names neither Kaggle's columns nor 'image'; {POSSIBLE}")
