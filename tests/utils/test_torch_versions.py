"""A torchvision that does not fit the installed torch gives one line with the remedy."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from landmarks_fastai.errors import RunError
from landmarks_fastai.utils.torch_versions import import_torchvision

ROOT = Path(__file__).resolve().parents[2]

FAILURES = [
    RuntimeError("operator torchvision::nms does not exist"),
    OSError("/site-packages/torchvision/_C.so: undefined symbol: _ZN3c104impl8GPUTrace13gpuTraceStateE"),
    ModuleNotFoundError("No module named 'torchvision'"),
    AttributeError("partially initialized module 'torchvision' has no attribute 'extension'"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_import_torchvision_that_fails_names_versions_and_remedy(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(name: str) -> None:
        raise failure

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RunError, match=r"torch \S+ and torchvision \S+ do not work together") as caught:
        import_torchvision()
    assert "pip install --force-reinstall torch torchvision" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_import_torchvision_returns_the_module() -> None:
    assert import_torchvision().__name__ == "torchvision"


@pytest.mark.parametrize(
    "command",
    [
        "predict photo.png --model resnet18 --backend torch",
        "train --config quick --data synthetic",
        "evaluate resnet18 --data synthetic --backend torch",
        "export resnet18 --out model.onnx",
    ],
)
def test_command_with_unfit_torchvision_prints_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")\n'
    )
    (tmp_path / "photo.png").write_bytes((ROOT / "docs" / "astronaut.jpg").read_bytes())
    code = "import sys; from landmarks_fastai.cli.app import run; sys.exit(run(sys.argv[1].split()))"
    done = subprocess.run(
        [sys.executable, "-c", code, command],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": f"{tmp_path}:{ROOT}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: torch ")
    assert "pip install --force-reinstall torch torchvision" in done.stderr
    assert done.stderr.count("\n") == 1
