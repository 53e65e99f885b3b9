"""Search for suspicious labels: outside the image, on one pixel, swapped, or far from the median shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.geometry import Complex, Floats, fit_similarity, outside_square, to_complex

Mask = NDArray[np.bool_]

SUSPICIOUS = 6.0
"""Distance from the median shape, in robust standard deviations, from which a landmark is reported: about
0.1 % of correctly labeled landmarks."""

MIN_ROWS = 8
"""Minimum number of rows for a median shape."""

MAX_ROWS = 2000
"""The median shape is computed from at most this many rows, evenly spaced."""

MIN_SPREAD = 0.02
"""Lower bound of the standard deviation of a landmark, relative to the root mean square radius of the shape:
the accuracy of labels."""

MODES = 4
"""Number of principal components that are attributed to pose and expression, not to label errors."""

ROWS_PER_MODE = 15
"""Minimum number of rows per principal component."""

MIN_SEPARATION = 0.3
"""Landmarks that are closer in the median shape, relative to its radius, may share a pixel."""

ITERATIONS = 15
"""Iterations of each reweighted least-squares fit."""


@dataclass(frozen=True)
class LabelIssue:
    """A suspicious label.

    Parameters
    ----------
    row
        Name of the row.
    landmark
        Name of the landmark; None if the issue concerns several landmarks, which `reason` names.
    reason
        Explanation for the user.
    score
        Distance from the median shape in robust standard deviations; the higher, the more likely an error.
    """

    row: str
    landmark: str | None
    reason: str
    score: float


def find_label_issues(dataset: LandmarkDataset) -> list[LabelIssue]:
    """Return the suspicious labels, the highest score first.

    Each face is aligned with the median shape by a robust similarity fit (least absolute distances, so that a
    wrong landmark does not displace the others), and its pose and expression are removed. Reported are:

    - landmarks at least `SUSPICIOUS` robust standard deviations from their position in the median shape
    - flip pairs that fit the median shape only if their landmarks are exchanged
    - two landmarks on one pixel that are apart in the median shape
    - landmarks outside the image

    The first three checks need at least `MIN_ROWS` rows with at least three labeled landmarks.
    """
    issues = [*_landmarks_outside_image(dataset), *_unusual_shapes(dataset)]
    return sorted(issues, key=lambda issue: -issue.score)


def _landmarks_outside_image(dataset: LandmarkDataset) -> Iterator[LabelIssue]:
    for row, landmark in np.argwhere(outside_square(dataset.points, dataset.size)).tolist():
        x, y = dataset.points[row, landmark].tolist()
        distance = max(-0.5 - min(x, y), max(x, y) - (dataset.size - 0.5))
        name = dataset.schema.names[landmark]
        # one standard deviation more for each percent of the side by which it is outside
        score = SUSPICIOUS + 100 * distance / dataset.size
        yield LabelIssue(
            dataset.names[row], name, f"{name} is outside the image, at ({x:.1f}, {y:.1f})", score
        )


# --- shapes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AlignedFace:
    """A face aligned with the median shape.

    Parameters
    ----------
    name
        Name of the row.
    points
        (K, 2) pixels of the image.
    labeled
        (K,) mask.
    aligned
        (K,) positions in the coordinate system of the median shape, after pose and expression are removed.
    scores
        (K,) distances from the median shape in robust standard deviations; 0 where unlabeled.
    """

    name: str
    points: NDArray[np.float32]
    labeled: Mask
    aligned: Complex
    scores: Floats


def _unusual_shapes(dataset: LandmarkDataset) -> Iterator[LabelIssue]:
    """Yield the issues found by comparing each face with the median shape."""
    faces = dataset.subset(dataset.labeled.sum(axis=1) >= 3)
    if len(faces) < MIN_ROWS:
        return
    labeled, flip = faces.labeled, list(faces.schema.flip_index)
    points = np.where(labeled, to_complex(faces.points), 0)
    shape = _median_shape(points, labeled)
    aligned, spread = _align_dataset(points, labeled, shape, flip)
    scores = np.where(labeled, abs(aligned - shape) / spread, 0)
    for row, name in enumerate(faces.names):
        face = _AlignedFace(name, faces.points[row], labeled[row], aligned[row], scores[row])
        yield from _face_issues(face, shape, flip, faces.schema.names)


def _align_dataset(points: Complex, labeled: Mask, shape: Complex, flip: list[int]) -> tuple[Complex, Floats]:
    """Align all faces with the median shape and remove pose and expression.

    Returns
    -------
    tuple
        (N, K) the aligned faces, and (K,) the robust standard deviation of each landmark.
    """
    aligned, distance = _align(points, labeled, shape)
    # a face whose flip pairs are all swapped is aligned as its mirror image, with exchanged names
    mirrored, mirrored_distance = _align(points[:, flip], labeled[:, flip], shape)
    is_mirrored = (mirrored_distance < 0.5 * distance)[:, None]
    known = np.where(is_mirrored, labeled[:, flip], labeled)
    aligned = _remove_pose(np.where(is_mirrored, mirrored, aligned), known, shape)
    spread = _spread(aligned, known, shape)
    return np.where(is_mirrored, aligned[:, flip], aligned), spread


def _face_issues(
    face: _AlignedFace, shape: Complex, flip: list[int], names: Sequence[str]
) -> Iterator[LabelIssue]:
    """Yield the issues of one face; a landmark that is swapped or shares a pixel is not reported twice."""
    reported = set[int]()
    swapped = _swapped_pairs(face, shape, flip)
    if swapped:
        reported.update(landmark for pair in swapped for landmark in pair)
        pairs = ", ".join(f"{names[a]} and {names[b]}" for a, b in swapped[:3])
        more = f" and {len(swapped) - 3} more pairs" if len(swapped) > 3 else ""
        score = float(max(face.scores[landmark] for landmark in reported))
        yield LabelIssue(face.name, None, f"{pairs}{more} look swapped", score)
    for a, b in _pairs_on_one_pixel(face, shape):
        reported.update((a, b))
        score = float(max(SUSPICIOUS, face.scores[a], face.scores[b]))
        yield LabelIssue(face.name, None, f"{names[a]} and {names[b]} are on the same pixel", score)
    for landmark in np.flatnonzero(face.scores >= SUSPICIOUS).tolist():
        if landmark not in reported:
            score = float(face.scores[landmark])
            reason = f"{names[landmark]} is {score:.0f} standard deviations from its usual position"
            yield LabelIssue(face.name, names[landmark], reason, score)


def _median_shape(points: Complex, labeled: Mask) -> Complex:
    """Return the median shape by generalized Procrustes analysis (Gower 1975).

    Returns
    -------
    NDArray
        (K,) with centroid 0 and root mean square radius 1; NaN for landmarks that no row labels.
    """
    rows = np.unique(np.linspace(0, len(points) - 1, min(len(points), MAX_ROWS)).astype(int))
    points, labeled = points[rows], labeled[rows]
    counts = labeled.sum(axis=1)
    # the initial shape is that of rows with many landmarks, whose centroids and radii are comparable
    has_most = counts >= 0.8 * counts.max()
    aligned = points - (points.sum(axis=1) / counts)[:, None]
    radius = np.sqrt((abs(aligned) ** 2 * labeled).sum(axis=1) / counts)
    aligned /= np.maximum(radius, 1e-9)[:, None]
    shape = _median(aligned[has_most], labeled[has_most])
    for _ in range(5):
        aligned, _distance = _align(points, labeled, shape)
        shape = _median(aligned, labeled)
        shape -= np.nanmean(shape)
        shape /= max(float(np.sqrt(np.nanmean(abs(shape) ** 2))), 1e-9)
    return shape


def _median(aligned: Complex, labeled: Mask) -> Complex:
    """Return the median x and y of each landmark, (K,); NaN for landmarks that no row labels."""
    columns = [column[known] for column, known in zip(aligned.T, labeled.T, strict=True)]
    return np.array([np.median(c.real) + 1j * np.median(c.imag) if len(c) else np.nan for c in columns])


def _align(points: Complex, labeled: Mask, shape: Complex) -> tuple[Complex, Floats]:
    """Align faces with a shape by the similarities that minimize the sum of distances.

    They are computed by iteratively reweighted least squares.

    Returns
    -------
    tuple
        (N, K) the faces in the coordinate system of the shape, and (N,) the mean distance from it.
    """
    known = labeled & ~np.isnan(shape)
    target = np.nan_to_num(shape)
    weights = known.astype(np.float64)
    for _ in range(ITERATIONS):
        fit = fit_similarity(points, target, weights)
        # bounded for faces whose landmarks all coincide
        transform = np.where(abs(fit.transform) < 1e-6, 1e-6, fit.transform)
        aligned = replace(fit, transform=transform).to_shape(points)
        distances = np.where(known, abs(aligned - target), 0)
        weights = known / np.maximum(distances, MIN_SPREAD)
    return aligned, distances.sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _remove_pose(aligned: Complex, labeled: Mask, shape: Complex) -> Complex:
    """Remove the part of each aligned face, (N, K), that head pose and expression explain.

    A face seen from the side is far from the median shape although its labels are right. Each face is
    therefore fitted by up to `MODES` principal components of the deviations of all faces (active shape model,
    Cootes et al. 1995), with their variances as prior, and by another similarity. The fit uses Huber weights,
    so that it does not follow a wrong landmark. The result is the shape plus the residuals.
    """
    known = labeled & ~np.isnan(shape)
    deviations = _to_real(np.where(known, aligned - np.nan_to_num(shape), 0))
    spread = np.tile(_spread(aligned, known, shape), 2)
    mask = np.tile(known, 2)
    modes, variances = _principal_components(deviations, known, spread)
    target = np.nan_to_num(shape)
    ones = np.ones_like(target)
    similarity = _to_real(np.stack([ones, 1j * ones, target, 1j * target]))
    basis = np.concatenate([similarity.T, modes], axis=1)
    prior = np.diag([1e-6] * 4 + [1 / max(float(variance), 1e-9) for variance in variances])
    products = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    residuals = deviations
    for _ in range(ITERATIONS):
        distances = np.tile(np.hypot(*np.split(residuals, 2, axis=1)), 2)
        weights = mask / (spread * np.maximum(spread, distances))
        gram = (weights @ products).reshape(-1, *prior.shape) + prior
        coefficients = np.linalg.solve(gram, ((weights * deviations) @ basis)[..., None])[..., 0]
        residuals = deviations - coefficients @ basis.T
        x, y = np.split(residuals, 2, axis=1)
        spread = np.tile(_spread(shape + x + 1j * y, known, shape), 2)
    return np.asarray(shape + x + 1j * y)


def _principal_components(deviations: Floats, known: Mask, spread: Floats) -> tuple[Floats, Floats]:
    """Return up to `MODES` principal components of (N, 2K) deviations, (2K, M), and their variances, (M,)."""
    counts = known.sum(axis=1)
    has_most = counts >= 0.8 * counts.max()
    n_modes = min(MODES, int(has_most.sum()) // ROWS_PER_MODE)
    # clipped, so that a single wrong label does not determine a component
    clipped = np.clip(deviations[has_most], -3 * spread, 3 * spread)
    variances, components = np.linalg.eigh(clipped.T @ clipped / len(clipped))
    return components[:, components.shape[1] - n_modes :], variances[len(variances) - n_modes :]


def _to_real(points: Complex) -> Floats:
    """Return (N, K) complex points as (N, 2K): all x, then all y."""
    return np.concatenate([points.real, points.imag], axis=1)


def _spread(aligned: Complex, labeled: Mask, shape: Complex) -> Floats:
    """Return the standard deviation of each landmark about the shape, (K,), from quantiles of the distance.

    It is the larger of two robust estimates. With the median alone, every open mouth would be an outlier if
    most are closed; the 90 % quantile tolerates errors in one of ten rows.
    """
    columns = [
        abs(column - center)[known] for column, center, known in zip(aligned.T, shape, labeled.T, strict=True)
    ]
    sigmas = [
        max(_sigma_from_quantile(c, 0.5), _sigma_from_quantile(c, 0.9)) if len(c) else 1.0 for c in columns
    ]
    return np.maximum(sigmas, MIN_SPREAD)


def _sigma_from_quantile(distances: Floats, fraction: float) -> float:
    """Estimate the standard deviation along each axis of a 2-D isotropic normal distribution.

    The distance from its center has a Rayleigh distribution with the quantile function
    sigma * sqrt(-2 ln(1 - fraction)).
    """
    return float(np.quantile(distances, fraction) / np.sqrt(-2 * np.log(1 - fraction)))


def _swapped_pairs(face: _AlignedFace, shape: Complex, flip: list[int]) -> list[tuple[int, int]]:
    """Return the flip pairs that fit the shape only if they are exchanged."""
    pairs = []
    for a, b in enumerate(flip):
        is_far = max(face.scores[a], face.scores[b]) >= SUSPICIOUS / 2
        if a < b and face.labeled[a] and face.labeled[b] and is_far:
            distance = abs(face.aligned[a] - shape[a]) + abs(face.aligned[b] - shape[b])
            exchanged = abs(face.aligned[a] - shape[b]) + abs(face.aligned[b] - shape[a])
            if exchanged < 0.5 * distance:
                pairs.append((a, b))
    return pairs


def _pairs_on_one_pixel(face: _AlignedFace, shape: Complex) -> Iterator[tuple[int, int]]:
    """Yield pairs of landmarks that share a pixel but are more than `MIN_SEPARATION` apart in the shape."""
    pixels = defaultdict(list)
    for landmark in np.flatnonzero(face.labeled).tolist():
        x, y = np.rint(face.points[landmark]).tolist()
        pixels[x, y].append(landmark)
    for landmarks in pixels.values():
        for a, b in pairwise(landmarks):
            if abs(shape[a] - shape[b]) > MIN_SEPARATION:
                yield a, b
