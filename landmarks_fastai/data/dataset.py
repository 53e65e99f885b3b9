"""`LandmarkDataset`, the type to which every source is converted: images, landmarks and row names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema


@dataclass(frozen=True)
class LandmarkDataset:
    """Square images of one face each, with labels, all in memory.

    Parameters
    ----------
    images
        (N, S, S, C) uint8, C = 1 (gray) or 3 (RGB).
    points
        (N, K, 2) float32, (x, y) in pixels of `images`; NaN where a landmark is unlabeled.
    schema
        Names of the K landmarks.
    names
        N row names, for messages and tables: "training.csv line 12", "images/007.jpg".
    source
        Where the rows come from, for messages.
    digest
        SHA-256, as hex, of the data or of the files that it was read from, before corrections and the
        selection of rows, which do not change it.
    groups
        (N,) int64; rows with the same number (one person, one scene) must stay on the same side of a split.
        None if unknown; a split then detects near-duplicates.
    corrections
        SHA-256, as hex, of the corrections applied to the labels; None if there are none.

    Raises
    ------
    UserError
        If the shapes are inconsistent with each other or with the schema.
    """

    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    schema: LandmarkSchema
    names: tuple[str, ...]
    source: str
    digest: str
    groups: NDArray[np.int64] | None = None
    corrections: str | None = None

    def __post_init__(self) -> None:
        """Check that the shapes are consistent."""
        n = len(self.images)
        if self.images.ndim != 4 or self.images.shape[1] != self.images.shape[2]:
            raise UserError(f"{self.source}: images must be (N, S, S, C), not {self.images.shape}")
        if self.points.shape != (n, len(self.schema), 2):
            raise UserError(
                f"{self.source}: points must be ({n}, {len(self.schema)}, 2), not {self.points.shape}"
            )
        if len(self.names) != n or (self.groups is not None and len(self.groups) != n):
            raise UserError(f"{self.source}: {n} images need {n} names and, if given, {n} groups")

    def __len__(self) -> int:
        """Return N, the number of rows."""
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of every image in pixels."""
        return int(self.images.shape[1])

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB."""
        return int(self.images.shape[3])

    @property
    def labeled(self) -> NDArray[np.bool_]:
        """(N, K) mask of labeled landmarks."""
        return np.asarray(~np.isnan(self.points).any(axis=2))

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(N,) mask of rows whose K landmarks are all labeled."""
        return np.asarray(self.labeled.all(axis=1))

    @property
    def landmarks(self) -> Landmarks:
        """The labels as `Landmarks` of N faces."""
        return Landmarks.from_points(self.points, self.schema)

    def image_digests(self) -> list[bytes]:
        """Return the SHA-256 of each image's pixels."""
        return [hashlib.sha256(image.tobytes()).digest() for image in self.images]

    def subset(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> LandmarkDataset:
        """Return the rows selected by a mask or by indices, in the order of the indices."""
        indices = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(
            self,
            images=self.images[indices],
            points=self.points[indices],
            names=tuple(self.names[int(i)] for i in indices),
            groups=None if self.groups is None else self.groups[indices],
        )
