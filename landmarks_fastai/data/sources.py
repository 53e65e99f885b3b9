"""Loading the data set of a config: Kaggle's or synthetic faces by name, any other from a path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from landmarks_fastai import __version__
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.cache import load_or_parse
from landmarks_fastai.data.corrections import apply_corrections
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.formats import csv, kaggle
from landmarks_fastai.data.formats.base import Format
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.download import default_cache_dir, download
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import suggest

KAGGLE, SYNTHETIC = "kaggle", "synthetic"
DEFAULT_COUNT = 1000
"""Number of synthetic faces if the config does not set it."""

FORMATS: dict[str, Format] = {"csv": csv.FORMAT, "kaggle": kaggle.FORMAT}
"""Data set formats of files and folders, by name."""

OPTIONAL = ("image_size", "crop", "count")
"""Options of `DataConfig` that have an effect on certain sources only."""

SOURCES_HELP = (
    "a source is kaggle, synthetic, or a path: Kaggle's zip, training.zip or training.csv, a CSV with the"
    f" columns image, NAME_x and NAME_y, or a folder with {csv.CSV_NAME} or with Kaggle's files"
)


def load_dataset(
    data: DataConfig | str | Path,
    *,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> LandmarkDataset:
    """Load a data set: download and read it, apply corrections, and select rows.

    Parameters
    ----------
    data
        The data options of a config, or the source alone: ``"kaggle"``, ``"synthetic"``, or a path to
        Kaggle's files or to a CSV of landmarks with its images (`read_csv_dataset`).
    seed
        Seed of the synthetic faces and of the rows that `DataConfig.limit` selects.
    cache
        Folder for downloads and parsed data; `default_cache_dir` if None.
    progress
        Called with the bytes downloaded so far and the total.

    Returns
    -------
    LandmarkDataset
        Its `source` is `data.source`.

    Raises
    ------
    UserError
        If there is no such source, an option has no effect on it, its files or the corrections cannot be
        used, or no row is left.
    RunError
        If the download fails.

    Examples
    --------
    >>> dataset = load_dataset(DataConfig(source="synthetic", count=2))
    >>> dataset.images.shape, dataset.points.shape
    ((2, 96, 96, 1), (2, 15, 2))
    """
    if not isinstance(data, DataConfig):
        data = DataConfig(source=str(data))
    dataset = _load_source(data, seed, default_cache_dir() if cache is None else cache, progress)
    if data.corrections is not None:
        dataset = apply_corrections(dataset, Path(data.corrections).expanduser())
    if data.complete_only:
        dataset = dataset.subset(dataset.complete)
        if not len(dataset):
            raise UserError(f"data.complete_only: {dataset.source} has no row with all landmarks labeled")
    if data.limit is not None and data.limit < len(dataset):
        rows = np.random.default_rng(seed).permutation(len(dataset))[: data.limit]
        dataset = dataset.subset(np.sort(rows))
    return dataset


def download_kaggle(cache: Path, progress: Progress | None = None) -> Path:
    """Return the path of Kaggle's zip in the cache, after downloading and verifying it if it is missing.

    Raises
    ------
    RunError, UserError
        See `download`; UserError also if the zip contains other files than Kaggle's.
    """
    path = cache / kaggle.ARCHIVE
    is_new = not path.is_file()
    download(kaggle.URL, path, kaggle.ARCHIVE_BLOB, progress)
    if is_new:
        try:
            kaggle.verify_members(path, kaggle.MEMBER_BLOBS)
        except UserError:
            path.unlink()  # the next call would not verify its members again
            raise
    return path


def _load_source(data: DataConfig, seed: int, cache: Path, progress: Progress | None) -> LandmarkDataset:
    """Check the options that depend on the source, and load all its rows."""
    if data.source == SYNTHETIC:
        _check_options(data, frozenset({"count"}))
        return _load_synthetic(DEFAULT_COUNT if data.count is None else data.count, seed, cache)
    path = Path(data.source).expanduser()
    data_format = kaggle.FORMAT if data.source == KAGGLE else _find_format(path, data.source)
    _check_options(data, data_format.options)
    if data.source == KAGGLE:
        path = download_kaggle(cache, progress)
    return replace(data_format.read(path, data, cache), source=data.source)


def _load_synthetic(count: int, seed: int, cache: Path) -> LandmarkDataset:
    """Return synthetic faces from the cache, because drawing a thousand takes seconds."""
    # the key includes the version, because another version may draw other faces
    key = (__version__, str(count), str(seed))
    dataset = load_or_parse(cache, SYNTHETIC, key, lambda: draw_synthetic_faces(count, seed))
    return replace(dataset, source=SYNTHETIC)


def _check_options(data: DataConfig, effective: frozenset[str]) -> None:
    """Raise UserError if an option is set that has no effect on the source."""
    for option in OPTIONAL:
        if option not in effective and getattr(data, option) is not None:
            remedy = "use --reduce-data or data.limit for fewer rows" if option == "count" else "remove it"
            raise UserError(f"data.{option}: has no effect on the source {data.source}; {remedy}")


# --- recognizing the format of a path ------------------------------------------------------------


def _find_format(path: Path, source: str) -> Format:
    """Return the only format that recognizes the path; `source` is the path as the user gave it."""
    if not path.exists():
        hint = suggest(source, (KAGGLE, SYNTHETIC))
        hint = f"{hint} " if hint.startswith("did you mean") else ""
        raise UserError(f"{source}: no such source or file; {hint}{SOURCES_HELP}")
    names = [name for name, data_format in FORMATS.items() if data_format.recognizes(path)]
    if not names:
        raise _unknown_format(path)
    if len(names) > 1:
        raise UserError(
            f"{path}: contains data of several formats ({', '.join(names)}); name the file itself"
        )
    return FORMATS[names[0]]


def _unknown_format(path: Path) -> UserError:
    """Return an error that explains why no format recognizes the path."""
    if path.is_dir():
        return UserError(f"{path}: no data set in this folder; {SOURCES_HELP}")
    try:
        with path.open("rb") as stream:
            CsvReader(stream, str(path))
    except UserError as error:
        return error if path.suffix.lower() == ".csv" else UserError(f"{error}; {SOURCES_HELP}")
    except OSError as error:
        return UserError(f"{path}: cannot be read ({error.strerror or error})")
    return UserError(f"{path}: the header has neither Kaggle's columns nor 'image'; {SOURCES_HELP}")
