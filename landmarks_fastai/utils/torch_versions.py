"""Importing torchvision, whose compiled part fits one version of torch only."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from landmarks_fastai.errors import RunError
from landmarks_fastai.utils.text import shorten


def import_torchvision() -> ModuleType:
    """Return the module torchvision.

    Raises
    ------
    RunError
        If it cannot be imported together with the installed torch.
    """
    try:
        return importlib.import_module("torchvision")
    # a missing operator is a RuntimeError, a missing symbol an OSError or ImportError, and torchvision itself
    # raises an AttributeError after a failed import
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise RunError(
            f"torch {_version('torch')} and torchvision {_version('torchvision')} do not work together"
            f" ({shorten(str(error), 100)}); install a pair that does, both from the same index: pip install"
            " --force-reinstall torch torchvision"
        ) from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
