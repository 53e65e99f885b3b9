"""Export to ExecuTorch: one .pte file for phones and embedded devices, computed by XNNPACK on their CPU.

Its input has one image; the metadata are methods without arguments, which return a string.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.export.job import ExportJob, Images, Writer, network_inputs
from landmarks_fastai.export.record import EXPORT_KEY
from landmarks_fastai.inference.backends import Backend
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader


def convert(job: ExportJob) -> Writer:
    """Convert a network.

    XNNPACK stores 16-bit weights as 32 bits, and those of torchao's 8-bit quantization, too, so
    that both would only cost accuracy.
    """
    import torch

    with _quiet():
        program = torch.export.export(job.network, (job.example(),))

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        with _quiet():
            lowered = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods=dict(metadata)
            )
            path.write_bytes(lowered.to_executorch().buffer)

    return write


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open a file with ExecuTorch's runtime for desktops."""
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")

    def run(images: Images) -> tuple[NDArray[np.float32], ...]:
        inputs = map(torch.from_numpy, np.split(network_inputs(images), len(images)))
        results = [[output.numpy().copy() for output in method.execute([image])] for image in inputs]
        return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))

    return run


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    return {key: program.load_method(key).execute([])[0] for key in (HEADER_KEY, EXPORT_KEY)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the warnings and the log of the conversion, which name no error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
