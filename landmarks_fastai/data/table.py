"""The one table that every source becomes: images, points, names of rows.

Knows nothing about where the faces came from, and nothing about tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import Schema


@dataclass(frozen=True)
class FaceTable:
    """Faces with their landmarks, held once in memory as bytes.

    Parameters
    ----------
    images
        (N, S, S, C) uint8, square, C = 1 (gray) or 3 (RGB).
    points
        (N, K, 2) float32, x then y, pixels of `images`; the centre of the top-left pixel is (0, 0).
        NaN where a point is unlabelled.
    schema
        What the K points are called.
    names
        N names for messages and tables: "training.csv line 12", "images/007.jpg".
    source
        Where the faces came from, in words.
    digest
        SHA-256 of the faces or of what they were read from, as hex: two tables that were read with the
        same digest hold the same faces.
    groups
        (N,) int64: rows with the same number must not be split (one person, one scene). None where
        the source does not say; `split.py` then looks for near-duplicates itself.
    fixes
        SHA-256 of the corrections that were laid over the labels, as hex; None where there were none.

    Raises
    ------
    UserError
        If the arrays do not agree with each other or with the schema.
    """

    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    schema: Schema
    names: tuple[str, ...]
    source: str
    digest: str
    groups: NDArray[np.int64] | None = None
    fixes: str | None = None

    def __post_init__(self) -> None:
        """Check that the arrays agree."""
        n = len(self.images)
        if self.images.ndim != 4 or self.images.shape[1] != self.images.shape[2]:
            raise UserError(f"{self.source}: images must be (N, S, S, C), not {self.images.shape}")
        if self.points.shape != (n, len(self.schema), 2):
            raise UserError(
                f"{self.source}: points must be ({n}, {len(self.schema)}, 2), not {self.points.shape}"
            )
        if len(self.names) != n or (self.groups is not None and len(self.groups) != n):
            raise UserError(f"{self.source}: {n} images need {n} names and, where given, {n} groups")

    def __len__(self) -> int:
        """Return N, the number of faces."""
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of every image, in pixels."""
        return int(self.images.shape[1])

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB."""
        return int(self.images.shape[3])

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N, K): which points have a label."""
        return np.asarray(~np.isnan(self.points).any(axis=2))

    @property
    def complete(self) -> NDArray[np.bool_]:
        """(N,): which rows have all K points."""
        return np.asarray(self.labelled.all(axis=1))

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> FaceTable:
        """Return the table of the rows that `index` (numbers or a mask) picks, in its order."""
        picked = np.flatnonzero(index) if index.dtype == bool else index
        return replace(
            self,
            images=self.images[picked],
            points=self.points[picked],
            names=tuple(self.names[int(i)] for i in picked),
            groups=None if self.groups is None else self.groups[picked],
        )
