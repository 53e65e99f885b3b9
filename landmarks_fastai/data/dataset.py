"""`LandmarkDataset`, the type to which every source is converted: images, landmarks and row names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotations import NOT_LABELED, VISIBLE
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema


@dataclass(frozen=True)
class LandmarkDataset:
    """Square images of one face (or other object) each, with labels.

    Parameters
    ----------
    images
        (N, S, S, C) uint8, C = 1 (gray) or 3 (RGB), usually memory-mapped; an array is converted.
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
    visibility
        (N, K) uint8, `annotations.OCCLUDED` or `VISIBLE` where a landmark is labeled, else `NOT_LABELED`.
        None if the source does not record it.
    columns
        Other values of each row by column name, N each, for slices of an evaluation.
    sides
        (N,) float32, side of the crop of each row in pixels of its source image. None if the images were not
        cropped.
    notes
        What was left out or assumed while reading, one line each, for the user.

    Raises
    ------
    UserError
        If the shapes are inconsistent with each other or with the schema.
    """

    images: ImageArray
    points: NDArray[np.float32]
    schema: LandmarkSchema
    names: tuple[str, ...]
    source: str
    digest: str
    groups: NDArray[np.int64] | None = None
    corrections: str | None = None
    visibility: NDArray[np.uint8] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sides: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Convert an array of images, and check that the shapes are consistent."""
        object.__setattr__(self, "images", ImageArray.of(self.images))
        n = len(self.images)
        if self.images.ndim != 4 or self.images.shape[1] != self.images.shape[2]:
            raise UserError(f"{self.source}: images must be (N, S, S, C), not {self.images.shape}")
        if self.points.shape != (n, len(self.schema), 2):
            raise UserError(
                f"{self.source}: points must be ({n}, {len(self.schema)}, 2), not {self.points.shape}"
            )
        if len(self.names) != n or (self.groups is not None and len(self.groups) != n):
            raise UserError(f"{self.source}: {n} images need {n} names and, if given, {n} groups")
        if self.visibility is not None and self.visibility.shape != (n, len(self.schema)):
            raise UserError(
                f"{self.source}: visibility must be ({n}, {len(self.schema)}), not {self.visibility.shape}"
            )
        if self.sides is not None and self.sides.shape != (n,):
            raise UserError(f"{self.source}: {n} images need {n} sides, not {len(self.sides)}")
        for name, values in self.columns.items():
            if len(values) != n:
                raise UserError(f"{self.source}: {n} images need {n} values of {name!r}, not {len(values)}")

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
        """The labels as `Landmarks` of N faces, with visibility 1 or 0 where it is labeled."""
        landmarks = Landmarks.from_points(self.points, self.schema)
        if self.visibility is None:
            return landmarks
        known = (self.visibility != NOT_LABELED) & self.labeled
        flags = np.where(known, self.visibility == VISIBLE, np.nan).astype(np.float32)
        return replace(landmarks, visibility=flags)

    def image_digests(self) -> list[bytes]:
        """Return the SHA-256 of each image's pixels."""
        return [hashlib.sha256(image.tobytes()).digest() for image in self.images]

    def with_schema(self, schema: LandmarkSchema) -> LandmarkDataset:
        """Return the data set with a schema, in its order; unchanged if the landmarks have other names."""
        if set(schema.names) != set(self.schema.names):
            return self
        order = [self.schema.names.index(name) for name in schema.names]
        visibility = None if self.visibility is None else self.visibility[:, order]
        return replace(self, schema=schema, points=self.points[:, order], visibility=visibility)

    def subset(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> LandmarkDataset:
        """Return the rows selected by a mask or by indices, in the order of the indices."""
        indices = np.arange(len(self))[rows]
        chosen = indices.tolist()
        return replace(
            self,
            images=self.images.select(indices),
            points=self.points[indices],
            names=tuple(self.names[i] for i in chosen),
            groups=None if self.groups is None else self.groups[indices],
            visibility=None if self.visibility is None else self.visibility[indices],
            columns={name: tuple(values[i] for i in chosen) for name, values in self.columns.items()},
            sides=None if self.sides is None else self.sides[indices],
        )
