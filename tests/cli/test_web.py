"""The command `web`: which models it serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from landmarks_fastai.cli import run
from landmarks_fastai.web.limits import Limits

Served = list[tuple[list[Path], str, str, int, bool]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """Record the arguments of the server instead of starting it."""
    calls: Served = []

    def serve(
        models: Sequence[Path], *, detector: str, limits: Limits, host: str, port: int, open_browser: bool
    ) -> None:
        calls.append((list(models), detector, host, port, open_browser))

    monkeypatch.setattr("landmarks_fastai.web.app.serve", serve)
    return calls


def test_web_serves_default_model_first(
    workspace: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["web", "--no-browser"]) == 0
    ((models, detector, host, port, open_browser),) = served
    assert [model.parent.name for model in models] == ["models", "quick", "models"]
    assert models[0].name == "resnet18.safetensors"
    assert (detector, host, port, open_browser) == ("auto", "127.0.0.1", 7860, False)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"model: {models[0]} (the released model, because ")
    assert printed.err == ""


def test_web_serves_given_model_host_and_port(
    workspace: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "runs/quick", "--host", "0.0.0.0", "--port", "8000", "--detector", "dlib"]
    assert run(["web", *options]) == 0
    assert served == [([Path("runs/quick/model.safetensors")], "dlib", "0.0.0.0", 8000, True)]
    assert capsys.readouterr().out == "model: runs/quick/model.safetensors\n"


def test_web_refuses_invalid_port(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["web", "--port", "0"]) == 2
    assert "--port" in capsys.readouterr().err
    assert not served
