"""Training on given rows, and evaluation on others.

The last weights are evaluated: no epoch is selected on the rows that the model is evaluated on.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from fastai.learner import Learner
from fastai.torch_core import set_seed

from _common.data import Indices
from _common.results import BENCHMARKS
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.evaluation.report import Report, evaluate_dataset
from landmarks_fastai.inference.backends import torch_backend
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.training.ema import evaluated_weights
from landmarks_fastai.training.learner import build_learner, get_augmentation
from landmarks_fastai.training.reporting import EpochLog, SilentReporter

MONITORED = 64
"""Number of held-out rows on which training reports its RMSE after each epoch; it selects nothing."""


class PrintReporter(SilentReporter):
    """Reporter that prints messages, and one line per epoch."""

    def note(self, text: str) -> None:
        """Print a message."""
        print(text, flush=True)

    def epoch(self, row: dict[str, float]) -> None:
        """Print the validation RMSE and the duration of an epoch."""
        print(f"  epoch {row['epoch']:.0f}: valid rmse {row['rmse']:.3f}, {row['seconds']:.0f} s", flush=True)


def new_learner(
    config: TrainConfig, dataset: LandmarkDataset, train: Indices, valid: Indices, reproducible: bool = True
) -> Learner:
    """Seed all random numbers, and build the learner of a config for given rows.

    Parameters
    ----------
    config
        The config.
    dataset
        The data set.
    train, valid
        Rows of `dataset`.
    reproducible
        Use deterministic algorithms only, which are slower on a GPU.
    """
    set_seed(config.seed, reproducible=reproducible)
    split = Split(train, valid, np.arange(len(dataset)), "grouped", config.seed)
    return build_learner(config, dataset, split, BENCHMARKS)


def train_on(config: TrainConfig, dataset: LandmarkDataset, train: Indices, valid: Indices) -> Predictor:
    """Train on the rows `train`, and return a predictor with the last weights (of the EMA, if there is one).

    Parameters
    ----------
    config
        The config.
    dataset
        The data set.
    train
        Training rows.
    valid
        Held-out rows; training reports the RMSE on the first `MONITORED` of them.
    """
    learn = new_learner(config, dataset, train, valid[:MONITORED])
    with learn.no_logging():
        learn.fit(config.training.epochs, cbs=[EpochLog(PrintReporter())])
    return predictor_of(learn)


def predictor_of(learn: Learner) -> Predictor:
    """Return a predictor with a copy of the weights that validation would use now."""
    network = copy.deepcopy(learn.model)
    network.load_state_dict(evaluated_weights(learn))
    network = network.cpu().eval().to(memory_format=torch.contiguous_format)
    label_bias = get_augmentation(learn.dls).label_bias
    header = ModelHeader.from_dict({**learn.header, "label_bias": label_bias}, BENCHMARKS)
    return Predictor(header, torch_backend(network, header, "cpu"))


def with_epochs(config: TrainConfig, epochs: int) -> TrainConfig:
    """Return a config with another number of epochs."""
    training = config.training.model_copy(update={"epochs": epochs})
    return config.model_copy(update={"training": training})


def evaluate_rows(
    predictor: Predictor, dataset: LandmarkDataset, rows: Indices, flip: bool = False
) -> Report:
    """Evaluate a model on some rows of a data set."""
    chosen = dataset.subset(rows)
    return evaluate_dataset(predictor.predict_batch(chosen.images, flip=flip), chosen)
