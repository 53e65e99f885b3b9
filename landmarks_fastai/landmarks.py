"""`Landmarks`, the one type of predicted, tracked, averaged, drawn and saved landmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.schema import LandmarkSchema

Floats = NDArray[np.float32]

MIN_VISIBILITY = 0.5
"""A landmark that is visible with a lower probability counts as occluded."""

_OMITTED: Floats = np.empty((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Landmarks of N faces (or other objects).

    Usually the N faces of one image; `Predictor.predict_batch` returns those of N images with one face each.

    Parameters
    ----------
    points
        (N, K, 2) float32, (x, y) in pixels of the image; NaN where a landmark is unknown.
    schema
        Names of the K landmarks.
    confidence
        (N, K) float32, the predicted probability that the errors along x and along y are both at most 2.5 %
        of the crop's side. NaN where the model does not estimate it, and for labels.
    scales
        (N, K) float32, expected absolute error along each axis (the scale of a Laplace distribution), in
        pixels of the image; NaN where unknown.
    crops
        The N crops in which the landmarks were predicted; None for labels.
    track_ids
        N track IDs; None outside videos.
    visibility
        (N, K) float32, the predicted probability that a landmark is visible, not occluded; NaN where the
        model does not estimate it. For labels, 1 or 0, and NaN where it is not labeled. NaN if omitted.

    Raises
    ------
    UserError
        If the shapes are inconsistent.
    """

    points: Floats
    schema: LandmarkSchema
    confidence: Floats
    scales: Floats
    crops: tuple[Crop, ...] | None = None
    track_ids: tuple[int, ...] | None = None
    visibility: Floats = field(default_factory=lambda: _OMITTED)

    def __post_init__(self) -> None:
        """Check that the shapes are consistent."""
        n, k = len(self.points), len(self.schema)
        if self.visibility is _OMITTED:
            object.__setattr__(self, "visibility", np.full((n, k), np.nan, np.float32))  # frozen
        if self.points.shape != (n, k, 2):
            raise UserError(
                f"schema {self.schema.name} needs points of shape (N, {k}, 2), not {self.points.shape}"
            )
        if self.confidence.shape != (n, k) or self.scales.shape != (n, k):
            raise UserError(
                f"confidence and scales must be ({n}, {k}), not {self.confidence.shape} and"
                f" {self.scales.shape}"
            )
        if self.visibility.shape != (n, k):
            raise UserError(f"visibility must be ({n}, {k}), not {self.visibility.shape}")
        for name, values in (("crops", self.crops), ("track_ids", self.track_ids)):
            if values is not None and len(values) != n:
                raise UserError(f"{n} faces need {n} {name}, not {len(values)}")

    @classmethod
    def from_points(cls, points: ArrayLike, schema: LandmarkSchema) -> Landmarks:
        """Create landmarks from (N, K, 2) or (K, 2) points, such as labels, without confidence or crops."""
        array = np.asarray(points, np.float32)
        array = array[None] if array.ndim == 2 else array
        unknown = np.full(array.shape[:2], np.nan, np.float32)
        return cls(array, schema, unknown, unknown)

    @property
    def occluded(self) -> NDArray[np.bool_]:
        """(N, K) mask of the landmarks that are more probably occluded than visible; False if unknown."""
        return np.asarray(self.visibility < MIN_VISIBILITY)

    @property
    def face_confidence(self) -> Floats:
        """(N,) mean confidence of the landmarks of each face; NaN if one is unknown."""
        return np.asarray(self.confidence.mean(axis=1, dtype=np.float64), np.float32)

    @classmethod
    def empty(cls, schema: LandmarkSchema) -> Landmarks:
        """Return the landmarks of no face."""
        return cls.from_points(np.empty((0, len(schema), 2), np.float32), schema)

    @classmethod
    def concatenate(cls, parts: Sequence[Landmarks], schema: LandmarkSchema) -> Landmarks:
        """Concatenate the faces of all parts, which share one schema; without parts, return `empty`.

        Crops and track IDs are kept only if every part has them.
        """
        if not parts:
            return cls.empty(schema)
        crops = [part.crops for part in parts]
        track_ids = [part.track_ids for part in parts]
        return cls(
            np.concatenate([part.points for part in parts]),
            schema,
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([part.scales for part in parts]),
            None if None in crops else tuple(crop for part in crops for crop in part or ()),
            None if None in track_ids else tuple(track_id for part in track_ids for track_id in part or ()),
            np.concatenate([part.visibility for part in parts]),
        )

    def __len__(self) -> int:
        """Return N, the number of faces."""
        return len(self.points)

    def __iter__(self) -> Iterator[Landmarks]:
        """Yield each face as `Landmarks` of length 1."""
        return (self[[index]] for index in range(len(self)))

    def __getitem__(self, rows: Sequence[int] | slice | NDArray[np.int64]) -> Landmarks:
        """Return the selected faces, in the given order."""
        chosen = np.arange(len(self))[rows]
        return Landmarks(
            self.points[chosen],
            self.schema,
            self.confidence[chosen],
            self.scales[chosen],
            None if self.crops is None else tuple(self.crops[i] for i in chosen.tolist()),
            None if self.track_ids is None else tuple(self.track_ids[i] for i in chosen.tolist()),
            self.visibility[chosen],
        )

    def select(self, schema: LandmarkSchema) -> Landmarks:
        """Return the landmarks that are in `schema`, in its order.

        Raises
        ------
        UserError
            If one of them is missing.
        """
        missing = [name for name in schema.names if name not in self.schema.names]
        if missing:
            raise UserError(
                f"the model predicts the landmarks of {self.schema.name}, which has no {missing[0]!r}"
                f" ({len(missing)} of the {len(schema)} landmarks of {schema.name} are missing); choose"
                " other data"
            )
        columns = list(self.schema.indices(schema.names))
        return Landmarks(
            self.points[:, columns],
            schema,
            self.confidence[:, columns],
            self.scales[:, columns],
            self.crops,
            self.track_ids,
            self.visibility[:, columns],
        )
