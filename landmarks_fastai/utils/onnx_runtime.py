"""ONNX Runtime: imported without telemetry, and with the same session options everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from landmarks_fastai.utils.processors import available_processors

SILENT = 4
"""Level of the log above which nothing is written: errors are raised, and the log would repeat them."""


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime without its telemetry, unless ORT_DISABLE_TELEMETRY is set already.

    Its wheels, as of version 1.32, send events about models and the machine to Microsoft, and keep an
    identifier of the machine in the user's cache folder (Privacy.md of ONNX Runtime). The variable has an
    effect only if it is set before the import.

    Raises
    ------
    ImportError
        If ONNX Runtime is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime  # type: ignore[no-any-return]


_threads: ContextVar[int | None] = ContextVar("threads of a session", default=None)


@contextmanager
def threads_per_session(count: int | None) -> Iterator[None]:
    """Within the block, create sessions of so many threads each; None: one per available processor.

    One thread is the fastest where several images are predicted at a time: then no processor waits for
    another one (benchmarks/folder.md).
    """
    token = _threads.set(count)
    try:
        yield
    finally:
        _threads.reset(token)


def session_options() -> Any:
    """Return the options of every session: one thread per available processor, none of which spins.

    Within `threads_per_session`, a session has that many threads.

    A thread that spins waits for work by keeping its processor busy, which takes it from other processes and
    from the other session of this one (face detection and landmarks).

    Raises
    ------
    ImportError
        If ONNX Runtime is not installed.
    """
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = _threads.get() or available_processors()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
