"""Training runs: the files they write, resuming, Ctrl-C, and invalid configs and folders."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from helpers.reporter import RecordingReporter
from safetensors.torch import load_file

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.training.run import data_notes, resume_run, train_run

SmallConfig = Callable[..., TrainConfig]

RUN_FILES = {
    "run.json",
    "config.yaml",
    "data.json",
    "history.csv",
    "curves.png",
    "samples.png",
    "checkpoints",
    "metrics.json",
    "model.safetensors",
    "model.pkl",
    "model.onnx",
    "README.md",
}


def with_data(config: TrainConfig, **data: object) -> TrainConfig:
    """Return the config with other `data` options."""
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


def interrupt_process(*_: object) -> None:
    """Send Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


# --- files and reports ---------------------------------------------------------------------------


def test_train_run_writes_all_files(finished_run: Path, small_config: SmallConfig) -> None:
    assert {path.name for path in finished_run.iterdir()} == RUN_FILES
    assert json.loads((finished_run / "run.json").read_text())["format"] == 2
    assert load_config(str(finished_run / "config.yaml")) == small_config()
    data = json.loads((finished_run / "data.json").read_text())
    assert len(data["sha256"]) == 64
    assert len(data["split"]["train"]) + len(data["split"]["valid"]) == data["rows"] == 60
    history = pd.read_csv(finished_run / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert list(history) == ["epoch", "train_loss", "valid_loss", "rmse", "nme", "lr", "seconds"]
    metrics = json.loads((finished_run / "metrics.json").read_text())
    best = history.loc[history["valid_loss"].idxmin()]
    assert metrics["overall"]["rmse"] == pytest.approx(best["rmse"], abs=1e-3)
    assert "RMSE" in (finished_run / "README.md").read_text()


def test_train_run_reports_summary_batches_and_epochs(tmp_path: Path, small_config: SmallConfig) -> None:
    reporter = RecordingReporter()
    config = small_config(epochs=2)
    result = train_run(config, tmp_path / "run", reporter=reporter)
    (summary,) = reporter.summaries
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (summary.folder, summary.source) == (tmp_path / "run", "synthetic")
    assert (summary.rows, summary.landmarks) == (60, 15)
    assert (summary.train_rows, summary.valid_rows) == (
        len(data["split"]["train"]),
        len(data["split"]["valid"]),
    )
    assert summary.split == "grouped"
    assert summary.groups == data["split"]["groups"]["train"] + data["split"]["groups"]["valid"]
    assert (summary.fold, summary.folds) == (None, None)
    assert (summary.arch, summary.head, summary.init_from) == ("resnet18", "soft-argmax", None)
    assert (summary.input_size, summary.channels) == (32, 1)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    trained = [t for name, t in weights.items() if "running" not in name and "num_batches" not in name]
    assert summary.parameters == sum(tensor.numel() for tensor in trained)
    assert (summary.device, summary.precision) == ("cpu", "float32")
    assert (summary.epochs, summary.epochs_done, summary.batch_size) == (2, 0, 16)
    assert reporter.notes == []
    assert [(done, total) for done, total, *_ in reporter.batches] == [(i + 1, 6) for i in range(6)]
    assert [row["epoch"] for row in reporter.epochs] == [1, 2]
    assert result.epochs == 2
    assert not result.interrupted


def test_bf16_run_reports_bfloat16(tmp_path: Path, small_config: SmallConfig) -> None:
    reporter = RecordingReporter()
    result = train_run(small_config(epochs=1, precision="bf16"), tmp_path / "run", reporter=reporter)
    assert reporter.summaries[0].precision == "bfloat16"
    assert np.isfinite(result.report.overall.rmse)


def test_patience_stops_run_without_improvement(tmp_path: Path, small_config: SmallConfig) -> None:
    config = small_config(epochs=30, patience=1, schedule={"name": "one_cycle", "max_lr": 1e-9}, ema=0)
    result = train_run(config, tmp_path / "run")
    assert result.epochs < 30
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == result.epochs


def test_train_run_reports_suspicious_labels_at_its_start_only(
    tmp_path: Path, small_config: SmallConfig
) -> None:
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("face,action,landmark,x,y\nsynthetic face 7,move,nose_tip,0,0\n")
    reporter = RecordingReporter()
    config = with_data(small_config(epochs=1), corrections=str(corrections))
    train_run(config, tmp_path / "run", reporter=reporter)
    assert reporter.notes == [
        "1 landmark at exactly (0, 0) in 1 row (synthetic face 7): leave the cell empty where a landmark is"
        " not labeled"
    ]
    resumed = RecordingReporter()
    resume_run(tmp_path / "run", reporter=resumed)
    assert resumed.notes == []
    checked = RecordingReporter()
    train_run(config, tmp_path / "checked", reporter=checked, labels_checked=True)
    assert checked.notes == []


def test_train_run_with_normalized_coordinates_fails_before_it_writes(
    tmp_path: Path, small_config: SmallConfig, dataset: LandmarkDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalized = replace(dataset, points=dataset.points / dataset.size)
    monkeypatch.setattr("landmarks_fastai.training.run.load_dataset", lambda *_, **__: normalized)
    with pytest.raises(UserError, match="the coordinates look normalized"):
        train_run(small_config(epochs=1), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_data_notes_begin_with_those_of_the_data_set(dataset: LandmarkDataset) -> None:
    points = dataset.points.copy()
    points[3, :, 0] = 95 - points[3, :, 0]
    points[5, 10] = 0
    notes = data_notes(replace(dataset, points=points))
    assert notes[0].startswith("1 landmark at exactly (0, 0) in 1 row")
    assert notes[1].startswith("1 row in which left and right look swapped: ")
    assert (
        notes[-1] == f"`data --data {dataset.source}` lists the suspicious labels, the most suspicious first"
    )
    assert data_notes(replace(dataset, points=points, notes=("read", notes[0]))) == ("read", *notes)


# --- resuming and Ctrl-C -------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [None, 10])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(
    finished_run: Path, tmp_path: Path, small_config: SmallConfig, patience: int | None
) -> None:
    class KilledError(Exception):
        pass

    def kill_after_third_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == 3:  # one epoch after the last checkpoint
            raise KilledError("killed")  # fastai needs an argument to add its own message

    folder = tmp_path / "run"
    with pytest.raises(KilledError):
        train_run(small_config(patience=patience), folder, reporter=RecordingReporter(kill_after_third_epoch))
    reporter = RecordingReporter()
    result = resume_run(folder, reporter=reporter)
    assert result.epochs == 4
    assert reporter.summaries[0].epochs_done == 2
    assert [row["epoch"] for row in reporter.epochs] == [3, 4]
    resumed, expected = (load_file(path / "model.safetensors") for path in (folder, finished_run))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    columns = ["epoch", "train_loss", "valid_loss", "rmse", "nme", "lr"]
    histories = [pd.read_csv(path / "history.csv")[columns] for path in (folder, finished_run)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    last = [
        torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (folder, finished_run)
    ]
    assert all(torch.equal(last[0]["model"][name], last[1]["model"][name]) for name in last[1]["model"])


def test_ctrl_c_after_an_epoch_leaves_usable_model(
    tmp_path: Path, dataset: LandmarkDataset, small_config: SmallConfig
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    reporter = RecordingReporter(lambda row: interrupt_process() if row["epoch"] == 2 else None)
    result = train_run(small_config(epochs=50), tmp_path / "run", reporter=reporter)
    assert result.interrupted
    assert result.epochs == 2
    predicted = Predictor.open(tmp_path / "run", "cpu").predict_batch(dataset.images)
    assert np.isfinite(predicted.points).all()
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_first_epoch_leaves_usable_model(
    tmp_path: Path, dataset: LandmarkDataset, small_config: SmallConfig
) -> None:
    reporter = RecordingReporter(on_batch=interrupt_process)
    result = train_run(small_config(), tmp_path / "run", reporter=reporter)
    assert result.interrupted
    assert result.epochs == 0
    predicted = Predictor.open(tmp_path / "run", "cpu").predict_batch(dataset.images)
    assert np.isfinite(predicted.points).all()


def test_resume_run_with_changed_data_or_missing_run_raises(
    tmp_path: Path, small_config: SmallConfig
) -> None:
    folder = tmp_path / "run"
    train_run(small_config(epochs=1), folder)
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**data, "sha256": "0"}))
    with pytest.raises(UserError, match=r"run: synthetic has changed since this run began"):
        resume_run(folder)
    with pytest.raises(UserError, match=r"nothing: no run to resume \(config\.yaml is missing\)"):
        resume_run(tmp_path / "nothing")
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match=r"run: written by landmarks-fastai 0\.1"):
        resume_run(folder)


