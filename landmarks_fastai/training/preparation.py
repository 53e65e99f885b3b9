"""What precedes a training run: checking the config, loading the data set, and building the learner."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fastai.learner import Learner
from fastai.torch_core import set_seed

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.label_checks import check_labels
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import Split, split_from_config, split_notes
from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.backends import resolve_device
from landmarks_fastai.networks.resnet import get_resnet
from landmarks_fastai.training.dataloaders import worker_notes
from landmarks_fastai.training.distributed import SINGLE_PROCESS, Processes
from landmarks_fastai.training.learner import build_learner
from landmarks_fastai.training.loggers import check_loggers
from landmarks_fastai.training.run_folder import describe_data
from landmarks_fastai.training.weight_transfer import (
    check_initial_model,
    find_initial_model,
    initialize_learner,
    open_initial_model,
)
from landmarks_fastai.utils.progress import Progress


@dataclass(frozen=True)
class TrainingRun:
    """A run that is ready to train.

    Parameters
    ----------
    config, folder
        The config, and the run folder.
    dataset, split
        The data set, and its training and validation rows.
    learner
        The learner, with initial weights.
    notes
        See `data_notes`.
    processes
        The processes that train it together.
    """

    config: TrainConfig
    folder: Path
    dataset: LandmarkDataset
    split: Split
    learner: Learner
    notes: tuple[str, ...] = ()
    processes: Processes = SINGLE_PROCESS


def check_config(config: TrainConfig) -> None:
    """Check the options that do not depend on data, before a download that may take minutes.

    Raises
    ------
    UserError
        If there is no such architecture, device or initial model, or a logger is not installed.
    """
    try:
        get_resnet(config.model.arch)
    except UserError as error:
        raise UserError(f"model.arch: {error}") from error
    resolve_device(config.training.device)
    check_loggers(config)
    if config.model.init_from is not None:
        find_initial_model(config.model.init_from)


def prepare_run(
    config: TrainConfig,
    folder: Path,
    *,
    cache: Path | None = None,
    report_labels: bool = False,
    progress: Progress | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> TrainingRun:
    """Seed all random number generators, then load and split the data set and build the learner.

    With `report_labels`, check the labels before the data set is split, which takes longer.

    Raises
    ------
    UserError
        If the data set is invalid, or that of another process differs.
    """
    with processes.one_after_another():
        set_seed(config.seed, reproducible=config.training.reproducible)
        dataset = load_dataset(config.data, seed=config.seed, cache=cache, progress=progress)
        workers = worker_notes(config.training.workers)
        notes = (*data_notes(dataset), *split_notes(dataset, config.data), *workers) if report_labels else ()
        split = split_from_config(dataset, config.data, config.seed)
        learner = build_learner(config, dataset, split, folder)
    check_same_data(processes, dataset, split)
    return TrainingRun(config, folder, dataset, split, learner, notes, processes)


def check_same_data(processes: Processes, dataset: LandmarkDataset, split: Split) -> None:
    """Raise UserError if the processes have read different data, as machines with different files do."""
    if not processes.are_several:
        return
    described = json.dumps(describe_data(dataset, split), sort_keys=True).encode()
    digests = processes.gather(hashlib.sha256(described).hexdigest())
    different = [number for number, digest in enumerate(digests, start=1) if digest != digests[0]]
    if different:
        raise UserError(
            f"{dataset.source}: process {different[0]} has read other data than process 1; copy the same"
            " files to all machines"
        )


def data_notes(dataset: LandmarkDataset) -> tuple[str, ...]:
    """Check the labels of a data set.

    Returns
    -------
    tuple[str, ...]
        What was left out or assumed while reading, and one line for each kind of problem of the labels.

    Raises
    ------
    UserError
        If the coordinates are normalized; see `check_labels`.
    """
    checks = check_labels(dataset)
    notes = [*dataset.notes, *(note for note in checks.notes if note not in dataset.notes)]
    if checks.issues:
        notes.append(f"`data --data {dataset.source}` lists the suspicious labels, the most suspicious first")
    return tuple(notes)


def initialize_weights(run: TrainingRun) -> str | None:
    """Apply `model.init_from`; return a warning if this may make the validation scores too optimistic."""
    model = open_initial_model(run.config)
    if model is None:
        return None
    warning = check_initial_model(model, run.config, run.dataset, run.split)
    initialize_learner(run.learner, model, run.dataset)
    return warning
