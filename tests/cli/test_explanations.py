"""Errors of other packages are explained in one line with a remedy, and messages are bounded."""

from __future__ import annotations

import errno
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from landmarks_fastai.cli.app import MAX_MESSAGE, run
from landmarks_fastai.cli.explanations import COMPILATION, GPU_MEMORY, MEMORY, WORKER, explain_foreign_error
from landmarks_fastai.errors import UserError


def error_of_large_array() -> BaseException:
    try:
        np.empty(1 << 62, np.uint8)
    except MemoryError as error:
        return error
    raise AssertionError


def error_of_large_tensor() -> BaseException:
    try:
        torch.empty(1 << 62, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError


class DiedInWorker(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A data set whose worker process is killed."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return 0


def error_of_killed_worker() -> BaseException:
    try:
        list(torch.utils.data.DataLoader(DiedInWorker(), num_workers=1, multiprocessing_context="fork"))
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), GPU_MEMORY),
        (lambda: RuntimeError("Exception occured in `A`:\n\tCUDA error: out of memory\nmore"), GPU_MEMORY),
        (lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), GPU_MEMORY),
        (lambda: MemoryError(), MEMORY),
        (error_of_large_array, MEMORY),
        (error_of_large_tensor, MEMORY),
        (lambda: OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
        (error_of_killed_worker, WORKER),
        (lambda: BrokenProcessPool("A process in the process pool was terminated abruptly"), WORKER),
        (lambda: TorchDynamoException("no C++ compiler"), COMPILATION),
        (lambda: RuntimeError("torch.compile is not supported on Python 3.15+"), COMPILATION),
        (lambda: OSError(errno.EACCES, "Permission denied", "a.txt"), "a.txt: Permission denied"),
        (lambda: OSError("broken"), "broken"),
        (lambda: RuntimeError("shapes do not match"), None),
        (lambda: ValueError("CUDA out of memory"), None),
    ],
)
def test_error_is_explained_with_remedy(make: object, text: str | None) -> None:
    assert callable(make)
    assert explain_foreign_error(make()) == text


def test_out_of_memory_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> list[str]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("landmarks_fastai.config.loading.config_names", fail)
    assert run(["configs"]) == 1
    assert capsys.readouterr().err == f"error: {GPU_MEMORY}\n"


def test_message_keeps_beginning_and_end_of_long_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> list[str]:
        raise UserError(f"first {'x' * 100_000}; remedy", ["row " + "y" * 100_000, "short"])

    monkeypatch.setattr("landmarks_fastai.config.loading.config_names", fail)
    assert run(["configs"]) == 2
    first, detail, short = capsys.readouterr().err.splitlines()
    assert first.startswith("error: first xxx")
    assert first.endswith("xxx; remedy")
    assert len(first) == len("error: ") + MAX_MESSAGE
    assert len(detail) == len("  ") + MAX_MESSAGE
    assert short == "  short"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--epochs", "9" * 100_000],
        ["train", "--set", "training.epochs=" + "x" * 100_000],
        ["train", "--" + "x" * 100_000],
        ["x" * 100_000],
        ["configs", "x" * 100_000],
    ],
)
def test_long_option_gives_short_message(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) in (1, 2)  # 1 where the file system refuses the name
    assert len(capsys.readouterr().err) <= MAX_MESSAGE + len("error: \n")
