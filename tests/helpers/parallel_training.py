"""Training runs in several processes: ``python -m helpers.parallel_training FOLDER`` in each of them.

The environment variables that torchrun sets name the process, see `start_processes`. Each process writes what
it has seen to FOLDER/process-RANK.json. The same processes train all runs, because starting them takes long.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.training import preparation, results
from landmarks_fastai.training.callbacks import find_callback
from landmarks_fastai.training.ema import ExponentialMovingAverage
from landmarks_fastai.training.label_bias import EstimateLabelBias
from landmarks_fastai.training.parallel import TrainInParallel
from landmarks_fastai.training.reporting import SilentReporter
from landmarks_fastai.training.run import TrainResult, resume_run, train_run

ROOT = Path(__file__).resolve().parents[2]
STOP_AFTER = 4
"""Number of iterations after which a run is interrupted: the first iteration of its second epoch."""


def small_config(augment: str = "standard", epochs: int = 2, multiplier: int = 1) -> TrainConfig:
    """Return the config of a run of 3 iterations per epoch, times the multiplier."""
    training = {
        "epochs": epochs,
        "batch_size": 16,
        "device": "cpu",
        "precision": "fp32",
        "ema": 0.9,
        "schedule": {"name": "one_cycle", "max_lr": 0.001},
    }
    return validate_config(
        {
            "seed": 3,
            "model": {"input_size": 32, "head": "soft-argmax"},
            "data": {"source": "synthetic", "count": 60, "multiplier": multiplier},
            "augment": augment,
            "training": training,
        },
        "test",
    )


def comparable_config() -> TrainConfig:
    """Return the config of a run that has the same batches in any number of processes.

    It has no augmentation, which differs by process, and a single epoch: the number of random numbers that a
    process has drawn for its rows determines the order of the next epoch.
    """
    return small_config("none", epochs=1, multiplier=3)


@contextmanager
def comparable() -> Iterator[None]:
    """Within the block, make runs independent of how the rows of a batch are divided.

    Batch normalization does not use the statistics of a batch, which are those of a process. Every second row
    has few labels, so that the processes have different numbers of them, and there are several batches for
    validation.
    """

    def with_running_statistics(layer: Any, inputs: Tensor) -> Tensor:
        mean, variance = layer.running_mean, layer.running_var
        return nn.functional.batch_norm(inputs, mean, variance, layer.weight, layer.bias, False, 0, layer.eps)

    load, build = preparation.load_dataset, preparation.build_learner

    def load_partly_labeled(*arguments: Any, **options: Any) -> Any:
        dataset = load(*arguments, **options)
        points = dataset.points.copy()
        points[::2, 3:] = np.nan
        return replace(dataset, points=points)

    def build_with_small_batches(*arguments: Any) -> Any:
        learn = build(*arguments)
        learn.dls.valid.bs = 5
        return learn

    with ExitStack() as stack:
        stack.enter_context(patch.object(nn.BatchNorm2d, "forward", with_running_statistics))
        stack.enter_context(patch.object(preparation, "load_dataset", load_partly_labeled))
        stack.enter_context(patch.object(preparation, "build_learner", build_with_small_batches))
        yield


@contextmanager
def without_pictures_and_models() -> Iterator[None]:
    """Within the block, runs write neither plots nor models, to save time."""
    with ExitStack() as stack:
        for name in ("plot_history", "evaluation_sheet", "save_png", "write_models"):
            stack.enter_context(patch.object(results, name))
        yield


@contextmanager
def after_iterations(count: int, act: Callable[[], None]) -> Iterator[None]:
    """Within the block, do something in the second process after the given number of iterations."""

    def batch(self: SilentReporter, done: int, total: int, loss: float, lr: float) -> None:
        if done == count:
            act()

    if os.environ["RANK"] != "1":
        yield
        return
    with patch.object(SilentReporter, "batch", batch):
        yield


@contextmanager
def observed(seen: dict[str, Any]) -> Iterator[None]:
    """Within the block, note the state of this process at the end of a fit."""
    after_fit = TrainInParallel.after_fit

    def note_state(self: TrainInParallel) -> None:
        average = find_callback(self.learn, ExponentialMovingAverage)
        bias = find_callback(self.learn, EstimateLabelBias)
        assert average is not None
        assert average.average is not None
        seen["model"] = digest(self.model.state_dict())
        seen["average"] = digest(average.average)
        seen["label_bias"] = None if bias is None else float(bias.augment.label_bias)
        seen["random"] = digest({"torch": torch.get_rng_state()})
        after_fit(self)

    with patch.object(TrainInParallel, "after_fit", note_state):
        yield


def digest(tensors: dict[str, Tensor]) -> str:
    """Return a hash of tensors."""
    content = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors.values())
    return hashlib.sha256(content).hexdigest()


def observe(run: Callable[[], TrainResult]) -> dict[str, Any]:
    """Train, and return what this process has seen, or its error."""
    seen: dict[str, Any] = {}
    try:
        with observed(seen):
            result = run()
    except LandmarksError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {
        **seen,
        "folder": str(result.folder),
        "epochs": result.epochs,
        "interrupted": result.interrupted,
        "rmse": result.report.overall.rmse,
    }


def interrupt() -> None:
    """Press Ctrl-C in this process."""
    os.kill(os.getpid(), signal.SIGINT)


def kill() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path) -> None:
    """Train several runs, and write what this process has seen; the last run ends the second process."""
    rank = os.environ["RANK"]
    seen: dict[str, Any] = {}

    def own_folder(name: str) -> Path:
        """Return another folder in each process, because only that of the first one may be used."""
        return folder / (name if rank == "0" else f"{name}-of-{rank}")

    with without_pictures_and_models():
        with comparable():
            seen["comparable"] = observe(lambda: train_run(comparable_config(), own_folder("comparable")))
        seen["whole"] = observe(lambda: train_run(small_config(), own_folder("whole")))
        seen["in use"] = observe(lambda: train_run(small_config(), own_folder("whole")))
        with after_iterations(STOP_AFTER, interrupt):
            seen["interrupted"] = observe(lambda: train_run(small_config(), own_folder("interrupted")))
        seen["resumed"] = observe(lambda: resume_run(own_folder("interrupted")))
        (folder / f"process-{rank}.json").write_text(json.dumps(seen))
        with after_iterations(STOP_AFTER, kill):
            seen["killed"] = observe(lambda: train_run(small_config(), own_folder("killed")))
    (folder / f"process-{rank}.json").write_text(json.dumps(seen))


def start_processes(
    arguments: list[str], environment: dict[str, str], count: int = 2
) -> list[subprocess.Popen[str]]:
    """Start Python in several processes with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        **os.environ,
        **environment,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(count),
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
