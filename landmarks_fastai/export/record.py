"""The record of an export in the metadata of the file: how far it deviates from torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from landmarks_fastai.export.checks import Deviation, NmeChange
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader

EXPORT_KEY = "landmarks_fastai_export"
"""Key of the record in the metadata of an exported file, next to that of the header."""

DIGITS = 6
"""Decimal places of numbers in the record."""


@dataclass(frozen=True)
class ExportRecord:
    """How a file was exported, and how far its outputs deviate from those of torch.

    Parameters
    ----------
    precision
        fp32, fp16 or int8.
    faces, random
        Deviation on faces and on random images; None if this machine cannot run the file.
    nme
        NME of torch and of the file; None without labeled data.
    calibration
        The images from which the ranges of 8-bit integers were found; None for other precisions.
    packages
        Versions of the packages that took part.
    """

    precision: str
    faces: Deviation | None = None
    random: Deviation | None = None
    nme: NmeChange | None = None
    calibration: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def checked(self) -> bool:
        """Whether the file was run and compared with torch."""
        return self.faces is not None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serializable values."""
        return {
            "precision": self.precision,
            "checked": self.checked,
            "unit": "pixels of the input",
            "faces": _rounded(self.faces),
            "random": _rounded(self.random),
            "nme": self.nme and _round(self.nme.to_dict()),
            "calibration": self.calibration,
            "packages": dict(self.packages),
        }

    def metadata(self, header: ModelHeader) -> dict[str, str]:
        """Return the metadata of the file: header and record as JSON."""
        return {HEADER_KEY: json.dumps(header.to_dict()), EXPORT_KEY: json.dumps(self.to_dict())}


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of packages, by their import names; unknown ones are left out."""
    versions = {}
    for name in ("landmarks-fastai", "torch", *packages):
        try:
            versions[name] = version(name.replace("_", "-"))
        except PackageNotFoundError:
            continue
    return versions


def _rounded(deviation: Deviation | None) -> dict[str, float] | None:
    return None if deviation is None else _round(asdict(deviation))


def _round(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, DIGITS) if isinstance(value, float) else value for name, value in values.items()
    }
