"""Worker processes deliver the batches of the training process, whichever way they are started."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import _FakeLoader
from safetensors.torch import load_file
from torch import Tensor

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import DataConfig, TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import Split
from landmarks_fastai.training import dataloaders
from landmarks_fastai.training.dataloaders import build_dataloaders, pixel_statistics, worker_notes
from landmarks_fastai.training.reporting import SilentReporter
from landmarks_fastai.training.run import resume_run, train_run
from landmarks_fastai.training.shared_images import SharedImages
from landmarks_fastai.training.transforms import LoadImage, LoadPoints
from landmarks_fastai.utils.interrupt import STOP_SIGNALS

SLOW_METHODS = [
    pytest.param(method, marks=pytest.mark.slow)  # each process imports fastai
    for method in ("spawn", "forkserver")
    if method in multiprocessing.get_all_start_methods()
]
FORK = ["fork"] if "fork" in multiprocessing.get_all_start_methods() else []


@pytest.fixture
def cached() -> LandmarkDataset:
    """Return 60 synthetic faces, memory-mapped from the cache, with occluded landmarks."""
    return load_dataset(DataConfig(source="synthetic", count=60, occlusion=0.5))


def in_memory(dataset: LandmarkDataset) -> LandmarkDataset:
    """Return a data set whose images are in memory, as if the cache were not writable."""
    return replace(dataset, images=ImageArray(np.array(dataset.images)))


def make_dataloaders(dataset: LandmarkDataset, workers: int) -> DataLoaders:
    """Build the loaders of 48 training and 12 validation rows."""
    config = validate_config(
        {"model": {"input_size": 32}, "training": {"batch_size": 8, "workers": workers}}, "test"
    )
    split = Split(np.arange(48), np.arange(48, 60), np.arange(60), "random", 0)
    statistics = pixel_statistics(dataset.images, 1)
    return build_dataloaders(dataset, split, config, statistics, path=Path("."), device=torch.device("cpu"))


def batches(dls: DataLoaders) -> list[Tensor]:
    """Return the images and the points of an epoch of training, and of validation."""
    torch.manual_seed(7)
    return [part.as_subclass(Tensor) for loader in dls.loaders for batch in loader for part in batch]


@pytest.mark.parametrize("images", ["memory-mapped", "in memory"])
@pytest.mark.parametrize("method", [*FORK, *SLOW_METHODS])
def test_batches_of_workers_equal_those_of_the_training_process(
    cached: LandmarkDataset, method: str, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = cached if images == "memory-mapped" else in_memory(cached)
    expected = batches(make_dataloaders(dataset, workers=0))
    monkeypatch.setattr(_FakeLoader, "multiprocessing_context", multiprocessing.get_context(method))
    observed = batches(make_dataloaders(dataset, workers=2))
    assert len(observed) == 2 * (6 + 1)
    for one, other in zip(observed, expected, strict=True):
        assert torch.equal(one.nan_to_num(-9), other.nan_to_num(-9))


@pytest.mark.slow
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_training_with_workers_gives_the_same_weights(
    method: str,
    finished_run: Path,
    small_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_FakeLoader, "multiprocessing_context", multiprocessing.get_context(method))
    train_run(small_config(workers=1), tmp_path / "run")
    before, after = (load_file(folder / "model.safetensors") for folder in (finished_run, tmp_path / "run"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


class ProcessAboutToStart:
    """Stands in for the process that an object is pickled for; it inherits files by the same numbers."""

    def duplicate_for_child(self, descriptor: int) -> int:
        return descriptor

    def DupFd(self, descriptor: int) -> int:  # noqa: N802 - name given by multiprocessing
        return descriptor


def pickle_for_process(value: object) -> bytes:
    """Pickle an object like the start methods spawn and forkserver."""
    stream = io.BytesIO()
    context.set_spawning_popen(ProcessAboutToStart())
    try:
        ForkingPickler(stream).dump(value)
    finally:
        context.set_spawning_popen(None)
    return stream.getvalue()


@pytest.mark.parametrize("images", ["memory-mapped", "in memory"])
def test_loader_pickled_for_a_process_contains_no_image(cached: LandmarkDataset, images: str) -> None:
    dataset = cached if images == "memory-mapped" else in_memory(cached)
    content = pickle_for_process(make_dataloaders(dataset, workers=2).train)
    assert len(content) < 100_000 < np.array(dataset.images).nbytes


def test_images_in_memory_are_moved_to_shared_memory_once(cached: LandmarkDataset) -> None:
    shared = SharedImages(in_memory(cached).images.select(np.arange(5, 30)))
    first, second = shared.__getstate__(), shared.__getstate__()
    assert first is second
    assert first.is_shared()
    np.testing.assert_array_equal(first.numpy(), cached.images[5:30])


def test_export_leaves_out_images_and_labels(cached: LandmarkDataset) -> None:
    for transform in (LoadImage(cached, 1), LoadPoints(cached, visibility=True)):
        assert len(transform.take(np.array([3, 4]))) == 2
        exported = pickle.loads(pickle.dumps(transform))
        assert exported.rows is None
        assert len(pickle.dumps(transform)) < 5_000


@pytest.fixture
def forked_epoch(cached: LandmarkDataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iterator[Any]]:
    """Return the batches of an epoch of 48 rows, loaded by two forked workers; end what is left of them."""
    if not FORK:
        pytest.skip("the start method fork does not exist here")
    monkeypatch.setattr(_FakeLoader, "multiprocessing_context", multiprocessing.get_context("fork"))
    yield iter(make_dataloaders(cached, workers=2).train)
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


OTHER_PROCESS = "import os, sys; [os.kill(int(pid), int(sys.argv[1])) for pid in sys.argv[2:]]"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_workers_survive_signals_that_a_scheduler_sends(
    forked_epoch: Iterator[Any], number: signal.Signals
) -> None:
    rows = len(next(forked_epoch)[0])
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    pids = [str(worker.pid) for worker in workers]
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(int(number)), *pids], check=True)
    assert rows + sum(len(images) for images, _ in forked_epoch) == 48


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_during_the_start_of_workers_do_not_end_them(
    forked_epoch: Iterator[Any], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    obey = dataloaders.obey_only_parent

    def signal_then_obey() -> None:
        # by a child of the worker, because a signal of the training process ends it
        subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(int(number)), str(os.getpid())], check=True)
        obey()

    monkeypatch.setattr(dataloaders, "obey_only_parent", signal_then_obey)
    assert sum(len(images) for images, _ in forked_epoch) == 48


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the sender of a signal")
def test_workers_end_when_the_training_process_ends_them(forked_epoch: Iterator[Any]) -> None:
    next(forked_epoch)
    for worker in multiprocessing.active_children():
        worker.terminate()  # what Python does at the exit of the training process, before it waits for them
        worker.join(30)
        assert worker.exitcode == 0


def test_workers_that_fastai_does_not_use_on_macos_are_noted(
    cached: LandmarkDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker_notes(2) == ()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert worker_notes(0) == ()
    assert worker_notes(2) == (
        "training.workers: 2 is not used, because fastai has no worker processes on macOS",
    )
    assert [loader.fake_l.num_workers for loader in make_dataloaders(cached, workers=2).loaders] == [0, 0]


def test_run_reports_workers_that_are_not_used(
    small_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    reporter = Mock(wraps=SilentReporter())
    train_run(small_config(workers=2, epochs=1), tmp_path / "run", reporter=reporter)
    resume_run(tmp_path / "run", reporter=reporter)
    notes = [call.args[0] for call in reporter.note.call_args_list]
    assert notes.count(worker_notes(2)[0]) == 2
