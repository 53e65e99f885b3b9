"""The data set that a model is evaluated on, and which of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import DataConfig, TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset, takes_annotation_options
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.training_images import read_training_images, unseen_rows
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import format_count, shorten


def load_model_data(
    header: ModelHeader,
    source: str | Path | DataConfig | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> LandmarkDataset:
    """Load the data set that a model was trained on, or another one with the same settings.

    Of the settings of the training, those that describe what the model knows are used for other data, too,
    unless `source` sets them: the size of the images, the crop, the schema, and whether incomplete rows are
    left out. Those that belong to the data set are not: its format, corrections, and number of rows.

    Parameters
    ----------
    header
        The model's header; its config may be empty.
    source
        "kaggle", "synthetic" or a path, or data options; None for those of the config.
    cache
        Folder for downloaded and parsed data; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.
    """
    config = header.config
    trained = validate_config(config, "the config in the model file") if config else TrainConfig()
    if source is None:
        return load_dataset(trained.data, seed=trained.seed, cache=cache, progress=progress)
    given = source if isinstance(source, DataConfig) else DataConfig(source=str(source))
    chosen = {name for name in given.model_fields_set if getattr(given, name) is not None}
    if given.source == trained.data.source:
        data = trained.data.model_copy(update={name: getattr(given, name) for name in chosen})
        return load_dataset(data, seed=trained.seed, cache=cache, progress=progress)
    if takes_annotation_options(given):
        crops = {"image_size": trained.data.image_size, "crop": trained.data.crop}
        unset = {name: value for name, value in crops.items() if name not in chosen}
        given = given.model_copy(update=unset)
    dataset = load_dataset(given, seed=trained.seed, cache=cache, progress=progress)
    if trained.data.landmark_schema is not None and "landmark_schema" not in chosen:
        dataset = dataset.with_schema(header.landmark_schema)
    if trained.data.complete_only and "complete_only" not in chosen:
        dataset = _complete_rows(dataset)
    return dataset


def _complete_rows(dataset: LandmarkDataset) -> LandmarkDataset:
    """Return the rows with all landmarks, with a note; all rows if no row has them."""
    left_out = len(dataset) - int(dataset.complete.sum())
    if left_out in (0, len(dataset)):
        return dataset
    note = (
        f"{format_count(left_out, 'row')} with an unlabeled landmark left out, as in the training"
        " (data.complete_only)"
    )
    return replace(dataset.subset(dataset.complete), notes=(*dataset.notes, note))


def select_unseen(
    dataset: LandmarkDataset, paths: Sequence[Path], headers: Sequence[ModelHeader]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows that the models were not trained on, with sentences that explain the choice.

    Parameters
    ----------
    dataset
        The data set they are evaluated on.
    paths
        The model files.
    headers
        The headers of the models.

    Raises
    ------
    UserError
        If there is no such row.
    """
    unseen = unseen_rows([path.parent for path in paths], dataset)
    notes = []
    configs = [header.config.get("model", {}) for header in headers]
    if unseen is not None:
        who = "the model was not trained" if len(paths) == 1 else "none of the models was trained"
        notes.append(f"evaluating the {len(unseen):,} rows that {who} on (--rows all evaluates every row)")
        notes += [
            f"the initial weights, {shorten(str(initial))}, may have been trained on some of these rows"
            for initial in dict.fromkeys(config.get("init_from") for config in configs)
            if initial
        ]
    if any(read_training_images(path.parent) is None for path in paths):
        unknown = "a model file without its run folder does not say which rows it was trained on"
        notes.append(unknown if unseen is not None else f"evaluating all {len(dataset):,} rows: {unknown}")
    rows = np.arange(len(dataset)) if unseen is None else unseen
    if any(config.get("two_protocols") for config in configs):
        rows, about_protocols = _rows_of_first_protocol(dataset, rows)
        notes += about_protocols
    return rows, notes


def _rows_of_first_protocol(
    dataset: LandmarkDataset, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the complete rows, whose annotation protocol the model predicts, and what was left out."""
    complete = rows[dataset.complete[rows]]
    left_out = len(rows) - len(complete)
    if not left_out:
        return rows, []
    if not len(complete):
        return rows, ["no row is complete: all of them may follow the other protocol (model.two_protocols)"]
    return complete, [
        f"{format_count(left_out, 'incomplete row')} left out: the other annotation protocol"
        " (model.two_protocols; --rows all evaluates every row)"
    ]
