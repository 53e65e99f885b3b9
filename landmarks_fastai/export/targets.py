"""The export targets: their suffixes, the packages that they need and their precisions."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from landmarks_fastai.errors import UserError
from landmarks_fastai.export.job import FP16, FP32, INT8, ExportJob, Writer
from landmarks_fastai.inference.backends import Backend
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.utils.text import suggest


class Exporter(Protocol):
    """The functions of the module of a target."""

    def convert(self, job: ExportJob) -> Writer:
        """Convert a network, and return the function that writes it."""

    def open_backend(self, path: Path, header: ModelHeader) -> Backend:
        """Open a written file on the CPU (TensorRT: the GPU) with the runtime that it is made for.

        Raises
        ------
        NotRunnableError
            If this machine cannot run such files.
        """

    def read_metadata(self, path: Path) -> Mapping[str, str]:
        """Return the metadata of a written file."""


@dataclass(frozen=True)
class Target:
    """A format that models are exported to.

    Parameters
    ----------
    module
        Name of its module in `landmarks_fastai.export`, which is imported when it is used.
    suffix
        Suffix of its files.
    packages
        Packages that must be installed, by the names under which they are imported.
    extra
        Extra of this package that installs them; None if it needs only what every installation has.
    precisions
        The precisions that it supports.
    companions
        Suffixes of further files next to the file.
    """

    module: str
    suffix: str
    packages: tuple[str, ...] = ()
    extra: str | None = None
    precisions: tuple[str, ...] = (FP32, FP16, INT8)
    companions: tuple[str, ...] = ()

    def missing_packages(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]

    def exporter(self) -> Exporter:
        """Import the module.

        Raises
        ------
        UserError
            If a package is not installed.
        """
        missing = self.missing_packages()
        if missing:
            remedy = (
                f'pip install "landmarks-fastai[{self.extra}]"' if self.extra else f"pip install {missing[0]}"
            )
            raise UserError(f"a {self.suffix} file needs {', '.join(missing)}: {remedy}")
        return cast(Exporter, importlib.import_module(f"landmarks_fastai.export.{self.module}"))


TARGETS = {
    "safetensors": Target("safetensors", ".safetensors", precisions=(FP32, FP16)),
    "onnx": Target("onnx", ".onnx", ("onnx", "onnxruntime")),
    "openvino": Target("openvino", ".xml", ("openvino", "onnx"), "openvino", companions=(".bin",)),
    "torchscript": Target("torchscript", ".pt", ("torch",), precisions=(FP32, FP16)),
    "executorch": Target("executorch", ".pte", ("executorch",), "executorch", (FP32,)),
    "coreml": Target("coreml", ".mlpackage", ("coremltools",), "coreml"),
    "litert": Target("litert", ".tflite", ("litert_torch",), "litert", (FP32,)),
    "tensorrt": Target("tensorrt", ".engine", ("tensorrt", "onnx"), "tensorrt", (FP32, FP16)),
}
"""The targets by the names of `export --format`."""


def find_target(path: Path, name: str | None = None) -> Target:
    """Return the target called `name`; None: the one with the suffix of a file.

    Raises
    ------
    UserError
        If there is no such target, or its files have another suffix.
    """
    if name is not None and name not in TARGETS:
        raise UserError(f"--format {name}: no such format; {suggest(name, list(TARGETS))}")
    if name is not None:
        target = TARGETS[name]
        if path.suffix.lower() != target.suffix:
            raise UserError(f"{path}: not a file name of format {name}; use the suffix {target.suffix}")
        return target
    by_suffix = {target.suffix: target for target in TARGETS.values()}
    if path.suffix.lower() not in by_suffix:
        raise UserError(f"{path}: no format has this suffix; use one of {', '.join(by_suffix)}")
    return by_suffix[path.suffix.lower()]


def check_precision(target: Target, precision: str, name: str) -> None:
    """Raise UserError if a target does not support a precision; `name` is that of the file."""
    if precision not in target.precisions:
        raise UserError(
            f"{name}: a {target.suffix} file cannot be written with --precision {precision}; use"
            f" {' or '.join(target.precisions)}"
        )
