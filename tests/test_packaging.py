"""The wheel contains every module, config and released model, and works in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from landmarks_fastai.config.loading import config_names
from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.model_files.graphs import RELEASED_GRAPHS
from landmarks_fastai.visualization.saving import save_png

ROOT = Path(__file__).resolve().parents[1]

BUILD = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"


def link(source: str, target: str) -> None:
    """Link a file, or copy it to another file system: the models are large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, and return the folder that it is unpacked to."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("landmarks_fastai", "configs", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored, copy_function=link)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        link(str(ROOT / name), str(source / name))
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(folder)]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    shutil.rmtree(source)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site-packages")
    return folder / "site-packages"


def files_in(folder: Path) -> set[str]:
    """Return the relative paths of the files in a folder, without what Python and tools leave there."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def test_wheel_contains_all_modules_configs_and_models(installed: Path) -> None:
    package = files_in(ROOT / "landmarks_fastai")
    configs = {f"configs/{name}.yaml" for name in config_names()}
    models = {f"models/{name}" for name in ("resnet18.safetensors", "resnet34.safetensors", "README.md")}
    models |= {f"models/graphs/{path.name}" for path in RELEASED_GRAPHS.iterdir()}
    assert files_in(installed / "landmarks_fastai") == package | configs | models
    others = {path.split("/")[0] for path in files_in(installed)} - {"landmarks_fastai"}
    assert len(others) == 1  # the metadata
    assert others.pop().endswith(".dist-info")


def test_wheel_contains_each_model_that_the_readme_names(installed: Path) -> None:
    named = re.findall(r"--(?:model|init-from) (resnet\w+)", (ROOT / "README.md").read_text())
    named += re.findall(r"`(\w+)\.safetensors`", (ROOT / "models" / "README.md").read_text())
    assert {"resnet18"} <= set(named)
    for name in named:
        assert (installed / "landmarks_fastai" / "models" / f"{name}.safetensors").is_file()


def run_installed(installed: Path, folder: Path, *arguments: str) -> str:
    """Run a command of the installed package in a folder, and return its output."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "LANDMARKS_FASTAI_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "landmarks_fastai", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installed_package_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    # a common name, which another package may have put next to this one
    for name in ("models", "configs"):
        (installed / name).mkdir()
    photo, _ = draw_synthetic_photo(12, (160, 120))
    save_png(tmp_path / "photo.png", photo)
    assert "release-resnet34" in run_installed(installed, tmp_path, "configs")
    output = run_installed(installed, tmp_path, "predict", "photo.png", "--device", "cpu")
    assert str(installed / "landmarks_fastai" / "models" / "resnet18.safetensors") in output
    assert (tmp_path / "predictions" / "landmarks.json").is_file()
    exported = ("export", "resnet34", "--precision", "fp16", "--out", "small.safetensors")
    assert "small.safetensors: " in run_installed(installed, tmp_path, *exported)
