"""The command `live`: it needs a display before a model; tests/commands/test_live.py tests the preview."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from landmarks_fastai.cli import run
from landmarks_fastai.commands.live import LiveResult
from landmarks_fastai.errors import UserError


def test_live_checks_display_before_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise UserError("no display")

    monkeypatch.setattr("landmarks_fastai.commands.window.check_display", fail)
    assert run(["live", "--model", "nothing"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "error: no display\n")


def test_live_prints_frames_and_rate(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = []

    def run_live(camera: str, tracker: Callable[..., object]) -> LiveResult:
        cameras.append(camera)
        return LiveResult(1200, 24.96)

    monkeypatch.setattr("landmarks_fastai.commands.window.check_display", lambda: None)
    monkeypatch.setattr("landmarks_fastai.commands.live.run_live", run_live)
    assert run(["live", "--camera", "clip.mp4", "--model", "runs/quick", "--detector", "none"]) == 0
    assert cameras == ["clip.mp4"]
    assert capsys.readouterr().out.splitlines() == [
        "model: runs/quick/model.safetensors",
        "1,200 frames, 25.0 frames/s",
    ]
