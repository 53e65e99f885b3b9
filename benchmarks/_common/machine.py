"""Description of the machine that a benchmark ran on."""

from __future__ import annotations

import platform

import torch

from landmarks_fastai.training.precision import choose_precision
from landmarks_fastai.utils.text import format_count

CPU = torch.device("cpu")


def describe_machine(device: torch.device = CPU) -> str:
    """Return the processor, the versions, and the data type that training uses on the device."""
    dtype = choose_precision("auto", device) or torch.float32
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = format_count(torch.get_num_threads(), "thread")
    return (
        f"{processor}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()},"
        f" {str(dtype).removeprefix('torch.')}"
    )
