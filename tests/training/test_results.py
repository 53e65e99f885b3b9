"""Results of a run: the scores and model files belong to the weights that were saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.evaluation.calibration import fit_scale_factor
from landmarks_fastai.evaluation.metrics import rmse
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.training.run import train_run

SmallConfig = Callable[..., TrainConfig]


def validation_rows(folder: Path, config: TrainConfig) -> LandmarkDataset:
    """Return the validation rows of a run."""
    rows = json.loads((folder / "data.json").read_text())["split"]["valid"]
    return load_dataset(config.data, seed=config.seed).subset(np.array(rows))


def test_model_files_of_all_formats_predict_the_same(finished_run: Path, dataset: LandmarkDataset) -> None:
    safetensors, onnx, pickle = (
        Predictor.open(finished_run / name, "cpu", trust_pickle=True, backend=backend).predict_batch(
            dataset.images
        )
        for name, backend in (("model.safetensors", "torch"), ("model.onnx", "auto"), ("model.pkl", "auto"))
    )
    assert np.abs(safetensors.points - onnx.points).max() < 0.01
    assert np.abs(safetensors.confidence - onnx.confidence).max() < 0.001
    assert np.array_equal(safetensors.points, pickle.points)
    assert np.array_equal(safetensors.confidence, pickle.confidence)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_are_those_of_the_saved_weights(
    precision: str, tmp_path: Path, small_config: SmallConfig
) -> None:
    diverging = {"name": "one_cycle", "max_lr": 1.0, "div": 1000.0, "pct_start": 0.9}
    config = small_config(epochs=8, ema=0.5, schedule=diverging, precision=precision)
    result = train_run(config, tmp_path / "run")
    losses = pd.read_csv(tmp_path / "run" / "history.csv")["valid_loss"]
    assert losses.argmin() < len(losses) - 1, "the best epoch must not be the last one in this test"
    valid = validation_rows(tmp_path / "run", config)
    predicted = Predictor.open(tmp_path / "run", "cpu").predict_batch(valid.images)
    assert result.report.overall.rmse == pytest.approx(rmse(predicted.points, valid.points), rel=1e-3)


def test_scale_factor_is_fitted_to_validation_rows(finished_run: Path, small_config: SmallConfig) -> None:
    valid = validation_rows(finished_run, small_config())
    predictor = Predictor.open(finished_run, "cpu")
    factor = predictor.header.scale_factor
    assert abs(factor - 1) > 0.02  # after four epochs the scales are not yet calibrated
    predicted = predictor.predict_batch(valid.images)
    assert fit_scale_factor(predicted.points, valid.points, predicted.scales) == pytest.approx(1, abs=0.02)
    calibration = json.loads((finished_run / "metrics.json").read_text())["calibration"]
    assert calibration["scale_factor"] == pytest.approx(1, abs=1e-5)
    assert calibration["landmarks"] == 15 * len(valid)
    assert calibration["mean_confidence"] == pytest.approx(predicted.confidence.mean(), abs=0.01)
    assert f"scales are multiplied by {factor:.2f}" in (finished_run / "README.md").read_text()


def test_model_without_confidence_has_no_calibration(tmp_path: Path, small_config: SmallConfig) -> None:
    config = small_config(epochs=1)
    config = config.model_copy(update={"model": config.model.model_copy(update={"confidence": False})})
    result = train_run(config, tmp_path / "run")
    assert result.report.calibration is None
    assert Predictor.open(tmp_path / "run", "cpu").header.scale_factor == 1
    assert "there is no calibration" in (tmp_path / "run" / "README.md").read_text()
