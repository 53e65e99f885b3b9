"""Export to TorchScript: one file, which programs with libtorch run without Python.

A TorchScript file contains code, so `predict` does not open it: it is for programs that trust its author.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.export.job import FP16, ExportJob, Images, Writer, network_inputs
from landmarks_fastai.export.record import EXPORT_KEY
from landmarks_fastai.inference.backends import Backend
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader


def convert(job: ExportJob) -> Writer:
    """Trace a network; with fp16, its backbone computes in float16."""
    import torch

    from landmarks_fastai.export.half_precision import halve_backbone

    network = halve_backbone(job.network) if job.precision == FP16 else job.network
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its replacement does not run in libtorch
        traced = torch.jit.trace(network, job.example(2))  # type: ignore[no-untyped-call]

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        content = io.BytesIO()  # if the disk is full, torch ends the whole process when it writes to a path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(traced, content, _extra_files=dict(metadata))
        path.write_bytes(content.getbuffer())

    return write


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open a file on the CPU."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]

    def run(images: Images) -> tuple[NDArray[np.float32], ...]:
        with torch.inference_mode():
            return tuple(output.numpy() for output in module(torch.from_numpy(network_inputs(images))))

    return run


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    import torch

    entries: dict[str, Any] = dict.fromkeys((HEADER_KEY, EXPORT_KEY), "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(path, "cpu", entries)  # type: ignore[no-untyped-call]
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in entries.items()}
