"""The history of a run: training and validation loss are the same quantity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from torch import Tensor, nn

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.data.splits import Split
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.training.learner import build_learner
from landmarks_fastai.training.losses import MaskedLoss
from landmarks_fastai.training.reporting import EpochLog, SilentReporter

ROWS = np.arange(12)


class TotalLoss(Callback):
    """Record the loss of each training batch."""

    order = 50

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_batch(self) -> None:
        if self.training:
            self.losses.append(float(self.loss.detach()))


def history_of(monkeypatch: pytest.MonkeyPatch, **model: object) -> tuple[dict[str, float], float]:
    """Train on the validation rows without changing anything; return the row and the whole loss."""
    # the statistics of a batch would make the training output another one
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda self, mode=True: nn.Module.train(self, False))
    config = validate_config(
        {
            "model": {"input_size": 32, **model},
            "augment": "none",
            "training": {
                "batch_size": 12,
                "loss": "l1",
                "schedule": {"name": "flat_cos", "max_lr": 1e-12},
                "ema": 0.0,
                "device": "cpu",
                "precision": "fp32",
            },
        },
        "test",
    )
    dataset = draw_synthetic_faces(12, seed=3)
    if config.model.two_protocols:
        points = dataset.points.copy()
        points[::3, 4:] = np.nan
        points[::3, :4] += 20
        dataset = replace(dataset, points=points)
    torch.manual_seed(0)
    learn = build_learner(config, dataset, Split(ROWS, ROWS, ROWS, "random", 0), Path("."))
    log, total = EpochLog(SilentReporter()), TotalLoss()
    with learn.no_logging():
        learn.fit(1, cbs=[log, total])
    return log.rows[0], float(np.mean(total.losses))


@pytest.mark.parametrize(
    "model",
    [
        {"head": "simcc"},
        {"head": "simcc", "confidence": False},
        {"head": "simcc", "two_protocols": True},
        {"head": "soft-argmax", "two_protocols": True},
    ],
    ids=str,
)
def test_training_loss_is_the_quantity_of_the_validation_and_the_rest_is_apart(
    model: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    row, total = history_of(monkeypatch, **model)
    assert row["train_loss"] == pytest.approx(row["valid_loss"], rel=1e-4)
    assert row["train_loss"] + row["head_loss"] == pytest.approx(total, rel=1e-6)
    assert abs(row["head_loss"]) > 0.01 * abs(row["train_loss"])
    assert list(row)[:4] == ["epoch", "train_loss", "head_loss", "valid_loss"]


@pytest.mark.parametrize("head", ["soft-argmax", "linear"])
def test_head_without_further_terms_has_one_training_loss(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, total = history_of(monkeypatch, head=head)
    assert "head_loss" not in row
    assert row["train_loss"] == pytest.approx(row["valid_loss"], rel=1e-4)
    assert row["train_loss"] == pytest.approx(total)


def test_loss_of_evaluated_landmarks_is_none_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halves(nn.Module):
        def evaluated(self, output: Tensor) -> Tensor:
            return output[:, :2]

    config = validate_config({"training": {"loss": "l1"}}, "test")
    loss = MaskedLoss(config.training.loss)
    predicted, labels = torch.zeros(1, 4, 2), torch.full((1, 4, 2), 0.5)
    assert float(loss.of_evaluated(Halves(), predicted, labels)) == pytest.approx(0.25)
    labels[:, :2] = torch.nan
    assert loss.of_evaluated(Halves(), predicted, labels) is None
