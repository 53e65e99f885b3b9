"""What an exporter is given: the network from pixels to pixels, its header and the precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import RunError
from landmarks_fastai.model_files.header import ModelHeader

if TYPE_CHECKING:
    from torch import Tensor

    from landmarks_fastai.networks.build import PixelNetwork

FP32, FP16, INT8 = "fp32", "fp16", "int8"

PRECISIONS = (FP32, FP16, INT8)
"""Names of the precisions: 32-bit floats; weights, and where the runtime can, computations in 16-bit floats;
weights and activations of the convolutions in 8-bit integers."""

Images = NDArray[np.uint8]

Writer = Callable[[Path, Mapping[str, str]], None]
"""Writes the converted network to a path, with metadata. It may be called several times."""


class NotRunnableError(RunError):
    """A file that this machine can write but not run; the message says where it runs."""


@dataclass(frozen=True, eq=False)
class ExportJob:
    """A network to be converted.

    Parameters
    ----------
    network
        Maps (N, C, S, S) float32 images with values from 0 to 255 to the outputs `output_names`; float32, on
        the CPU, in eval mode. An exporter may change it.
    header
        The model's header.
    precision
        One of `PRECISIONS`.
    calibration
        (N, S, S, C) uint8 images from which the ranges of 8-bit integers are found; None unless the precision
        is int8.
    """

    network: PixelNetwork
    header: ModelHeader
    precision: str = FP32
    calibration: Images | None = None

    def example(self, batch: int = 1) -> Tensor:
        """Return an input of the network: (batch, C, S, S) float32, all gray."""
        import torch

        side = self.header.input_size
        return torch.full((batch, self.header.channels, side, side), 128.0)

    def output_names(self) -> list[str]:
        """Return the names of the outputs: points and, if they are predicted, scales and visibility."""
        import torch

        with torch.inference_mode():
            return self.network.output_names(len(self.network(self.example())))


def network_inputs(images: Images) -> NDArray[np.float32]:
    """Return (N, S, S, C) uint8 images as the (N, C, S, S) float32 input of an exported network."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
