"""The labels of a data set before its images are read, the common type of all annotation formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema

Floats = NDArray[np.float64]

NOT_LABELED, OCCLUDED, VISIBLE = 0, 1, 2
"""Visibility of a label, as in COCO."""


@dataclass(frozen=True)
class ImageSource:
    """Where an image is: a file, or a frame of a video.

    Parameters
    ----------
    path
        The image or video file.
    frame
        Index of the frame of a video; None for an image.
    """

    path: Path
    frame: int | None = None

    @property
    def name(self) -> str:
        """Short name for messages and tables."""
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame}"


@dataclass(frozen=True, eq=False)
class Annotations:
    """Labeled landmarks of N rows (faces or other objects) on M images.

    Parameters
    ----------
    schema
        Names of the K landmarks.
    images
        M images, each of which occurs once.
    rows
        (N,) int64, index of the image of each row.
    points
        (N, K, 2) float64, (x, y) in pixels of the upright image, the center of the top-left pixel at (0, 0);
        NaN where a landmark is not labeled.
    visibility
        (N, K) uint8: `NOT_LABELED`, `OCCLUDED` or `VISIBLE`; 0 exactly where the point is NaN. None if the
        source does not record it.
    boxes
        (N, 4) float64 edges x0, y0, x1, y1 of each row in pixels; NaN where a row has no box. None if the
        source has no boxes.
    groups
        N names; rows with the same name (a person, a scene) stay on one side of a split. None if the source
        has none.
    names
        N row names for tables and messages: "a.png", "labels.json annotation 17".
    columns
        Other values of each row by column name, N each, for slices of an evaluation.
    source
        The file or folder they were read from, for messages.
    notes
        What was left out or assumed while reading, one line each, for the user.
    bad_rows
        Rows that cannot be used, one message each, which names the file and the line or key and says what is
        wrong. They are not among the N rows.
    locations
        Where each row is, for messages: "labels.csv, line 3". None if the names say that.
    """

    schema: LandmarkSchema
    images: tuple[ImageSource, ...]
    rows: NDArray[np.int64]
    points: Floats
    names: tuple[str, ...]
    source: str
    visibility: NDArray[np.uint8] | None = None
    boxes: Floats | None = None
    groups: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bad_rows: tuple[str, ...] = ()
    locations: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the shapes agree."""
        n, k = len(self.rows), len(self.schema)
        if self.points.shape != (n, k, 2):
            raise UserError(f"{self.source}: points must be ({n}, {k}, 2), not {self.points.shape}")
        if self.visibility is not None and self.visibility.shape != (n, k):
            raise UserError(f"{self.source}: visibility must be ({n}, {k}), not {self.visibility.shape}")
        if self.boxes is not None and self.boxes.shape != (n, 4):
            raise UserError(f"{self.source}: boxes must be ({n}, 4), not {self.boxes.shape}")
        for what, values in (
            ("names", self.names),
            ("groups", self.groups),
            ("locations", self.locations),
            *self.columns.items(),
        ):
            if values is not None and len(values) != n:
                raise UserError(f"{self.source}: {n} rows need {n} {what}, not {len(values)}")

    def __len__(self) -> int:
        """Return N, the number of rows."""
        return len(self.rows)

    def subset(self, rows: NDArray[np.int64]) -> Annotations:
        """Return the given rows, in the given order, with all images."""
        chosen = rows.tolist()
        return replace(
            self,
            rows=self.rows[rows],
            points=self.points[rows],
            names=tuple(self.names[i] for i in chosen),
            visibility=None if self.visibility is None else self.visibility[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
            columns={name: tuple(values[i] for i in chosen) for name, values in self.columns.items()},
            locations=None if self.locations is None else tuple(self.locations[i] for i in chosen),
        )
