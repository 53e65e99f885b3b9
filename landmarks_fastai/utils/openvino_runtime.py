"""OpenVINO, imported in one place because its telemetry must be switched off before."""

from __future__ import annotations

import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which otherwise sends an event at the import.

    OpenVINO and nncf send events through the package openvino_telemetry, and do without if it cannot be
    imported.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # an import of it raises
    import openvino

    return openvino  # type: ignore[no-any-return]
