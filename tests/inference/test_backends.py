"""Which runtime runs a model file, and whether there may be a GPU, decided without importing torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.inference import backends
from landmarks_fastai.inference.backends import choose_runtime
from landmarks_fastai.utils import devices
from landmarks_fastai.utils.devices import may_have_gpu

WEIGHTS = Path("model.safetensors")


@pytest.fixture(params=["cpu", "cuda:0"])
def first_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(backends, "may_have_gpu", lambda: True)
    monkeypatch.setattr(backends, "resolve_device", lambda device: request.param)
    return str(request.param)


def test_automatic_backend_is_torch_on_a_gpu_only(first_device: str) -> None:
    assert choose_runtime(WEIGHTS, "auto", "auto") == ("onnx" if first_device == "cpu" else "torch")
    assert choose_runtime(WEIGHTS, "auto", "cpu") == "onnx"
    assert choose_runtime(WEIGHTS, "auto", "cuda:1") == "torch"
    assert choose_runtime(WEIGHTS, "auto", "mps") == "torch"


def test_torch_is_not_asked_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "may_have_gpu", lambda: False)
    monkeypatch.setattr(backends, "resolve_device", lambda device: pytest.fail("torch was asked"))
    assert choose_runtime(WEIGHTS, "auto", "auto") == "onnx"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_requested_backend_is_used(device: str) -> None:
    assert choose_runtime(WEIGHTS, "torch", device) == "torch"
    assert choose_runtime(WEIGHTS, "onnx", device) == "onnx"


def test_file_that_only_one_runtime_opens() -> None:
    assert choose_runtime(Path("model.ONNX"), "auto", "cuda") == "onnx"
    assert choose_runtime(Path("model.pkl"), "auto", "cpu") == "torch"
    with pytest.raises(UserError, match=r"m\.onnx: a \.onnx file runs with --backend onnx only; use auto"):
        choose_runtime(Path("m.onnx"), "torch", "cpu")
    with pytest.raises(UserError, match=r"m\.pkl: a \.pkl file runs with --backend torch only; use auto"):
        choose_runtime(Path("m.pkl"), "onnx", "cpu")
    with pytest.raises(UserError, match="--backend tensorflow: not known; use auto, onnx, torch"):
        choose_runtime(WEIGHTS, "tensorflow", "cpu")


# --- looking for a GPU ---------------------------------------------------------------------------


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the only file that counts as a driver; it exists."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices, "GPU_DRIVER_FILES", {"linux": (str(tmp_path / "driver"),)})
    (tmp_path / "driver").write_text("")
    return tmp_path / "driver"


def install_torch(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Put a package torch first on the path, which fails when it is imported."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise AssertionError('torch was imported')")
    if version is not None:
        (folder / "torch" / "version.py").write_text(version)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", True),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.2'\n", True),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("cuda = None\n", False),
        ("something = 'else'\n", True),
        (None, True),
    ],
)
def test_torch_for_the_cpu_only_has_no_gpu(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, expected: bool
) -> None:
    install_torch(tmp_path, monkeypatch, version)
    assert may_have_gpu() is expected


def test_no_gpu_without_driver_or_visible_device(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_torch(tmp_path, monkeypatch, "cuda: Optional[str] = '13.0'")
    assert may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    driver.unlink()
    assert not may_have_gpu()


@pytest.mark.parametrize(("machine", "expected"), [("arm64", True), ("x86_64", False)])
def test_macs_with_apple_processors_have_a_gpu(
    monkeypatch: pytest.MonkeyPatch, machine: str, expected: bool
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(devices.platform, "machine", lambda: machine)
    assert may_have_gpu() is expected
