"""The precision of the forward pass: float32, or autocast to bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback.core import Callback
from torch import Tensor


def choose_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of autocast for a value of `training.precision`; None for float32.

    "auto" is bfloat16 if the device supports it in hardware. Elsewhere it is emulated: on a CPU without
    AVX512-BF16, it was sixteen times slower than float32.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu":
        in_hardware = torch.backends.cpu.get_cpu_capability() == "AVX512" and _cpu_has_bf16()
        return torch.bfloat16 if in_hardware else None
    return None


def choose_kernels(precision: str, device: torch.device, reproducible: bool) -> None:
    """Let a GPU use its fastest kernels, as far as the config allows.

    Parameters
    ----------
    precision
        `training.precision`: with "auto", matrix products that are not in bfloat16 may use TF32.
    device
        The device; nothing changes for others than CUDA.
    reproducible
        Do not let cuDNN measure which algorithms are fastest, because it may choose others in the next run.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not reproducible
        torch.backends.cuda.matmul.allow_tf32 = precision == "auto"


def _cpu_has_bf16() -> bool:
    """Return True if the CPU has AVX512-BF16 or AMX; torch has no public function for this."""
    queries = [
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(query() for query in queries if query is not None)


class Autocast(Callback):
    """Run the forward pass in `dtype` on any device; fastai's MixedPrecision supports CUDA only.

    Losses and metrics are computed in full precision. Autocast is left when the forward pass raises, too:
    otherwise all that the process computes afterwards would be in half precision.
    """

    order = 10

    def __init__(self, device_type: str, dtype: torch.dtype) -> None:
        self.device_type, self.dtype = device_type, dtype

    def before_batch(self) -> None:
        """Run the next forward pass in autocast.

        fastai has no event after a forward pass that raises, so autocast cannot be entered in one event and
        left in another.
        """
        model: Any = self.model
        model.__dict__.pop("forward", None)  # of a batch that failed before its forward pass
        forward = model.forward

        def forward_once(*inputs: Tensor) -> Tensor:
            del model.forward
            with torch.autocast(self.device_type, dtype=self.dtype):
                output: Tensor = forward(*inputs)
            return output

        model.forward = forward_once
