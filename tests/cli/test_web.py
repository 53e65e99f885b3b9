"""The command `web`: which models it serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from landmarks_fastai.cli import run
from landmarks_fastai.cli.models import SYNTHETIC_WARNING

Served = list[tuple[list[Path], str, int, bool]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """Record the arguments of the server instead of starting it."""
    calls: Served = []

    def serve(models: Sequence[Path], *, detector: str, port: int, open_browser: bool) -> None:
        calls.append((list(models), detector, port, open_browser))

    monkeypatch.setattr("landmarks_fastai.web.app.serve", serve)
    return calls


def test_web_serves_default_model_first(
    workspace: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["web", "--no-browser"]) == 0
    ((models, detector, port, open_browser),) = served
    assert [model.parent.name for model in models] == ["models", "quick", "models"]
    assert models[0].name == "resnet18.safetensors"
    assert (detector, port, open_browser) == ("auto", 7860, False)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"model: {models[0]} (the released model, because ")
    assert printed.err == ""


def test_web_with_synthetic_model_prints_warning(
    workspace: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["web", "--model", "runs/quick", "--port", "8000", "--detector", "dlib"]) == 0
    assert served == [([Path("runs/quick/model.safetensors")], "dlib", 8000, True)]
    printed = capsys.readouterr()
    assert printed.out == "model: runs/quick/model.safetensors\n"
    assert printed.err == f"{SYNTHETIC_WARNING}\n"


def test_web_refuses_invalid_port(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["web", "--port", "0"]) == 2
    assert "--port" in capsys.readouterr().err
    assert not served
