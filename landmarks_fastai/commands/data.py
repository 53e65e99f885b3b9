"""Describe a data set before a model is trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.commands.schema_report import schema_notes
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import split_from_config, split_notes
from landmarks_fastai.data.summary import DatasetSummary, summarize
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.sheets import landmark_sheet

SAMPLES_NAME = "samples.png"
SAMPLE_COUNT = 8
AUGMENTED_ROWS = 3
"""Number of rows of augmented samples on the sheet."""


@dataclass(frozen=True)
class DataReport:
    """Description of a data set.

    Parameters
    ----------
    source
        Where the data set came from.
    summary
        Counts and label checks.
    groups
        Number of groups of near-duplicates; a split keeps each group on one side.
    samples
        Path of the sheet of samples.
    notes
        Lines about its schema and its split; see `schema_notes` and `split_notes`.
    """

    source: str
    summary: DatasetSummary
    groups: int
    samples: Path
    notes: tuple[str, ...]


def describe_data(
    config: TrainConfig, out: str | Path, *, cache: Path | None = None, progress: Progress | None = None
) -> DataReport:
    """Load the data set of a config, check its labels and draw samples of it.

    Parameters
    ----------
    config
        Its section `data` selects the data set, its section `augment` the augmentation of the samples.
    out
        Folder for samples.png.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.

    Raises
    ------
    UserError, RunError
        See `load_dataset`.
    """
    dataset = load_dataset(config.data, seed=config.seed, cache=cache, progress=progress)
    summary = summarize(dataset)  # before the split, which takes longer
    split = split_from_config(dataset, config.data, config.seed)
    groups = len(np.unique(split.groups))
    samples = draw_samples(dataset, config, Path(out))
    notes = (*schema_notes(dataset.schema, config.augment), *split_notes(dataset, config.data))
    return DataReport(dataset.source, summary, groups, samples, notes)


def draw_samples(dataset: LandmarkDataset, config: TrainConfig, out: Path, count: int = SAMPLE_COUNT) -> Path:
    """Draw a sheet of random samples of a data set.

    The first row is unchanged; the second, if there are flip pairs, is mirrored, with the landmarks of each
    pair exchanged; the rows below are augmented.

    Returns
    -------
    Path
        Path of the sheet, OUT/samples.png.
    """
    rows = np.sort(np.random.default_rng(config.seed).permutation(len(dataset))[:count])
    samples = dataset.subset(rows)
    images, landmarks, captions = list(samples.images), [samples.landmarks], [*samples.names]
    if samples.schema.flip_pairs:
        mirrored, points = mirror_samples(samples)
        images += list(mirrored)
        landmarks.append(Landmarks.from_points(points, samples.schema))
        captions += ["mirrored"] * len(samples)
    for _ in range(AUGMENTED_ROWS):
        augmented, points = augment_samples(samples, config)
        images += list(augmented)
        landmarks.append(Landmarks.from_points(points, samples.schema))
        captions += ["augmented"] * len(samples)
    path = out / SAMPLES_NAME
    shown = Landmarks.concatenate(landmarks, samples.schema)
    save_png(path, landmark_sheet(images, shown, captions=captions, columns=len(samples)))
    return path


def mirror_samples(samples: LandmarkDataset) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mirror N rows, and exchange the landmarks of each flip pair.

    Returns
    -------
    tuple[NDArray, NDArray]
        (N, S, S, C) uint8 images and (N, K, 2) points in their pixels.
    """
    points = samples.points[:, list(samples.schema.flip_index)].copy()
    points[..., 0] = samples.size - 1 - points[..., 0]
    return samples.images[:][:, :, ::-1], points


def augment_samples(
    samples: LandmarkDataset, config: TrainConfig
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Augment N rows as in training; they are not mirrored if training would refuse to.

    Returns
    -------
    tuple[NDArray, NDArray]
        (N, S, S, C) uint8 images and (N, K, 2) points in their pixels; S is the input size of the network.
    """
    import torch

    from landmarks_fastai.training.augmentation import AugmentBatch
    from landmarks_fastai.training.schema_checks import can_mirror, without_flip

    options = config.augment if can_mirror(samples.schema) else without_flip(config.augment)
    augment = AugmentBatch(options, config.model.input_size, samples.schema.flip_index)
    images = torch.from_numpy(samples.images[:]).permute(0, 3, 1, 2).float() / 255
    augmented, points = augment.augment(images, torch.from_numpy(samples.points))
    pixels = (augmented * 255).round().byte().permute(0, 2, 3, 1)
    return np.asarray(pixels), np.asarray(points)
