"""Roll and yaw of faces, estimated by fitting the usual shape of the labels to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.shape_model import MIN_LABELED, fit_shape_model, spaced
from landmarks_fastai.geometry import Complex, Floats, fit_similarity, to_complex
from landmarks_fastai.schema import LandmarkSchema

Mask = NDArray[np.bool_]

MAX_ROWS = 3000
"""The usual shape is computed from at most this many rows, evenly spaced."""

MIN_SCALE = 1e-6
"""Smaller scales are those of landmarks that coincide."""


@dataclass(frozen=True)
class Pose:
    """Pose of N faces, estimated from their labels; NaN where it is undefined.

    Parameters
    ----------
    roll
        (N,) degrees, clockwise as seen on the screen.
    yaw
        (N,) how far the unpaired landmarks (of a face: nose, middle of the mouth) are shifted to the right of
        the middle of the flip pairs, in units of half the mean distance within the pairs. It is 0 for a
        frontal face and grows with the tangent of the yaw, by a factor that depends on the depth of the
        object: it orders faces, but is not an angle.
    """

    roll: Floats
    yaw: Floats


def estimate_pose(points: NDArray[np.floating], schema: LandmarkSchema) -> Pose:
    """Estimate roll and yaw by fitting the usual shape to each face.

    The usual shape of all labels (`usual_shape`) is fitted to the labeled landmarks of each face by a
    similarity transform (`fit_similarity`), whose rotation is the roll. Yaw is measured in the coordinate
    system of the shape, and needs a labeled flip pair and a labeled landmark that is in no pair.

    Parameters
    ----------
    points
        (N, K, 2) labels, (x, y) in pixels; NaN where unlabeled.
    schema
        Names and flip pairs of the K landmarks.
    """
    shape = usual_shape(points, schema)
    if shape is None:
        return Pose(np.full(len(points), np.nan), np.full(len(points), np.nan))
    known = np.isfinite(points).all(axis=2) & ~np.isnan(shape)
    positions = np.where(known, to_complex(points), 0)
    fit = fit_similarity(positions, np.nan_to_num(shape), known)
    usable = (known.sum(axis=1) >= MIN_LABELED) & (abs(fit.transform) > MIN_SCALE)
    roll = np.where(usable, np.degrees(np.angle(fit.transform)), np.nan)
    upright = replace(fit, transform=np.where(usable, fit.transform, 1.0)).to_shape(positions)
    return Pose(roll, _asymmetry(upright.real, known & usable[:, None], np.array(schema.flip_index)))


def _asymmetry(x: Floats, known: Mask, flip: NDArray[np.int64]) -> Floats:
    """Return `Pose.yaw` from the (N, K) horizontal positions of upright faces."""
    order = np.arange(len(flip))
    is_first = flip > order
    pairs = known[:, is_first] & known[:, flip[is_first]]
    first, second = x[:, is_first], x[:, flip[is_first]]
    middles = _mean_of_known((first + second) / 2, pairs)
    half_widths = _mean_of_known(abs(first - second) / 2, pairs)
    unpaired = flip == order
    offsets = _mean_of_known(x[:, unpaired], known[:, unpaired]) - middles
    return np.where(half_widths > 1e-6, offsets / np.where(half_widths > 1e-6, half_widths, 1.0), np.nan)


def _mean_of_known(values: Floats, known: Mask) -> Floats:
    """Return the mean of the known values of each row; NaN if there are none."""
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


# --- the mean shape ------------------------------------------------------------------------------


def usual_shape(points: NDArray[np.floating], schema: LandmarkSchema) -> Complex | None:
    """Return the usual shape of labels (`fit_shape_model`), upright.

    Parameters
    ----------
    points
        (N, K, 2), (x, y) in pixels; NaN where unlabeled.
    schema
        Names and flip pairs of the K landmarks. With flip pairs, the shape is made symmetric and its axis
        vertical; without, it is rotated by the mean roll of the rows.

    Returns
    -------
    NDArray or None
        (K,) complex with a root mean square radius of about 1; NaN for landmarks that too few rows label.
        None if there is no usual shape, because no row has `MIN_LABELED` landmarks, or they all coincide.
    """
    labeled = np.isfinite(points).all(axis=2)
    rows = np.flatnonzero(labeled.sum(axis=1) >= MIN_LABELED)
    rows = rows[spaced(len(rows), MAX_ROWS)]
    if not len(rows):
        return None
    flip = list(schema.flip_index)
    positions, known = np.where(labeled[rows], to_complex(points[rows]), 0), labeled[rows]
    model = fit_shape_model(positions, known, flip)
    if model is None:
        return None
    shape = _symmetrize(model.shape, np.array(flip)) if schema.flip_pairs else model.shape
    shape = _level(shape, schema)
    fit = fit_similarity(positions, np.nan_to_num(shape), known & ~np.isnan(shape))
    transform = fit.transform[abs(fit.transform) > MIN_SCALE]
    direction = (transform / abs(transform)).sum()
    if schema.flip_pairs:  # the axis is known, but not which of its ends is up
        return np.asarray(-shape if direction.real < 0 else shape)
    return np.asarray(shape * (direction / abs(direction))) if abs(direction) > 0 else shape


def _symmetrize(shape: Complex, flip: NDArray[np.int64]) -> Complex:
    """Return the mean of a shape and of its mirror image, fitted to it."""
    mirrored = -shape.conj()[flip]
    known = ~np.isnan(shape) & ~np.isnan(mirrored)
    if known.sum() < 2:
        return shape
    fit = fit_similarity(np.where(known, shape, 0)[None], np.nan_to_num(mirrored), known[None])
    aligned = fit.points_mean + fit.transform * (mirrored - fit.shape_mean)
    return np.where(known, (shape + aligned) / 2, shape)


def _level(shape: Complex, schema: LandmarkSchema) -> Complex:
    """Rotate a shape so that the lines between its flip pairs are horizontal."""
    pairs = [schema.indices(pair) for pair in schema.flip_pairs]
    differences = np.array([shape[second] - shape[first] for first, second in pairs], np.complex128)
    # squared, because a line has no direction: opposite numbers have the same square
    total = np.nansum(differences**2)
    return np.asarray(shape / np.sqrt(total / abs(total))) if abs(total) > MIN_SCALE else shape
