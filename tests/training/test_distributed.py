"""Training in several processes: they agree, end together, and give the result of a single process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.parallel_training import (
    ROOT,
    comparable,
    comparable_config,
    small_config,
    start_processes,
    without_pictures_and_models,
)
from helpers.reporter import RecordingReporter
from torch import Tensor, nn

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.errors import UserError
from landmarks_fastai.training import distributed
from landmarks_fastai.training.checkpoint import read_tensors
from landmarks_fastai.training.cross_validation import cross_validate, resume_cross_validation
from landmarks_fastai.training.dataloaders import build_dataloaders, pixel_statistics
from landmarks_fastai.training.distributed import Processes, join_processes, local_device
from landmarks_fastai.training.lr_finder import find_lr
from landmarks_fastai.training.parallel import prepare_parallel, restore_modules, synchronize_batch_norm
from landmarks_fastai.training.preparation import check_same_data, prepare_run
from landmarks_fastai.training.run import resume_run, train_run

Seen = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the runs that two processes have trained, see `helpers.parallel_training`."""
    folder = tmp_path_factory.mktemp("parallel")
    cache = str(tmp_path_factory.getbasetemp() / "cache")
    processes = start_processes(
        ["-m", "helpers.parallel_training", str(folder)], {"LANDMARKS_FASTAI_CACHE": cache}
    )
    outputs = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL], outputs
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> Seen:
    """Return what each process has seen."""
    return [json.loads((folder / f"process-{rank}.json").read_text()) for rank in range(2)]


def last_state(run: Path) -> dict[str, Any]:
    """Return the last checkpoint of a run."""
    return read_tensors(run / "checkpoints" / "last.pt")


def read_history(run: Path) -> pd.DataFrame:
    """Return the rows of history.csv, without the time."""
    return pd.read_csv(run / "history.csv").drop(columns="seconds")


# --- the result ----------------------------------------------------------------------------------


def test_two_processes_match_one_with_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    with comparable(), without_pictures_and_models():
        train_run(comparable_config(), tmp_path / "single")
        initial = prepare_run(comparable_config(), tmp_path).learner.model.state_dict()
    # sums are rounded in another order: 1e-7 of a gradient, which Adam enlarges where gradients are near 0
    pd.testing.assert_frame_equal(
        read_history(folder / "comparable"), read_history(tmp_path / "single"), rtol=1e-5
    )
    observed, expected = last_state(folder / "comparable"), last_state(tmp_path / "single")
    for key in ("model", "ema"):
        difference, update = (
            sum(float((state[key][name] - other[name]).abs().double().sum()) for name in initial)
            for state, other in ((observed, expected[key]), (expected, initial))
        )
        assert difference < 1e-3 * update
    scores, reference = (
        json.loads((run / "metrics.json").read_text())["overall"]
        for run in (folder / "comparable", tmp_path / "single")
    )
    assert scores["rmse"] == pytest.approx(reference["rmse"], rel=1e-5)


@pytest.mark.parametrize("run", ["comparable", "whole", "resumed"])
def test_processes_agree_on_weights_and_scores(seen: Seen, run: str) -> None:
    first, second = (dict(process[run]) for process in seen)
    assert first.pop("random") != second.pop("random")  # the augmentation differs
    assert first == second
    assert first["epochs"] == (1 if run == "comparable" else 2)


def test_label_bias_is_estimated(seen: Seen) -> None:
    assert abs(seen[0]["whole"]["label_bias"]) > 1e-5


def test_only_the_first_process_writes(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"process-0.json", "process-1.json", "comparable", "whole", "interrupted", "killed"}
    history = read_history(folder / "whole")
    assert history["epoch"].tolist() == [1, 2]
    scores = json.loads((folder / "whole" / "metrics.json").read_text())["overall"]
    assert scores["rmse"] == pytest.approx(history["rmse"].iloc[history["valid_loss"].argmin()], abs=1e-3)


