"""Export to safetensors: the weights with their header, which this package reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from landmarks_fastai.export.job import FP16, ExportJob, Writer
from landmarks_fastai.inference.backends import Backend, torch_backend
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.model_files.saving import model_content


def convert(job: ExportJob) -> Writer:
    """Return the function that writes the weights.

    With fp16, matrices and convolutions are float16 in the file; they are used as float32.
    """

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        weights = job.network.network.state_dict()
        path.write_bytes(model_content(weights, job.header, job.precision == FP16, metadata))

    return write


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open a file with torch."""
    opened = open_model(path)
    assert opened.network is not None
    return torch_backend(opened.network, opened.header, "cpu")


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    metadata.pop("format", None)  # of safetensors
    return metadata
