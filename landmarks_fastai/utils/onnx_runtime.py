"""ONNX Runtime, imported in one place because its telemetry must be switched off before."""

from __future__ import annotations

import os
from types import ModuleType


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
