"""One-line explanations of errors that are not ours: what failed, and what to do about it."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

GPU_MEMORY = (
    "the GPU is out of memory; in training, use a smaller --batch-size; otherwise close other programs that"
    " use it, or use --device cpu"
)
MEMORY = (
    "out of memory; use --workers 0 and a smaller --batch-size in training, smaller or fewer images at a time"
    " otherwise, or close other programs"
)
WORKER = (
    "a worker process died, most likely because memory ran out; use --workers 0 or a smaller --batch-size in"
    " training, or close other programs"
)
COMPILATION = (
    "training.compile: torch.compile cannot compile the network here; set it to false (to resume a run, in"
    " its config.yaml), or see with --debug what is missing"
)


@dataclass(frozen=True)
class Explanation:
    """An explanation of some errors.

    Parameters
    ----------
    types
        Names of the exception classes; most of these classes are in packages that a command may not have
        imported.
    pattern
        Part of the exception's message.
    text
        What failed, and what to do.
    """

    types: frozenset[str]
    pattern: re.Pattern[str]
    text: str


def _explanation(types: str, pattern: str, text: str) -> Explanation:
    return Explanation(frozenset(types.split()), re.compile(pattern), text)


EXPLANATIONS = (
    _explanation("OutOfMemoryError", "", GPU_MEMORY),
    _explanation("RuntimeError AcceleratorError", r"(CUDA|MPS|HIP)[^\n]*out of memory", GPU_MEMORY),
    _explanation("RuntimeError", r"(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED", GPU_MEMORY),
    _explanation("MemoryError", "", MEMORY),
    _explanation("RuntimeError", r"can't allocate memory|not enough memory|bad_alloc", MEMORY),
    _explanation("RuntimeError", r"DataLoader worker .*(exited|killed)|unable to open shared memory", WORKER),
    _explanation("BrokenProcessPool", "", WORKER),
    _explanation("TorchDynamoException", "", COMPILATION),
    _explanation("RuntimeError", r"torch\.compile is not supported", COMPILATION),
)
"""The first that matches is used."""


def explain_foreign_error(error: BaseException) -> str | None:
    """Return the explanation of an error; None if there is none, so that it counts as an internal error."""
    types = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return MEMORY
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    for explanation in EXPLANATIONS:
        if types & explanation.types and explanation.pattern.search(str(error)):
            return explanation.text
    return None
