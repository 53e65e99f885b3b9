"""The JSON header of a model file: everything needed to use the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from landmarks_fastai import __version__
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.json_reader import parse_json
from landmarks_fastai.utils.text import quote, shorten

FORMAT = 2
"""Version of the header and of run folders that this package reads and writes; 0.1 wrote version 1."""

HEADER_KEY = "landmarks_fastai"
"""Key of the header in the metadata of safetensors files and in metadata_props of ONNX files."""

MODEL_NAME = "model.safetensors"

SYNTHETIC_WARNING = "this model was trained on synthetic faces only; its landmarks on photos are not reliable"

MAX_HEADER_BYTES = 10_000_000
"""Largest header of a model file that is read; those of the released models have up to 24,000 bytes."""

MAX_WIDTH = 65_536
"""Largest number in the options of a head, such as the width of a layer."""

MAX_POSITION = 10.0
"""Largest distance of a mean landmark from the edge of the crop, in sides of the crop."""


class ModelHeader(BaseModel):
    """Description of a model, stored with its weights.

    Every entry is limited, so that no header can ask for a network or an image that does not fit in memory.

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
    image_size
        Side of the images of the data set in pixels. A prediction resizes a crop to this side first, and then
        to `input_size`, as the training did. None, in models of version 0.1.0: it resizes in one step.
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
    arch: str = Field(max_length=100)
    head: dict[str, Any]
    channels: Literal[1, 3]
    input_size: int = Field(ge=1, le=1024)  # as in the config
    image_size: int | None = Field(None, ge=1, le=4096)
    mean: list[Annotated[FiniteFloat, Field(ge=-100, le=100)]]
    std: list[Annotated[FiniteFloat, Field(ge=1e-6, le=100)]]
    landmark_schema: LandmarkSchema = Field(alias="schema")
    mean_shape: list[tuple[float, float]] | None = None
    label_bias: float = Field(0.0, gt=-0.5, lt=0.5)
    scale_factor: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False)
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

    @field_validator("head")
    @classmethod
    def _check_head(cls, head: dict[str, Any]) -> dict[str, Any]:
        """Check the types and sizes of the options; `build_head` checks their names."""
        for option, value in head.items():
            if isinstance(value, bool) or (isinstance(value, str) and len(value) <= 100):
                continue
            if not isinstance(value, int) or not 1 <= value <= MAX_WIDTH:
                raise ValueError(
                    f"{shorten(option)} must be true, false, a name, or an integer from 1 to {MAX_WIDTH:,}"
                )
        return head

    @field_validator("config")
    @classmethod
    def _check_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Check the groups that are read without validating the complete config."""
        for group in ("data", "model"):
            if not isinstance(config.get(group, {}), dict):
                raise ValueError(f"{group} must be a mapping")
        return config

    @model_validator(mode="after")
    def _check_lengths(self) -> ModelHeader:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} values")
        if self.mean_shape is not None:
            if len(self.mean_shape) != len(self.landmark_schema):
                raise ValueError(f"mean_shape needs {len(self.landmark_schema)} points")
            if any(abs(x) > MAX_POSITION for point in self.mean_shape for x in point if not math.isnan(x)):
                raise ValueError(f"mean_shape must be fractions of the crop's side, at most {MAX_POSITION:g}")
        return self

    @property
    def predicts_visibility(self) -> bool:
        """Whether the model predicts the probability that a landmark is visible."""
        return bool(self.head.get("visibility", False))

    @property
    def estimates_confidence(self) -> bool:
        """Whether the model estimates how accurate each landmark is."""
        return bool(self.head.get("scales", False))

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
            first = error.errors(include_url=False, include_input=False)[0]
            where = shorten(".".join(str(part) for part in first["loc"]))
            raise UserError(f"{path}: invalid header: {where} {shorten(first['msg'], 200)}") from None
        except LandmarksError as error:
            raise UserError(f"{path}: invalid header: {shorten(str(error), 200)}") from None


def check_format(version: object, path: Path) -> None:
    """Check that a model file or run folder has the format version that this package reads.

    Raises
    ------
    UserError
        If the version is 1 (landmarks-fastai 0.1), newer than `FORMAT`, or not a version at all.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UserError(
            f"{path}: damaged: its format version is {quote(version)} instead of {FORMAT}; copy it again"
        )
    if version == 1:
        raise UserError(
            f"{path}: written by landmarks-fastai 0.1, which version {__version__} cannot read; train again"
        )
    if version > FORMAT:
        raise UserError(
            f"{path}: has format {quote(version)}, but landmarks-fastai {__version__} reads format {FORMAT};"
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
    check_header_size(len(metadata[HEADER_KEY]), path)
    entries = parse_json(metadata[HEADER_KEY], f"{path}: invalid header")
    if not isinstance(entries, dict):
        raise UserError(f"{path}: invalid header: not a JSON object")
    try:
        json.dumps(entries, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no file or terminal accepts
        raise UserError(f"{path}: invalid header: its text is not Unicode; copy the file again") from None
    return ModelHeader.from_dict(entries, path)


def check_header_size(size: int, path: Path) -> None:
    """Raise UserError if a header has more than `MAX_HEADER_BYTES` bytes."""
    if size > MAX_HEADER_BYTES:
        raise UserError(
            f"{path}: its header has {size / 1e6:,.0f} MB, but that of a model has at most"
            f" {MAX_HEADER_BYTES / 1e6:g} MB; this is another file, or it is damaged"
        )
