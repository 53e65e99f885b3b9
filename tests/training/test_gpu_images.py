"""Images that are kept on the device of the network: the same batches, and not part of exported learners."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.training import gpu_images
from landmarks_fastai.training.gpu_images import keep_images_on_gpu
from landmarks_fastai.training.precision import choose_kernels
from landmarks_fastai.training.preparation import prepare_run
from landmarks_fastai.training.transforms import LoadImage

SmallConfig = Callable[..., TrainConfig]


class FakeLoaders:
    """Loaders of a run as if they were on a GPU."""

    device = "cuda:0"

    def __init__(self, loaders: list[object]) -> None:
        self.loaders = loaders


@pytest.mark.parametrize(
    ("free", "workers", "expected"), [(10**9, 0, True), (10_000, 0, False), (10**9, 2, False)]
)
def test_images_are_kept_on_a_gpu_where_they_fit(
    tmp_path: Path,
    small_config: SmallConfig,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    workers: int,
    expected: bool,
) -> None:
    dls = prepare_run(small_config(), tmp_path).learner.dls
    (step,) = {step for step in gpu_images._image_steps(dls)}
    rows = np.array([5, 2, 5])
    before = step.take(rows)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**10))
    copy_to = LoadImage.keep_on
    monkeypatch.setattr(LoadImage, "keep_on", lambda self, device: copy_to(self, torch.device("cpu")))
    assert not keep_images_on_gpu(dls, workers)  # on a CPU
    assert keep_images_on_gpu(FakeLoaders(dls.loaders), workers) == expected  # type: ignore[arg-type]
    assert (step.on_device is not None) == expected
    assert torch.equal(step.take(rows), before)
    assert pickle.loads(pickle.dumps(step)).on_device is None


@pytest.fixture
def _restored_backends() -> Iterator[None]:
    """Restore the settings of torch, which monkeypatch cannot."""
    cudnn, tf32 = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32 = cudnn, tf32


@pytest.mark.usefixtures("_restored_backends")
def test_kernels_of_a_gpu_follow_the_config() -> None:
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = False
    choose_kernels("auto", torch.device("cpu"), False)
    assert not torch.backends.cudnn.benchmark
    choose_kernels("auto", torch.device("cuda:0"), False)
    assert torch.backends.cudnn.benchmark
    assert torch.backends.cuda.matmul.allow_tf32
    choose_kernels("fp32", torch.device("cuda:0"), True)
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cuda.matmul.allow_tf32