# --- the end -------------------------------------------------------------------------------------


def test_interrupt_of_one_process_ends_all_at_the_same_iteration(seen: Seen) -> None:
    for process in seen:
        assert (process["interrupted"]["interrupted"], process["interrupted"]["epochs"]) == (True, 1)
    assert seen[0]["interrupted"]["rmse"] == seen[1]["interrupted"]["rmse"]


def test_resumed_run_equals_uninterrupted_one_bit_for_bit(folder: Path, seen: Seen) -> None:
    for process in seen:
        assert {**process["resumed"], "folder": ""} == {**process["whole"], "folder": ""}
    pd.testing.assert_frame_equal(
        read_history(folder / "interrupted"), read_history(folder / "whole"), check_exact=True
    )


def test_error_of_the_first_process_ends_the_other_silently(seen: Seen) -> None:
    first, second = (process["in use"] for process in seen)
    assert first["error"] == "UserError"
    assert "not empty" in first["message"]
    assert second["error"] == "OtherProcessFailedError"


def test_killed_process_ends_the_run_with_a_message(seen: Seen, folder: Path) -> None:
    assert seen[0]["killed"] == {
        "error": "RunError",
        "message": "another process of this run has ended or cannot be reached any more; go on with: train"
        f" --resume {folder / 'killed'}",
    }


def test_single_process_resumes_run_of_two(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "killed", tmp_path / "run")
    reporter = RecordingReporter()
    with without_pictures_and_models():
        assert resume_run(tmp_path / "run", reporter=reporter).epochs == 2
    assert reporter.notes == [
        "the run began on cpu, float32, 2 processes and continues on cpu, float32: its result differs"
        " slightly from that of an uninterrupted run"
    ]
    assert read_history(tmp_path / "run").iloc[0].equals(read_history(folder / "whole").iloc[0])


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "cli.py")]


