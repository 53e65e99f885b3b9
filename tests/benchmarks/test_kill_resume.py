"""Runs that are killed at random moments and resumed end with the weights of an uninterrupted run."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
KILLS = int(os.environ.get("LANDMARKS_FASTAI_KILLS", "4"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_runs_end_like_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    trials = importlib.import_module("kill_resume").Trials.prepare(tmp_path)
    differences = [trials.kill(number)["difference"] for number in range(KILLS)]
    assert differences == [None] * KILLS
