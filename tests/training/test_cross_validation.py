"""Cross-validation: out-of-fold predictions of every row, and resuming after an interruption."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.reporter import RecordingReporter
from safetensors.torch import load_file

from landmarks_fastai.config.loading import load_config, validate_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import split_from_config
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.out_of_fold import read_out_of_fold
from landmarks_fastai.evaluation.report import evaluate_dataset
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.training_images import unseen_rows
from landmarks_fastai.training.cross_validation import (
    cross_validate,
    is_cross_validation,
    resume_cross_validation,
)
from landmarks_fastai.training.run import train_run


def two_fold_config(**data: object) -> TrainConfig:
    """Return the config of a cross-validation that takes seconds, with given `data` options."""
    return validate_config(
        {
            "seed": 3,
            "model": {"input_size": 32, "head": "soft-argmax"},
            "data": {"source": "synthetic", "count": 40, "folds": 2, **data},
            "training": {
                "epochs": 2,
                "batch_size": 16,
                "loss": "l1",
                "optimizer": {"name": "adamw", "weight_decay": 0.01},
                "schedule": {"name": "one_cycle", "max_lr": 0.003},
                "ema": 0,
                "checkpoint_every": 1,
                "device": "cpu",
            },
        },
        "test",
    )


def interrupt_process(*_: object) -> None:
    """Send Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def finished_folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted cross-validation."""
    folder = tmp_path_factory.mktemp("folds") / "run"
    cross_validate(two_fold_config(), folder, cache=tmp_path_factory.getbasetemp() / "cache")
    return folder


def test_cross_validate_predicts_each_row_out_of_fold(finished_folds: Path) -> None:
    config = load_config(str(finished_folds / "config.yaml"))
    assert config == two_fold_config()
    assert is_cross_validation(finished_folds)
    assert json.loads((finished_folds / "run.json").read_text())["format"] == 2
    dataset = load_dataset(config.data, seed=config.seed)
    predictions = read_out_of_fold(finished_folds / "oof.csv", dataset)
    validated = []
    for number in (1, 2):
        fold = finished_folds / f"fold-{number}"
        split = json.loads((fold / "data.json").read_text())["split"]
        assert not set(split["train"]) & set(split["valid"])
        rows = unseen_rows([fold], dataset)
        assert rows is not None
        assert rows.tolist() == split["valid"]
        assert (predictions.folds[rows] == number).all()
        expected = Predictor.open(fold, "cpu").predict_batch(dataset.images[rows])
        np.testing.assert_allclose(predictions.landmarks.points[rows], expected.points, rtol=1e-3)
        np.testing.assert_allclose(predictions.landmarks.confidence[rows], expected.confidence, rtol=1e-3)
        validated += rows.tolist()
    assert sorted(validated) == list(range(40))
    report = evaluate_dataset(predictions.landmarks, dataset)
    metrics = json.loads((finished_folds / "metrics.json").read_text())
    assert metrics["faces"] == "out of fold"
    assert metrics["overall"]["faces"] == 40
    assert metrics["overall"]["rmse"] == pytest.approx(report.overall.rmse, rel=1e-3)


def test_config_of_fold_reproduces_its_weights(finished_folds: Path, tmp_path: Path) -> None:
    config = load_config(str(finished_folds / "fold-2" / "config.yaml"))
    assert (config.data.folds, config.data.fold) == (2, 2)
    reporter = RecordingReporter()
    train_run(config, tmp_path / "again", reporter=reporter)
    assert (reporter.summaries[0].fold, reporter.summaries[0].folds) == (2, 2)
    repeated, expected = (
        load_file(path / "model.safetensors") for path in (tmp_path / "again", finished_folds / "fold-2")
    )
    assert all(torch.equal(repeated[name], expected[name]) for name in expected)
    first = split_from_config(load_dataset(config.data, seed=3), two_fold_config(fold=1).data, 3)
    assert json.loads((finished_folds / "fold-1" / "data.json").read_text())["split"] == first.to_dict()


def test_cross_validate_reports_suspicious_labels_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("face,action,landmark,x,y\nsynthetic face 7,move,nose_tip,0,0\n")
    reporter = RecordingReporter()
    config = two_fold_config(corrections=str(corrections))
    cross_validate(config, tmp_path / "run", reporter=reporter)
    assert len(reporter.summaries) == 2
    assert [note for note in reporter.notes if "at exactly (0, 0)" in note] == reporter.notes[:1]
    checked: list[object] = []
    monkeypatch.setattr("landmarks_fastai.training.cross_validation.data_notes", checked.append)
    resume_cross_validation(tmp_path / "run")
    assert not checked


def test_resumed_cross_validation_has_same_predictions(finished_folds: Path, tmp_path: Path) -> None:
    epochs: list[float] = []

    def interrupt_in_second_fold(row: dict[str, float]) -> None:
        epochs.append(row["epoch"])
        if len(epochs) == 3:
            interrupt_process()

    folder = tmp_path / "run"
    result = cross_validate(two_fold_config(), folder, reporter=RecordingReporter(interrupt_in_second_fold))
    assert result.report is None
    assert (result.done, result.epochs) == (1, 1)
    assert json.loads((folder / "folds.json").read_text())["done"] == 1
    assert not (folder / "oof.csv").exists()
    first = (folder / "fold-1" / "model.safetensors").stat().st_mtime_ns
    reporter = RecordingReporter()
    assert resume_cross_validation(folder, reporter=reporter).report is not None
    assert len(reporter.epochs) == 1
    assert [(summary.fold, summary.folds) for summary in reporter.summaries] == [(2, 2)]
    assert (folder / "fold-1" / "model.safetensors").stat().st_mtime_ns == first
    assert (folder / "oof.csv").read_bytes() == (finished_folds / "oof.csv").read_bytes()


def test_fold_without_checkpoint_is_trained_from_the_start(finished_folds: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    reporter = RecordingReporter(on_batch=interrupt_process)
    assert cross_validate(two_fold_config(), folder, reporter=reporter).done == 0
    assert resume_cross_validation(folder).report is not None
    assert (folder / "oof.csv").read_bytes() == (finished_folds / "oof.csv").read_bytes()


def test_resume_cross_validation_with_changed_data_or_earlier_version_raises(
    finished_folds: Path, tmp_path: Path
) -> None:
    for name in ("run.json", "config.yaml"):
        (tmp_path / name).write_bytes((finished_folds / name).read_bytes())
    state = json.loads((finished_folds / "folds.json").read_text())
    (tmp_path / "folds.json").write_text(json.dumps({**state, "sha256": "0"}))
    with pytest.raises(UserError, match="synthetic has changed since this run began"):
        resume_cross_validation(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match=r"written by landmarks-fastai 0\.1"):
        resume_cross_validation(tmp_path)


def test_fewer_groups_than_folds_raise_without_leaving_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.folds: synthetic has \d+ groups .*41 folds"):
        cross_validate(two_fold_config(folds=41), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"^data\.folds: a single run trains one fold"):
        train_run(two_fold_config(), tmp_path / "run")


def test_initial_model_in_overwritten_folder_raises(finished_folds: Path) -> None:
    config = two_fold_config()
    model = config.model.model_copy(update={"init_from": str(finished_folds / "fold-1")})
    with pytest.raises(UserError, match=r"^model\.init_from .*: it is in the folder to be overwritten"):
        cross_validate(config.model_copy(update={"model": model}), finished_folds, overwrite=True)
    assert (finished_folds / "fold-1" / "model.safetensors").is_file()


def test_read_out_of_fold_with_other_rows_or_missing_file_raises(
    finished_folds: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(two_fold_config().data, seed=3)
    with pytest.raises(UserError, match=r"oof\.csv: the rows are not those of synthetic"):
        read_out_of_fold(finished_folds / "oof.csv", dataset.subset(np.arange(39)))
    with pytest.raises(UserError, match=r"nothing\.csv: cannot be read"):
        read_out_of_fold(tmp_path / "nothing.csv", dataset)
