"""Which whole frame of faces68 each of the Kaggle-like rows was cut from, and where.

    python benchmarks/frames68.py --data facial-keypoints-detection.zip --frames faces68

The 15 points are led from the frame to the crop by a scale and a shift alone, so a row's frame is the one
whose points have the same shape, and the scale and the shift are the crop. Rows that show the same shape
are told apart by their pixels, which also check every match. Prints what was matched; the other
benchmarks call `match`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.source import default_cache, load_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.framing import Square, cut_square
from landmarks_fastai.images import read_image
from landmarks_fastai.schema import KAGGLE15

FROM_68 = {
    "left_eye_center": (42, 43, 44, 45, 46, 47),
    "right_eye_center": (36, 37, 38, 39, 40, 41),
    "left_eye_inner_corner": (42,),
    "left_eye_outer_corner": (45,),
    "right_eye_inner_corner": (39,),
    "right_eye_outer_corner": (36,),
    "left_eyebrow_inner_end": (22,),
    "left_eyebrow_outer_end": (26,),
    "right_eyebrow_inner_end": (21,),
    "right_eyebrow_outer_end": (17,),
    "nose_tip": (30,),
    "mouth_left_corner": (54,),
    "mouth_right_corner": (48,),
    "mouth_center_top_lip": (51,),
    "mouth_center_bottom_lip": (57,),
}
"""Of which of the 68 points each of Kaggle's is the mean."""

SAME_SHAPE = 1e-3
"""Up to what misfit two sets of points are the same, px of the crop. Matches have some 5e-5, what single
precision leaves; the next best frame of a row with all points is thousands of times as far."""

UNLIKE = 0.9
"""A crop whose pixels correlate less with its row's is no match. All true ones have more than 0.96."""


@dataclass(frozen=True)
class Frame68:
    """A frame, and the crop that was taken of it.

    Parameters
    ----------
    image
        The frame's file.
    row
        Which row of the table its crop is.
    square
        The crop, in edges of the frame.
    points
        (15, 2) float64, Kaggle's points in the frame, also those that the row lacks; px of the frame.
    likeness
        Correlation of the crop's pixels with the row's.
    misfit
        Root mean square distance of the row's points from the frame's, px of the crop.
    """

    image: Path
    row: int
    square: Square
    points: NDArray[np.float64]
    likeness: float
    misfit: float


def match(frames: Path, table: FaceTable) -> list[Frame68]:
    """Find the frame and the crop of each row; rows without one are left out.

    Parameters
    ----------
    frames
        The folder with images/ and landmarks.csv.
    table
        Kaggle-like faces.

    Returns
    -------
    list[Frame68]
        By row; no row and no frame stands twice.
    """
    names, points = read_points(frames)
    found = []
    for row, frame, square, misfit in _same_shapes(points, table.points.astype(np.float64), table.size):
        path = frames / "images" / names[frame]
        likeness = _likeness(read_image(path), square, table.images[row])
        if likeness > UNLIKE:
            found.append((frame, Frame68(path, row, square, points[frame], likeness, misfit)))
    # two frames of one shape: the most alike are the true pairs, and then each has lost its other partner
    best: dict[int, Frame68] = {}
    taken: set[int] = set()
    for frame, one in sorted(found, key=lambda pair: -pair[1].likeness):
        if one.row not in best and frame not in taken:
            best[one.row] = one
            taken.add(frame)
    return [best[row] for row in sorted(best)]


def read_points(frames: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Read the names of the N frames, and (N, 15, 2) of Kaggle's points in them."""
    with (frames / "landmarks.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    all68 = np.array([row[1:] for row in rows], np.float64).reshape(-1, 68, 2)
    kaggle = [all68[:, FROM_68[name]].mean(axis=1) for name in KAGGLE15.points]
    return [row[0] for row in rows], np.stack(kaggle, axis=1)


def _same_shapes(
    frames: NDArray[np.float64], rows: NDArray[np.float64], size: int
) -> Iterator[tuple[int, int, Square, float]]:
    """Yield (row, frame, crop, misfit) wherever a row's labelled points are a frame's, scaled and shifted."""
    labelled = ~np.isnan(rows).any(axis=2)
    for pattern in np.unique(labelled, axis=0):
        alike = np.flatnonzero((labelled == pattern).all(axis=1))
        theirs, ours = rows[alike][:, pattern], frames[:, pattern]
        their_shape, their_norm = _shapes(theirs)
        our_shape, our_norm = _shapes(ours)
        cosine = (their_shape @ our_shape.T).clip(-1, 1)
        # least squares over scale and shift leave the sine of the angle between the shapes
        misfit = their_norm[:, None] * np.sqrt((1 - cosine**2) / pattern.sum())
        for i, frame in np.argwhere((misfit < SAME_SHAPE) & (cosine > 0)):
            scale = cosine[i, frame] * their_norm[i] / our_norm[frame]
            left, top = ours[frame].mean(axis=0) + 0.5 - (theirs[i].mean(axis=0) + 0.5) / scale
            square = Square(float(left), float(top), float(size / scale))
            yield int(alike[i]), int(frame), square, float(misfit[i, frame])


def _likeness(picture: NDArray[np.uint8], square: Square, image: NDArray[np.uint8]) -> float:
    """Correlate a row's (S, S, C) image with the crop, where the crop lies inside of the picture.

    Outside, the rows are black, and `cut_square` repeats the edge.
    """
    size, _, channels = image.shape
    crop = cut_square(picture, square, size, channels)
    middles = (np.arange(size) + 0.5) * (square.side / size)
    rows = (middles + square.top > 0) & (middles + square.top < picture.shape[0])
    columns = (middles + square.left > 0) & (middles + square.left < picture.shape[1])
    inside = np.ix_(rows, columns)
    return float(np.corrcoef(crop[inside].ravel(), image[inside].ravel())[0, 1])


def _shapes(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take place and size off (N, K, 2) points: (N, 2 K) of length 1, and the sizes that were taken off."""
    centred = (points - points.mean(axis=1, keepdims=True)).reshape(len(points), -1)
    norm = np.linalg.norm(centred, axis=1)
    return centred / norm[:, None], norm


def main() -> None:
    """Say how many rows were matched, and how well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--frames", required=True, type=Path, help="folder with images/ and landmarks.csv")
    options = parser.parse_args()
    table = load_faces(options.data, default_cache())
    found = match(options.frames, table)
    misfit, likeness = (np.array([getattr(one, name) for one in found]) for name in ("misfit", "likeness"))
    print(f"{len(found):,} of {len(table):,} rows have their frame")
    print(f"misfit of the points: median {np.median(misfit):.1e} px, at most {misfit.max():.1e} px")
    print(f"correlation of the pixels: median {np.median(likeness):.4f}, at least {likeness.min():.4f}")


if __name__ == "__main__":
    main()
