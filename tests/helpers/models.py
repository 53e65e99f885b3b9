"""Model headers without a network, for predictors with a backend written in the test."""

from __future__ import annotations

from typing import Any

from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.schema import LandmarkSchema


def make_header(size: int, schema: LandmarkSchema, channels: int = 3, **fields: Any) -> ModelHeader:
    """Return the header of a model with `size` x `size` inputs; `fields` replace or add entries."""
    entries = {
        "arch": "stand-in",
        "head": {},
        "channels": channels,
        "input_size": size,
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "schema": schema,
    }
    return ModelHeader.model_validate({**entries, **fields})