def test_resume_run_compares_content_of_corrections(tmp_path: Path, small_config: SmallConfig) -> None:
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("face,action,note\nsynthetic face 7,drop,\n")
    folder = tmp_path / "run"
    train_run(with_data(small_config(epochs=1), corrections=str(corrections)), folder)
    assert json.loads((folder / "data.json").read_text())["rows"] == 59
    assert load_config(str(folder / "config.yaml")).data.corrections == str(corrections)
    corrections.write_text("face,action,note\nsynthetic face 7,drop,the mouth is covered\n")
    assert resume_run(folder).epochs == 1
    corrections.write_text("face,action,note\nsynthetic face 8,drop,\n")
    with pytest.raises(UserError, match=r"run: synthetic has changed since this run began"):
        resume_run(folder)


# --- invalid configs and folders -----------------------------------------------------------------


def test_existing_run_is_kept_until_new_run_is_ready(finished_run: Path, small_config: SmallConfig) -> None:
    before = (finished_run / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"run: not empty; .*--overwrite"):
        train_run(small_config(), finished_run)
    with pytest.raises(UserError, match="nowhere"):
        train_run(with_data(small_config(), source="nowhere"), finished_run, overwrite=True)
    assert (finished_run / "model.safetensors").stat().st_mtime_ns == before
    assert {path.name for path in finished_run.iterdir()} == RUN_FILES


