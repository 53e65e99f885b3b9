"""The JSON header of a model file: everything needed to use the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_serializer,
    model_validator,
)

from landmarks_fastai import __version__
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.schema import LandmarkSchema

FORMAT = 2
"""Version of the header and of run folders that this package reads and writes; 0.1 wrote version 1."""

HEADER_KEY = "landmarks_fastai"
"""Key of the header in the metadata of safetensors files and in metadata_props of ONNX files."""

MODEL_NAME = "model.safetensors"


class ModelHeader(BaseModel):
    """Description of a model, stored with its weights.

    Attributes
    ----------
    format
        Version of this header.
    arch
        torchvision name of the ResNet.
    head
        Name and options of the head, as `build_head` takes them.
    channels
        1 for gray, 3 for RGB.
    input_size
        Side of the network input in pixels.
    mean, std
        One value per channel; pixels are normalized by ``(pixel / 255 - mean) / std``.
    landmark_schema
        Names of the landmarks; the key in JSON is "schema", a name that pydantic reserves as an attribute.
    mean_shape
        K mean landmark positions (x, y) in the training crops, as fractions of the side.
    label_bias
        Horizontal offset of all labels, and therefore of all predictions, as a fraction of the side; positive
        is to the right.
    scale_factor
        Calibration factor of the predicted scales, fitted on the validation set. ONNX files contain it
        already.
    visibility_calibration
        Slope and intercept by which the log-odds of visibility are calibrated, fitted on the validation set
        (Platt scaling). ONNX files contain it already. Without effect if the model does not predict
        visibility.
    config
        The complete training config.
    metrics
        Metrics on the validation set.
    created, package_version
        When and by which version the model was trained.
    coordinates
        The convention of the network's output, for readers of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    arch: str
    head: dict[str, Any]
    channels: Literal[1, 3]
    input_size: int = Field(ge=1, le=4096)
    mean: list[float]
    std: list[float]
    landmark_schema: LandmarkSchema = Field(alias="schema")
    mean_shape: list[tuple[float, float]] | None = None
    label_bias: float = Field(0.0, gt=-0.5, lt=0.5)
    scale_factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    visibility_calibration: tuple[FiniteFloat, FiniteFloat] = (1.0, 0.0)
    config: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    created: str = Field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    package_version: str = __version__
    coordinates: str = "x and y are scaled so that the edges of the image are -1 and 1"

    @field_serializer("landmark_schema")
    def _schema_to_dict(self, schema: LandmarkSchema) -> dict[str, Any]:
        """Leave out the parts of the schema that are not set, which older files do not have."""
        return schema.to_dict()

    @model_validator(mode="after")
    def _check_lengths(self) -> ModelHeader:
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(f"mean and std need {self.channels} values, and std must be positive")
        if self.mean_shape is not None and len(self.mean_shape) != len(self.landmark_schema):
            raise ValueError(f"mean_shape needs {len(self.landmark_schema)} points")
        return self

    @property
    def predicts_visibility(self) -> bool:
        """Whether the model predicts the probability that a landmark is visible."""
        return bool(self.head.get("visibility", False))

    @property
    def synthetic(self) -> bool:
        """Whether the model was trained on synthetic data."""
        return bool(self.config.get("data", {}).get("source") == "synthetic")

    def to_dict(self) -> dict[str, Any]:
        """Return the header as JSON-serializable values."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], path: Path) -> ModelHeader:
        """Validate the output of `to_dict`; `path` is named in messages.

        Raises
        ------
        UserError
            If the header has another format version or is invalid.
        """
        check_format(entries.get("format"), path)
        try:
            return cls.model_validate(entries)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: invalid header: {where} {first['msg']}") from error
        except LandmarksError as error:
            raise UserError(f"{path}: invalid header: {error}") from error


def check_format(version: object, path: Path) -> None:
    """Check that a model file or run folder has the format version that this package reads.

    Raises
    ------
    UserError
        If the version is 1 (landmarks-fastai 0.1) or newer than `FORMAT`.
    """
    if version == 1:
        raise UserError(
            f"{path}: written by landmarks-fastai 0.1, which version {__version__} cannot read; train again"
        )
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{path}: has format {version}, but landmarks-fastai {__version__} reads format {FORMAT};"
            " update landmarks-fastai"
        )


def read_header(metadata: Mapping[str, str], path: Path) -> ModelHeader:
    """Parse the header in the metadata of a safetensors or ONNX file.

    Raises
    ------
    UserError
        If there is none, or it is invalid.
    """
    if HEADER_KEY not in metadata:
        raise UserError(f"{path}: not a landmarks-fastai model: the file has no landmarks_fastai header")
    try:
        entries = json.loads(metadata[HEADER_KEY])
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: invalid header: {error}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path}: invalid header: not a JSON object")
    return ModelHeader.from_dict(entries, path)
