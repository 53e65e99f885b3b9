"""Reading HDF5 files in another process first, because the HDF5 library crashes on some damaged ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from landmarks_fastai.errors import UserError

PROBE = """
import sys

import h5py

try:
    import resource
except ImportError:  # Windows
    pass
else:
    seconds = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read(name, item):
    dict(item.attrs)
    # embedded images, which may be many gigabytes, are not read
    if isinstance(item, h5py.Dataset) and not name.endswith("/video"):
        item[()]


with h5py.File(sys.argv[1], "r") as file:
    dict(file.attrs)
    file.visititems(read)
"""
"""The program: reads every attribute and data set of a file."""

CPU_SECONDS = 8
CPU_BYTES_PER_SECOND = 5e7
"""CPU time that the program may take: some seconds, and what reading the bytes takes."""

WAIT_FACTOR = 15
"""The program is also stopped after this many times the CPU time: for slow disks or busy machines."""

STOPPED = {-int(getattr(signal, name)) for name in ("SIGXCPU", "SIGKILL") if hasattr(signal, name)}
"""Exit codes of a program that has used up its CPU time."""


def check_hdf5(path: Path) -> None:
    """Read an HDF5 file in another process, and return if it can be read or raises an ordinary exception.

    Raises
    ------
    UserError
        If the process crashes or does not end: this one would not survive reading the file.
    """
    try:
        seconds = round(CPU_SECONDS + path.stat().st_size / CPU_BYTES_PER_SECOND)
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(path), str(seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=WAIT_FACTOR * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _endless(path) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if done.returncode in STOPPED:
        raise _endless(path)
    # a signal on POSIX, an exception of the processor on Windows
    if done.returncode < 0 or done.returncode > 255:
        raise UserError(f"{path}: damaged: the HDF5 library crashes when it reads it; copy it again")


def _endless(path: Path) -> UserError:
    return UserError(f"{path}: damaged: reading it does not end; copy it again")