def test_run_folder_in_use_raises(tmp_path: Path, small_config: SmallConfig) -> None:
    with FileLock(tmp_path / ".run.lock"), pytest.raises(UserError, match="in use by another run"):
        train_run(small_config(), tmp_path / "run")


def test_train_run_with_folds_but_no_fold_raises(tmp_path: Path, small_config: SmallConfig) -> None:
    with pytest.raises(UserError, match=r"^data\.folds: a single run trains one fold; set data\.fold"):
        train_run(with_data(small_config(), folds=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_architecture_raises_before_data_is_loaded(tmp_path: Path, small_config: SmallConfig) -> None:
    config = with_data(small_config(), source="nowhere")
    config = config.model_copy(update={"model": config.model.model_copy(update={"arch": "resnet19"})})
    with pytest.raises(UserError, match=r"^model\.arch: torchvision has no ResNet 'resnet19'"):
        train_run(config, tmp_path / "run")


def test_full_disk_raises_one_line_message(
    tmp_path: Path, small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", raise_disk_full)
        message = r"^[^\n]*run\.json: cannot be written \(No space left on device\)[^\n]*$"
        with pytest.raises(RunError, match=message):
            train_run(small_config(epochs=1), tmp_path / "run")
    monkeypatch.setattr(torch, "save", raise_disk_full)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(RunError, match=r"^[^\n]*best\.pt: cannot be written[^\n]*--resume$"):
        train_run(small_config(epochs=1), tmp_path / "second")
    assert not list((tmp_path / "second" / "checkpoints").glob("*"))
    assert signal.getsignal(signal.SIGINT) is handler
