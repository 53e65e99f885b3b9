"""Compiled training: backbone and head, for training only, with the same result and errors in one line."""

from __future__ import annotations

import copy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.reporter import RecordingReporter
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.training.compilation import CompileNetwork, new_compilation
from landmarks_fastai.training.preparation import prepare_run
from landmarks_fastai.training.run import train_run

SmallConfig = Callable[..., TrainConfig]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Replace torch.compile; return a list of the calls of compiled modules: class, and whether it trains."""
    made: list[tuple[str, bool]] = []

    def compile_nothing(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def compiled(inputs: Any) -> Any:
            module = function.__self__  # type: ignore[attr-defined]
            made.append((type(module).__name__, module.training))
            return function(inputs)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return made


def test_backbone_and_head_are_compiled_for_training_only(
    tmp_path: Path, small_config: SmallConfig, calls: list[tuple[str, bool]]
) -> None:
    reporter = RecordingReporter()
    train_run(small_config(epochs=2, precision="bf16"), tmp_path / "eager")
    assert not calls
    config = small_config(epochs=2, precision="bf16", compile=True)
    train_run(config, tmp_path / "compiled", reporter=reporter)
    assert set(calls) == {("ResNetStages", True), ("SoftArgmaxHead", True)}
    assert any(line.startswith("training.compile: ") for line in reporter.notes)
    eager, compiled = (load_file(tmp_path / run / "model.safetensors") for run in ("eager", "compiled"))
    assert eager.keys() == compiled.keys()
    assert all(torch.equal(eager[name], compiled[name]) for name in eager)


def test_interrupted_run_is_evaluated_without_compiled_code(
    tmp_path: Path, small_config: SmallConfig, calls: list[tuple[str, bool]]
) -> None:
    reporter = RecordingReporter(on_batch=lambda done: signal.raise_signal(signal.SIGINT))
    assert train_run(small_config(compile=True), tmp_path / "run", reporter=reporter).interrupted
    assert calls
    assert all(training for _, training in calls)


def test_copies_are_not_compiled(
    tmp_path: Path, small_config: SmallConfig, calls: list[tuple[str, bool]]
) -> None:
    learn = prepare_run(small_config(epochs=1), tmp_path).learner
    callback = CompileNetwork()
    callback.learn = learn
    callback.before_fit()
    callback.before_batch()
    inputs = torch.zeros(2, learn.header["channels"], *[learn.header["input_size"]] * 2)
    copy.deepcopy(learn.model)(inputs)
    assert not calls
    learn.model(inputs)
    assert len(calls) == 2


def test_several_processes_and_a_time_budget_are_refused(
    small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="minutes cannot be used with compile"):
        small_config(compile=True, minutes=5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"training\.compile runs in one process.*training\.compile=false"):
        new_compilation(lambda line: None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch hides it, but not from an error
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_differs_by_rounding(tmp_path: Path, small_config: SmallConfig) -> None:
    torch.compiler.reset()
    counters.clear()
    for name, compiled in (("eager", False), ("compiled", True)):
        train_run(small_config(epochs=2, compile=compiled), tmp_path / name)
    assert counters["stats"]["unique_graphs"] == 2  # each part as one graph, and nothing else
    without, with_it = (pd.read_csv(tmp_path / name / "history.csv") for name in ("eager", "compiled"))
    assert np.allclose(without["train_loss"], with_it["train_loss"], rtol=1e-2)
    assert np.allclose(without["rmse"], with_it["rmse"], rtol=2e-2)
