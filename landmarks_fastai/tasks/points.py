"""A face's points, each with its name, its place and how sure the model is, as rows and as JSON.

The one way in which pictures, videos and the page write them. Knows nothing about files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.schema import Schema

DIGITS = 3
"""Decimals of a pixel, and of a confidence."""

Floats = NDArray[np.float32]


def named_points(
    points: Floats, confidence: Floats, schema: Schema
) -> Iterator[tuple[str, float, float, float | None]]:
    """Yield name, x, y and confidence of a face's (K, 2) points; None where the model knows no confidence."""
    for name, (x, y), sure in zip(schema.points, points.tolist(), confidence.tolist(), strict=True):
        yield name, x, y, None if math.isnan(sure) else sure


def points_as_cells(
    points: Floats, confidence: Floats, schema: Schema
) -> Iterator[tuple[str, str, str, str]]:
    """Yield the cells point, x, y and confidence of a CSV's rows; an unknown confidence is empty."""
    for name, x, y, sure in named_points(points, confidence, schema):
        yield name, f"{x:.{DIGITS}f}", f"{y:.{DIGITS}f}", "" if sure is None else f"{sure:.{DIGITS}f}"


def points_as_json(points: Floats, confidence: Floats, schema: Schema) -> dict[str, dict[str, float | None]]:
    """Return {name: {"x", "y", "confidence"}}; an unknown confidence is null."""
    return {
        name: {
            "x": round(x, DIGITS),
            "y": round(y, DIGITS),
            "confidence": None if sure is None else round(sure, DIGITS),
        }
        for name, x, y, sure in named_points(points, confidence, schema)
    }
