"""Loading the data set of a config: Kaggle's or synthetic faces by name, any other from a path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from landmarks_fastai import __version__
from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.annotation_checks import check_annotations
from landmarks_fastai.data.annotation_files import read_annotations
from landmarks_fastai.data.cache import load_or_build
from landmarks_fastai.data.corrections import apply_corrections
from landmarks_fastai.data.crops import CROPS, DEFAULT_SIZE, CropOptions, load_crops
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.formats import ANNOTATION_FORMATS, kaggle
from landmarks_fastai.data.formats.kaggle_archive import verify_members
from landmarks_fastai.data.schema_matching import with_schema
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas.files import open_schema
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.download import download
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import suggest

KAGGLE, SYNTHETIC = "kaggle", "synthetic"
DEFAULT_COUNT = 1000
"""Number of synthetic faces if the config does not set it."""

ANNOTATION_OPTIONS = frozenset({"image_size", "crop", "format", "landmark_schema", "skip_bad"})
"""Options of `DataConfig` that have an effect on annotations of image files only."""

SOURCES_HELP = (
    "a source is kaggle, synthetic, or a path: Kaggle's zip, training.zip or training.csv, or labels in one"
    f" of the formats {', '.join(ANNOTATION_FORMATS)}"
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
        Kaggle's files or to labels in one of the `ANNOTATION_FORMATS`.
    seed
        Seed of the synthetic faces and of the rows that `DataConfig.limit` selects.
    cache
        Folder for downloads and parsed data; `default_cache_dir` if None.
    progress
        Called with the bytes downloaded, or the images decoded, so far and their total.

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
    download(kaggle.URL, path, kaggle.ARCHIVE_BLOB, progress, about=kaggle.ABOUT)
    if is_new:
        try:
            verify_members(path, kaggle.MEMBER_BLOBS)
        except UserError:
            path.unlink()  # the next call would not verify its members again
            raise
    return path


def _load_source(data: DataConfig, seed: int, cache: Path, progress: Progress | None) -> LandmarkDataset:
    """Check the options that depend on the source, and load all its rows."""
    if data.source == SYNTHETIC:
        _check_options(data, frozenset({"count", "occlusion"}))
        count = DEFAULT_COUNT if data.count is None else data.count
        return _load_synthetic(count, seed, data.occlusion or 0.0, cache)
    if data.source == KAGGLE:
        _check_options(data, frozenset())
        return replace(kaggle.load_training(download_kaggle(cache, progress), cache), source=KAGGLE)
    path = Path(data.source).expanduser()
    if not takes_annotation_options(data):
        _check_options(data, frozenset({"format"}))
        return replace(kaggle.load_training(path, cache), source=data.source)
    _check_options(data, ANNOTATION_OPTIONS)
    return _load_annotations(path, data, cache, progress)


def takes_annotation_options(data: DataConfig) -> bool:
    """Return True if the source is labels of image files, for which `ANNOTATION_OPTIONS` have an effect."""
    if data.source in (KAGGLE, SYNTHETIC) or data.format == kaggle.NAME:
        return False
    return data.format is not None or not is_kaggle(Path(data.source).expanduser())


def is_kaggle(path: Path) -> bool:
    """Return True if a path contains Kaggle's files and no others; see `read_annotations`."""
    return kaggle.recognizes(path) and not any(each.recognizes(path) for each in ANNOTATION_FORMATS.values())


def _load_annotations(
    path: Path, data: DataConfig, cache: Path, progress: Progress | None
) -> LandmarkDataset:
    """Read a file or folder of annotations, and crop its rows."""
    if not path.exists():
        hint = suggest(data.source, (KAGGLE, SYNTHETIC))
        hint = f"{hint} " if hint.startswith("did you mean") else ""
        raise UserError(f"{data.source}: no such source or file; {hint}{SOURCES_HELP}")
    schema = None if data.landmark_schema is None else open_schema(data.landmark_schema)
    annotations = with_schema(read_annotations(path, data.format), schema)
    annotations = replace(annotations, notes=(*annotations.notes, *check_annotations(annotations)))
    options = CropOptions(DEFAULT_SIZE if data.image_size is None else data.image_size, data.crop or CROPS[0])
    dataset = load_crops(annotations, options, cache, skip_bad=bool(data.skip_bad), progress=progress)
    return replace(dataset, source=data.source)


def _load_synthetic(count: int, seed: int, occlusion: float, cache: Path) -> LandmarkDataset:
    """Return synthetic faces from the cache, because drawing a thousand takes seconds."""
    # the key includes the version, because another version may draw other faces
    key = (__version__, str(count), str(seed), *([str(occlusion)] if occlusion else []))
    dataset = load_or_build(
        cache, SYNTHETIC, key, lambda _: draw_synthetic_faces(count, seed, occlusion=occlusion)
    )
    return replace(dataset, source=SYNTHETIC)


def _check_options(data: DataConfig, effective: frozenset[str]) -> None:
    """Raise UserError if an option is set that has no effect on the source."""
    for option in ("count", "occlusion", *sorted(ANNOTATION_OPTIONS)):
        if option not in effective and getattr(data, option) is not None:
            remedy = "use --reduce-data or data.limit for fewer rows" if option == "count" else "remove it"
            raise UserError(f"data.{option}: has no effect on the source {data.source}; {remedy}")
