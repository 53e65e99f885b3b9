"""Finding the video frame of faces68, and the crop in it, that became each row of the Kaggle-like data.

A scale and a shift map the 15 landmarks of the frame to those of the row, so the frame of a row is the one
whose landmarks have the same shape, and scale and shift give the crop. Frames with equal shapes are
distinguished by their pixels, which also verify every match.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.geometry import Crop, extract_crop, fit_similarity, to_complex
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.images import read_image

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
"""Indices of the iBUG landmarks whose mean is each of Kaggle's 15 landmarks."""

MAX_MISFIT = 1e-3
"""Maximum misfit of a match, pixels of the crop. True matches have about 5e-5, the rounding error of
single precision; for complete rows, the misfit of the second-best frame is thousands of times larger."""

MIN_CORRELATION = 0.9
"""Minimum correlation of the pixels of a match. All true matches exceed 0.96."""


@dataclass(frozen=True)
class Frame68:
    """A video frame, and the crop that became a row of the data set.

    Parameters
    ----------
    image
        File of the frame.
    row
        Row of the data set.
    crop
        The crop, pixels of the frame.
    points
        (15, 2) float64, Kaggle's landmarks in pixels of the frame, including those that the row lacks.
    correlation
        Correlation of the pixels of the crop with those of the row.
    misfit
        Root mean square distance of the row's landmarks from those of the frame, pixels of the crop.
    """

    image: Path
    row: int
    crop: Crop
    points: NDArray[np.float64]
    correlation: float
    misfit: float


def match_frames(folder: Path, dataset: LandmarkDataset) -> list[Frame68]:
    """Find the frame and the crop of each row.

    Parameters
    ----------
    folder
        Folder with images/ and landmarks.csv.
    dataset
        Kaggle-like data.

    Returns
    -------
    list of Frame68
        In the order of the rows, without those that match no frame; no row and no frame occurs twice.
    """
    names, points = read_landmarks(folder)
    candidates = []
    for row, frame, crop, misfit in _equal_shapes(points, dataset):
        path = folder / "images" / names[frame]
        correlation = _correlation(read_image(path), crop, dataset.images[row])
        if correlation > MIN_CORRELATION:
            candidates.append((frame, Frame68(path, row, crop, points[frame], correlation, misfit)))
    # where several frames have equal shapes, the true pairs correlate best
    matches: dict[int, Frame68] = {}
    used: set[int] = set()
    for frame, candidate in sorted(candidates, key=lambda pair: -pair[1].correlation):
        if candidate.row not in matches and frame not in used:
            matches[candidate.row] = candidate
            used.add(frame)
    return [matches[row] for row in sorted(matches)]


def describe_matches(frames: Sequence[Frame68], dataset: LandmarkDataset) -> str:
    """Return how many rows were matched, and how well, in one line."""
    misfit = np.array([frame.misfit for frame in frames])
    correlation = np.array([frame.correlation for frame in frames])
    return (
        f"{len(frames):,} of {len(dataset):,} rows have a frame; misfit: median {np.median(misfit):.1e} px,"
        f" at most {misfit.max():.1e} px; correlation: median {np.median(correlation):.4f}, at least"
        f" {correlation.min():.4f}"
    )


def select_rows(frames: Sequence[Frame68], rows: NDArray[np.int64]) -> list[Frame68]:
    """Return the frames of the given rows of the data set."""
    wanted = set(rows.tolist())
    return [frame for frame in frames if frame.row in wanted]


def read_landmarks(folder: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Return the file names of the N frames, and Kaggle's landmarks in them, (N, 15, 2) pixels."""
    with (folder / "landmarks.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    all68 = np.array([row[1:] for row in rows], np.float64).reshape(-1, 68, 2)
    kaggle = [all68[:, FROM_68[name]].mean(axis=1) for name in KAGGLE15.names]
    return [row[0] for row in rows], np.stack(kaggle, axis=1)


def _equal_shapes(
    frames: NDArray[np.float64], dataset: LandmarkDataset
) -> Iterator[tuple[int, int, Crop, float]]:
    """Yield (row, frame, crop, misfit) where a row's landmarks are a frame's, scaled and shifted."""
    weights = dataset.labeled
    rows = to_complex(np.nan_to_num(dataset.points.astype(np.float64)))
    for index, shape in enumerate(to_complex(frames)):
        fit = fit_similarity(rows, shape, weights)
        scale = fit.transform.real  # of the best fit without rotation, because the crops are upright
        predicted = fit.points_mean[:, None] + scale[:, None] * (shape - fit.shape_mean[:, None])
        misfit = np.sqrt((weights * np.abs(rows - predicted) ** 2).sum(axis=1) / weights.sum(axis=1))
        for row in np.flatnonzero((misfit < MAX_MISFIT) & (scale > 0)).tolist():
            corner = fit.shape_mean[row] + (0.5 + 0.5j) - (fit.points_mean[row] + (0.5 + 0.5j)) / scale[row]
            crop = Crop(float(corner.real), float(corner.imag), float(dataset.size / scale[row]))
            yield row, index, crop, float(misfit[row])


def _correlation(frame: NDArray[np.uint8], crop: Crop, image: NDArray[np.uint8]) -> float:
    """Correlate a row's (S, S, C) image with the crop where the crop lies inside the frame.

    Outside, the rows are black, while `extract_crop` repeats the edge pixels.
    """
    size, _, channels = image.shape
    extracted = extract_crop(frame, crop, size, channels)
    centers = (np.arange(size) + 0.5) * (crop.side / size)
    rows = (centers + crop.top > 0) & (centers + crop.top < frame.shape[0])
    columns = (centers + crop.left > 0) & (centers + crop.left < frame.shape[1])
    inside = np.ix_(rows, columns)
    return float(np.corrcoef(extracted[inside].ravel(), image[inside].ravel())[0, 1])