def torchrun(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start `cli.py train` in two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, "train", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reported_errors(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error:")]


QUICK = ["--config", "quick", "--data", "synthetic", "--set", "data.count=60", "--set", "model.input_size=32"]


@pytest.mark.slow
def test_torchrun_prints_once_and_writes_one_run(tmp_path: Path) -> None:
    process = torchrun(tmp_path, *QUICK, "--epochs", "1", "--batch-size", "16", "--device", "cpu")
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert printed.count("processes  2, which share the 16 rows of a batch (8 each)") == 1
    assert printed.count("epoch   1") == printed.count("next:") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["quick"]


@pytest.mark.slow
def test_torchrun_refuses_cross_validation_in_one_line(tmp_path: Path) -> None:
    process = torchrun(tmp_path, *QUICK, "--folds", "3")
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    (line,) = reported_errors(errors)
    assert "a cross-validation runs in one process" in line


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["first", "second"])
def test_torchrun_ends_after_the_death_of_a_process(tmp_path: Path, victim: str) -> None:
    process = torchrun(tmp_path, *QUICK, "--epochs", "500", "--device", "cpu")
    history = tmp_path / "runs" / "quick" / "history.csv"
    deadline = time.monotonic() + 300
    while not history.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = sorted(int(pid) for pid in children_of(process.pid))
    os.kill(children[0 if victim == "first" else 1], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    (line,) = reported_errors(errors)
    assert "another process of this run has ended or cannot be reached any more" in line


def children_of(pid: int) -> list[str]:
    """Return the child processes of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.is_file():
        pytest.skip("this system does not tell the children of a process")
    return children.read_text().split()


# --- the parts -----------------------------------------------------------------------------------


def make_batches(dataset: LandmarkDataset, processes: Processes) -> list[list[Tensor]]:
    """Return the images of the training and the validation batches of one of several processes."""
    split = Split(np.arange(48), np.arange(48, 60), np.arange(60), "random", 0)
    config = comparable_config()
    statistics = pixel_statistics(dataset.images, 1)
    dls = build_dataloaders(dataset, split, config, statistics, path=Path("."), device=torch.device("cpu"))
    dls.valid.bs = 5
    torch.manual_seed(4)
    with patch.object(Processes, "broadcast", lambda self, tensor: tensor):
        for loader in dls.loaders:
            loader.processes = processes
        return [[images.as_subclass(Tensor) for images, _ in loader] for loader in dls.loaders]


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_batches_of_one(dataset: LandmarkDataset, count: int) -> None:
    training, validation = make_batches(dataset, Processes())
    parts = [make_batches(dataset, Processes(rank, count)) for rank in range(count)]
    for number, batch in enumerate(training):
        shares = [part[0][number] for part in parts]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert torch.equal(torch.cat(shares), batch)
    for number, batch in enumerate(validation):
        assert torch.equal(parts[number % count][1][number // count], batch)
    assert sum(len(part[1]) for part in parts) == len(validation) == 3


def test_synchronized_batch_norm_shares_tensors_and_is_undone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.BatchNorm2d(4))
    layers = dict(model.named_modules())
    replaced = synchronize_batch_norm(model)
    assert list(replaced) == ["1.0", "2"]
    synchronized = model[1][0]
    assert isinstance(synchronized, nn.SyncBatchNorm)
    assert synchronized.weight is layers["1.0"].weight
    assert synchronized.running_mean is layers["1.0"].running_mean
    model.eval()
    restore_modules(model, replaced)
    assert dict(model.named_modules()) == layers
    assert not model[2].training


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment variables of the second of two processes."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    distributed._find_store.cache_clear()


def test_each_process_uses_a_gpu_of_its_own(second_of_two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_device("cpu") == "cpu"
    monkeypatch.setattr(
        distributed, "resolve_device", lambda device: "cuda:0" if device == "auto" else device
    )
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    for gpus, device, expected in ((2, "auto", "cuda:1"), (4, "auto", "cuda:1")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert local_device(device) == expected
    for device in ("cuda:0", "mps"):
        with pytest.raises(UserError, match=f"--device {device}: not possible with several processes"):
            local_device(device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"has 1 GPU, but more processes .* use --nproc-per-node 1"):
        local_device("auto")


def test_tasks_of_one_process_are_refused(second_of_two: None, tmp_path: Path) -> None:
    config = comparable_config()
    folds = config.model_copy(update={"data": config.data.model_copy(update={"folds": 3})})
    for task in (
        lambda: cross_validate(folds, tmp_path / "folds"),
        lambda: resume_cross_validation(tmp_path / "folds"),
        lambda: find_lr(config, tmp_path / "lr"),
    ):
        with pytest.raises(UserError, match="runs in one process; start it without torchrun"):
            task()
    assert not list(tmp_path.iterdir())


def test_missing_variables_are_reported(second_of_two: None) -> None:
    with (
        pytest.raises(UserError, match=r"WORLD_SIZE=2 is set in the environment.*MASTER_ADDR"),
        join_processes(),
    ):
        pass


def test_too_small_batch_is_refused(tmp_path: Path) -> None:
    learner = prepare_run(small_config(), tmp_path).learner
    prepare_parallel(learner, Processes(0, 8), seed=0)
    with pytest.raises(UserError, match="16 rows per iteration are not enough for 9 processes"):
        prepare_parallel(learner, Processes(0, 9), seed=0)


def test_different_data_is_refused(dataset: LandmarkDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(np.arange(48), np.arange(48, 60), np.arange(60), "random", 0)
    gathered: list[str] = []

    def gather(self: Processes, value: str) -> list[str]:
        gathered.append(value)
        return gathered

    monkeypatch.setattr(Processes, "gather", gather)
    check_same_data(Processes(0, 3), dataset, split)
    check_same_data(Processes(1, 3), dataset, split)
    with pytest.raises(UserError, match="process 3 has read other data than process 1"):
        check_same_data(Processes(2, 3), replace(dataset, digest="of another file"), split)
