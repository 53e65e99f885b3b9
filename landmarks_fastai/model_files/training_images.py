"""Which images a run was trained on, as its data.json records it: the guard against leakage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.near_duplicates import group_near_duplicates
from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.run_marker import DATA_NAME
from landmarks_fastai.utils.json_reader import read_json_object
from landmarks_fastai.utils.text import shorten

Ids = NDArray[np.uint64]


@dataclass(frozen=True)
class TrainingImages:
    """Images of a run, by their `image_id`.

    Parameters
    ----------
    train, valid
        (N,) uint64, the images of the training rows and of the validation rows.
    """

    train: Ids
    valid: Ids


def format_ids(ids: Ids) -> list[str]:
    """Return ids as 16 hexadecimal digits each, for JSON, whose numbers may be read as floats."""
    return [f"{value:016x}" for value in ids.tolist()]


def read_training_images(folder: Path) -> TrainingImages | None:
    """Return the images that the run in `folder` was trained on; None if it is not a run folder.

    Raises
    ------
    UserError
        If its data.json is damaged.
    """
    path = folder / DATA_NAME
    if not path.is_file():
        return None
    data = read_json_object(path)
    try:
        ids = np.array([int(text, 16) for text in data["images"]], np.uint64)
        split = data["split"]
        return TrainingImages(ids[split["train"]], ids[split["valid"]])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(
            f"{path}: does not say which images the model was trained on ({shorten(repr(error), 80)});"
            " restore the original file"
        ) from error


def unseen_rows(runs: Sequence[Path], dataset: LandmarkDataset) -> NDArray[np.int64] | None:
    """Return the rows that none of the runs was trained on.

    A row was seen if its image was used for training, whatever its format, crop or position in the data set.
    A row whose image a run neither trained nor validated on was seen, too, if it is in one group
    (`group_near_duplicates`) with a training image: another frame of the same person.

    Parameters
    ----------
    runs
        Run folders of the models that are evaluated together.
    dataset
        The data set they are evaluated on.

    Returns
    -------
    NDArray or None
        Indices of the rows; None if no run is known to be trained on an image of this data set.

    Raises
    ------
    UserError
        If there is no such row.
    """
    images = [known for run in runs if (known := read_training_images(run)) is not None]
    ids = dataset.images.ids
    seen = np.zeros(len(dataset), bool)
    validated = np.ones(len(dataset), bool)
    for run in images:
        in_train, in_valid = np.isin(ids, run.train), np.isin(ids, run.valid)
        if in_train.any() or in_valid.any():  # else it was trained on other data
            seen |= in_train
            validated &= in_valid
    if not seen.any():
        return None
    if not (seen | validated).all():
        groups = group_near_duplicates(dataset)
        seen |= np.isin(groups, groups[seen]) & ~validated
    if seen.all():
        raise UserError(
            f"{dataset.source}: every row was used for training by one of these {len(runs)} models (such as"
            " the folds of a cross-validation); use other --data, one model, or the out-of-fold metrics.json"
            " of the cross-validation"
        )
    return np.flatnonzero(~seen)
