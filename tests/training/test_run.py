"""Training runs: the files they write, resuming, Ctrl-C, and invalid configs and folders."""

from __future__ import annotations

import json
import os
import random
import shutil
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
from helpers.small_disk import small_disk
from safetensors.torch import load_file

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import RunError, UserError, WriteError
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.training.checkpoint import get_random_state, set_random_state
from landmarks_fastai.training.losses import MaskedLoss
from landmarks_fastai.training.preparation import data_notes
from landmarks_fastai.training.run import resume_run, train_run

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


def interrupt_process(*_: object, number: int = signal.SIGINT) -> None:
    """Send Ctrl-C, or another signal."""
    os.kill(os.getpid(), number)


def raise_disk_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


class KilledError(Exception):
    """Stands for the death of the process; fastai needs an argument to add its own message."""


def kill_after(epoch: int) -> RecordingReporter:
    """Return a reporter that ends the run after an epoch, before its checkpoint is written."""

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise KilledError("killed")

    return RecordingReporter(kill)


def assert_equal_weights(folder: Path, expected: Path) -> None:
    """Assert that the models in two run folders are equal bit for bit."""
    weights, reference = (load_file(path / "model.safetensors") for path in (folder, expected))
    assert weights.keys() == reference.keys()
    assert all(torch.equal(weights[name], reference[name]) for name in reference)


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
    schedule = {"name": "one_cycle", "max_lr": 1e-9}
    config = small_config(epochs=30, patience=2, schedule=schedule, ema=0, checkpoint_every=100)
    folder = tmp_path / "run"
    result = train_run(config, folder)
    assert result.epochs < 30
    assert len(pd.read_csv(folder / "history.csv")) == result.epochs
    assert f"for {result.epochs} of 30 epochs" in (folder / "README.md").read_text()
    state = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], state["stopping"]["wait"]) == (result.epochs, 2)
    reporter = RecordingReporter()
    assert resume_run(folder, reporter=reporter).epochs == result.epochs
    assert reporter.epochs == []
    # a run killed one epoch earlier stops after the same epoch
    killed = tmp_path / "killed"
    config = small_config(epochs=30, patience=2, schedule=schedule, ema=0, checkpoint_every=1)
    with pytest.raises(KilledError):
        train_run(config, killed, reporter=kill_after(result.epochs))
    assert resume_run(killed).epochs == result.epochs
    assert_equal_weights(killed, folder)


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
    monkeypatch.setattr("landmarks_fastai.training.preparation.load_dataset", lambda *_, **__: normalized)
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
    folder = tmp_path / "run"
    with pytest.raises(KilledError):  # one epoch after the last checkpoint
        train_run(small_config(patience=patience), folder, reporter=kill_after(3))
    reporter = RecordingReporter()
    result = resume_run(folder, reporter=reporter)
    assert result.epochs == 4
    assert reporter.summaries[0].epochs_done == 2
    assert [row["epoch"] for row in reporter.epochs] == [3, 4]
    assert_equal_weights(folder, finished_run)
    columns = ["epoch", "train_loss", "valid_loss", "rmse", "nme", "lr"]
    histories = [pd.read_csv(path / "history.csv")[columns] for path in (folder, finished_run)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    last = [
        torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (folder, finished_run)
    ]
    assert all(torch.equal(last[0]["model"][name], last[1]["model"][name]) for name in last[1]["model"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_after_an_epoch_leaves_usable_model_and_checkpoint(
    number: int, tmp_path: Path, finished_run: Path, dataset: LandmarkDataset, small_config: SmallConfig
) -> None:
    handler, folder = signal.getsignal(number), tmp_path / "run"
    reporter = RecordingReporter(lambda row: interrupt_process(number=number) if row["epoch"] == 3 else None)
    result = train_run(small_config(), folder, reporter=reporter)
    assert result.interrupted
    assert result.epochs == 3
    predicted = Predictor.open(folder, "cpu").predict_batch(dataset.images)
    assert np.isfinite(predicted.points).all()
    assert "for 3 of 4 epochs" in (folder / "README.md").read_text()
    assert signal.getsignal(number) is handler
    resumed = RecordingReporter()
    assert not resume_run(folder, reporter=resumed).interrupted
    assert [row["epoch"] for row in resumed.epochs] == [4]  # although checkpoint_every is 2
    assert_equal_weights(folder, finished_run)
    assert "for 4 epochs" in (folder / "README.md").read_text()


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


@pytest.mark.parametrize("moved", [("run.json",), ("run.json", "config.yaml")])
def test_resume_puts_back_earlier_run_that_a_killed_process_has_moved_aside(
    moved: tuple[str, ...], finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    (folder / ".replaced").mkdir()
    for name in moved:
        (folder / name).rename(folder / ".replaced" / name)
    with pytest.raises(UserError, match=r"nothing to resume; the earlier run is back in its place$"):
        resume_run(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(p.name for p in finished_run.iterdir())


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
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(UserError, match="in use by another run"):
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
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", raise_disk_full)
        message = r"^[^\n]*run\.json: cannot be written \(No space left on device\)[^\n]*$"
        with pytest.raises(RunError, match=message):
            train_run(small_config(epochs=1), tmp_path / "run")
    monkeypatch.setattr(torch, "save", raise_disk_full)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(RunError, match=r"^[^\n]*best\.pt: cannot be written[^\n]*then train again$"):
        train_run(small_config(epochs=1), tmp_path / "second")
    assert not list((tmp_path / "second" / "checkpoints").glob("*"))
    assert signal.getsignal(signal.SIGINT) is handler


# --- a run that fails after its first checkpoint, or replaces another ----------------------------


def test_full_disk_after_first_checkpoint_advises_to_resume_and_that_works(
    tmp_path: Path, finished_run: Path, small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, save = tmp_path / "run", torch.save
    states: list[object] = []

    def save_twice(content: dict[str, object], file: object) -> None:
        states.append(content)
        if len(states) > 3:  # after best.pt and last.pt of the first epoch and best.pt of the second
            raise_disk_full()
        save(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_twice)
        message = (
            rf"^{folder}/checkpoints/\w+\.pt: cannot be written \(No space left on device\); free some space"
            rf" or make the folder writable, then go on with: train --resume {folder}$"
        )
        with pytest.raises(WriteError, match=message):
            train_run(small_config(), folder)
    resume_run(folder)
    assert_equal_weights(folder, finished_run)
    assert {path.name for path in folder.iterdir()} == RUN_FILES


def test_full_disk_while_results_are_written_advises_to_resume(
    tmp_path: Path, finished_run: Path, small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("landmarks_fastai.training.results.write_text", raise_full_disk_error)
        with pytest.raises(WriteError, match=rf"README\.md: .*go on with: train --resume {folder}$"):
            train_run(small_config(), folder)
    resume_run(folder)
    assert_equal_weights(folder, finished_run)


def raise_full_disk_error(path: Path, *_: object) -> None:
    raise WriteError(path, "No space left on device", "hint")


def test_run_on_small_disk_fails_in_one_line_and_keeps_earlier_run(
    tmp_path: Path, small_config: SmallConfig
) -> None:
    with small_disk(tmp_path / "disk", 60) as disk:
        (disk / "run").mkdir()
        earlier = {"run.json": "{}", "model.onnx": "earlier"}
        for name, text in earlier.items():
            (disk / "run" / name).write_text(text)
        reporter = RecordingReporter()
        with pytest.raises(WriteError) as caught:  # best.pt fits, last.pt does not
            train_run(small_config(), disk / "run", reporter=reporter, overwrite=True)
        assert str(caught.value) == (
            f"{disk}/run/checkpoints/last.pt: cannot be written (No space left on device); free some space or"
            " make the folder writable, then train again"
        )
        assert reporter.notes == [
            f"{disk}/run: the earlier run is kept, because the new one has no checkpoint"
        ]
        assert {path.name: path.read_text() for path in (disk / "run").iterdir()} == earlier


def test_new_run_replaces_earlier_one_after_first_checkpoint(
    tmp_path: Path, finished_run: Path, small_config: SmallConfig
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    with pytest.raises(KilledError):
        train_run(small_config(), folder, reporter=kill_after(1), overwrite=True)
    assert_equal_weights(folder, finished_run)
    reporter = RecordingReporter(on_batch=interrupt_process)
    with pytest.raises(RunError, match=r"^interrupted before the first checkpoint$"):
        train_run(small_config(), folder, reporter=reporter, overwrite=True)
    assert_equal_weights(folder, finished_run)
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    with pytest.raises(KilledError):
        train_run(small_config(epochs=3), folder, reporter=kill_after(2), overwrite=True)
    assert {path.name for path in folder.iterdir()} == {
        "run.json",
        "config.yaml",
        "data.json",
        "history.csv",
        "checkpoints",
    }


# --- divergence, and other devices ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            True,
            r"^epoch 2, iteration 2 of 3: the training loss is nan, so the run has diverged; the last",
        ),
        (
            False,
            r"^epoch 2, the validation loss is nan, so the run has diverged; the last checkpoint before it",
        ),
    ],
)
def test_diverged_run_stops_and_keeps_last_good_checkpoint(
    phase: bool, message: str, tmp_path: Path, small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = MaskedLoss.__call__, []

    def diverge(self: MaskedLoss, predicted: torch.Tensor, *arguments: object) -> torch.Tensor:
        value = loss(self, predicted, *arguments)
        if predicted.requires_grad == phase:
            calls.append(value)
        return value * float("nan") if len(calls) == (5 if phase else 2) else value

    monkeypatch.setattr(MaskedLoss, "__call__", diverge)
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=message) as caught:
        train_run(small_config(), folder)
    assert "train again with a lower --lr (it was 0.0" in str(caught.value)
    assert len(calls) == (5 if phase else 2)
    for name in ("last", "best"):
        state = torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)
        weights = state["model" if name == "last" else "weights"]
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == [1]


def test_run_of_a_gpu_continues_on_cpu_with_a_note(tmp_path: Path, small_config: SmallConfig) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KilledError):
        train_run(small_config(), folder, reporter=kill_after(3))
    path = folder / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    state["random"]["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * 2
    state["place"] = "cuda:1, bfloat16"
    torch.save(state, path)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("device: cpu", "device: cuda:1"))
    reporter = RecordingReporter()
    assert resume_run(folder, reporter=reporter).epochs == 4
    assert reporter.notes == [
        "the run began on cuda:1, bfloat16 and continues on cpu, float32: its result differs slightly from"
        " that of an uninterrupted run"
    ]


def test_random_state_of_more_gpus_is_restored_for_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    restored: dict[int, torch.Tensor] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.tensor([n]) for n in range(4)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, number: restored.update({number: state}))
    state = get_random_state()
    expected = (random.random(), np.random.rand(), torch.rand(1))
    for count in (2, 8):
        restored.clear()
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        set_random_state(state)
        assert {number: int(value) for number, value in restored.items()} == {
            n: n for n in range(min(count, 4))
        }
        assert (random.random(), np.random.rand(), torch.rand(1)) == expected
