"""Describe a data set before a model is trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import split_from_config
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
    """

    source: str
    summary: DatasetSummary
    groups: int
    samples: Path


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
    split = split_from_config(dataset, config.data, config.seed)
    groups = len(np.unique(split.groups))
    return DataReport(dataset.source, summarize(dataset), groups, draw_samples(dataset, config, Path(out)))


def draw_samples(dataset: LandmarkDataset, config: TrainConfig, out: Path, count: int = SAMPLE_COUNT) -> Path:
    """Draw a sheet of random samples of a data set, the first row unchanged and the rows below augmented.

    Returns
    -------
    Path
        Path of the sheet, OUT/samples.png.
    """
    rows = np.sort(np.random.default_rng(config.seed).permutation(len(dataset))[:count])
    samples = dataset.subset(rows)
    images, landmarks = list(samples.images), [samples.landmarks]
    for _ in range(AUGMENTED_ROWS):
        augmented, points = augment_samples(samples, config)
        images += list(augmented)
        landmarks.append(Landmarks.from_points(points, samples.schema))
    captions = [*samples.names, *["augmented"] * (len(images) - len(samples))]
    path = out / SAMPLES_NAME
    shown = Landmarks.concatenate(landmarks, samples.schema)
    save_png(path, landmark_sheet(images, shown, captions=captions, columns=len(samples)))
    return path


def augment_samples(
    samples: LandmarkDataset, config: TrainConfig
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Augment N rows as in training.

    Returns
    -------
    tuple[NDArray, NDArray]
        (N, S, S, C) uint8 images and (N, K, 2) points in their pixels; S is the input size of the network.
    """
    import torch

    from landmarks_fastai.training.augmentation import AugmentBatch

    augment = AugmentBatch(config.augment, config.model.input_size, samples.schema.flip_index)
    images = torch.from_numpy(samples.images).permute(0, 3, 1, 2).float() / 255
    augmented, points = augment.augment(images, torch.from_numpy(samples.points))
    pixels = (augmented * 255).round().byte().permute(0, 2, 3, 1)
    return np.asarray(pixels), np.asarray(points)
