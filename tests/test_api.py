"""The public Python API: lazy imports, complete `__all__`, and the example of the docstring."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

import landmarks_fastai as lm

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("numpy", "torch", "torchvision", "fastai", "pandas", "matplotlib", "PIL", "pydantic", "yaml", "av")
NAMES = {
    "load_dataset",
    "DataConfig",
    "TrainConfig",
    "load_config",
    "train",
    "evaluate",
    "AnalysisOptions",
    "compare",
    "Predictor",
    "open_detector",
    "Tracker",
    "Crop",
    "Landmarks",
    "LandmarkSchema",
    "LandmarkDataset",
    "read_image",
    "draw_landmarks",
    "read_video",
    "write_video",
    "VideoFrame",
    "__version__",
}


def run_python(code: str) -> str:
    """Return what a new interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_import_of_package_imports_no_heavy_package() -> None:
    code = f"import sys, landmarks_fastai; print([name for name in {HEAVY} if name in sys.modules])"
    assert run_python(code) == "[]\n"


def test_import_of_landmark_types_imports_numpy_and_pillow_only() -> None:
    code = (
        "import sys; from landmarks_fastai import LandmarkSchema, Landmarks;"
        f" print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert run_python(code) == "['numpy', 'PIL']\n"


def test_all_lists_public_names() -> None:
    assert set(lm.__all__) == NAMES
    assert len(lm.__all__) == len(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_name_is_object_of_that_name(name: str) -> None:
    value: Any = getattr(lm, name)
    assert not isinstance(value, ModuleType)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__module__.startswith("landmarks_fastai.")
        assert value.__doc__


def test_dir_lists_public_names_before_they_are_imported() -> None:
    code = (
        "import sys, landmarks_fastai as lm; print(set(lm.__all__) <= set(dir(lm)), 'numpy' in sys.modules)"
    )
    assert run_python(code) == "True False\n"


def test_unknown_name_raises() -> None:
    name = "predict"
    with pytest.raises(AttributeError, match=r"^module 'landmarks_fastai' has no attribute 'predict'$"):
        getattr(lm, name)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from landmarks_fastai import nothing")


def test_docstring_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lm.__doc__ is not None
    code = dedent("\n".join(re.findall(r"^(?: {4}.*)?$", lm.__doc__, re.MULTILINE)))
    shutil.copy(ROOT / "docs" / "astronaut.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    rmse, nme, shape = capsys.readouterr().out.splitlines()
    assert rmse.endswith(" px")
    assert 0 < float(nme) < 1
    assert shape.endswith(f"({len(namespace['landmarks'])}, 15, 2)")
    assert len(namespace["landmarks"]) >= 1
    assert namespace["drawing"].shape == namespace["image"].shape
