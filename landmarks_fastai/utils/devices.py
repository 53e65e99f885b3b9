"""Whether this machine may have a GPU that torch can use, found out without importing torch."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.util import find_spec
from pathlib import Path

GPU_DRIVER_FILES = {
    # NVIDIA's and AMD's drivers on Linux, and the GPU of Windows as its subsystem for Linux shows it
    "linux": ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/kfd", "/dev/dxg"),
    "win32": (os.path.expandvars(r"%SystemRoot%\System32\nvcuda.dll"),),
}
"""Files of which at least one exists where a driver for CUDA or ROCm is loaded, by `sys.platform`."""


def may_have_gpu() -> bool:
    """Return False if torch certainly finds no GPU here; True if it must be asked.

    Importing torch takes more than a second, so the driver's files are looked for instead, and whether torch
    was built for a GPU. On Macs with Apple's processors, the answer is True (MPS).
    """
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(map(os.path.exists, GPU_DRIVER_FILES.get(sys.platform, ()))) and _torch_supports_gpus()


def _torch_supports_gpus() -> bool:
    """Return True unless torch is missing, or its version.py says that it was built for the CPU only."""
    package = find_spec("torch")  # not imported
    if package is None or package.origin is None:
        return False
    try:
        version = Path(package.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return True
    built_for = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= *(\S+)", version, re.MULTILINE))
    return any(value != "None" for value in built_for.values()) if built_for else True
