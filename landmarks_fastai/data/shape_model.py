"""The usual shape of a data set's landmarks, robustly estimated, and the deviation of each row from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.geometry import Complex, Floats, fit_similarity

Mask = NDArray[np.bool_]

MIN_LABELED = 3
"""Minimum number of landmarks of a row that is compared with the usual shape."""

MIN_SPREAD = 0.02
"""Lower bound of the standard deviation of a landmark, relative to the root mean square radius of the shape:
the accuracy of labels."""

MODES = 4
"""Number of principal components that are attributed to pose and expression, not to label errors."""

ROWS_PER_MODE = 15
"""Minimum number of rows per principal component."""

ITERATIONS = 15
"""Maximum number of iterations of each reweighted least-squares fit."""

TOLERANCE = MIN_SPREAD / 10
"""A fit ends when an iteration moves no landmark by more, relative to the radius of the shape."""

SEEDS, PROBES = 40, 100
"""Number of rows that are tried as the initial shape, and of rows on which they are tried. With 70 % bad
rows, all seeds are bad with a probability of 6e-7."""

MIN_CONSENSUS = 0.2
"""Fraction of the rows that must agree on a shape: less than the 30 % of good rows that are left if 70 % are
bad, because it applies to a sample."""

CONSENSUS = 0.35
"""Rows with a mean distance below this from the shape, relative to its radius, always take part in its
estimation: the pose of a face changes it by less, and random landmarks are farther away."""

MIN_MIRRORED = 0.1
"""Rows with a smaller mean distance from the shape are not mirrored."""

MIRROR_RATIO = 0.5
"""A row is mirrored if its mirror image is closer to the shape by this factor."""


@dataclass(frozen=True)
class AlignedRows:
    """N rows in the coordinate system of a `ShapeModel`, after pose and expression are removed.

    Parameters
    ----------
    points
        (N, K) positions; a row whose landmarks are exchanged is aligned as its mirror image, and its
        landmarks are exchanged back.
    scores
        (N, K) distances from the shape in robust standard deviations; 0 where a landmark is not known.
    is_swapped
        (N,) mask of rows that fit the shape only if the landmarks of all flip pairs are exchanged.
    is_reflected
        (N,) mask of rows that fit the mirror image of the shape only: those that show the object from the
        other side.
    """

    points: Complex
    scores: Floats
    is_swapped: Mask
    is_reflected: Mask


@dataclass(frozen=True)
class ShapeModel:
    """Usual shape of K landmarks, and how they usually deviate from it.

    Parameters
    ----------
    shape
        (K,) positions x + iy with centroid 0 and root mean square radius 1; NaN for landmarks that too few
        rows label.
    spread
        (K,) robust standard deviation of each landmark about the shape, after pose and expression are
        removed.
    modes
        (2K, M) principal components of the deviations (all x, then all y).
    variances
        (M,) their variances.
    max_distance
        Mean distance from the shape up to which a row agrees with it, before its pose is removed.
    flip
        For each landmark, the index of its partner in a mirrored image.
    """

    shape: Complex
    spread: Floats
    modes: Floats
    variances: Floats
    max_distance: float
    flip: list[int]

    def exchanged(self) -> ShapeModel:
        """Return the model with the landmarks of each flip pair exchanged."""
        flip, modes = self.flip, self.modes.reshape(2, len(self.flip), -1)
        return replace(
            self,
            shape=self.shape[flip],
            spread=self.spread[flip],
            modes=modes[:, flip].reshape(self.modes.shape),
        )

    def align(self, points: Complex, labeled: Mask) -> AlignedRows:
        """Align rows with the shape and remove their pose and expression.

        Parameters
        ----------
        points
            (N, K) pixels, finite.
        labeled
            (N, K) mask of the landmarks that are compared.
        """
        posed = _align_either_way(points, labeled, self.shape, self.max_distance, self.flip)
        aligned = _remove_pose(posed.points, posed.known, self)
        aligned[posed.is_swapped] = aligned[posed.is_swapped][:, self.flip]
        known = labeled & ~np.isnan(self.shape)
        scores = np.where(known, abs(aligned - self.shape) / self.spread, 0)
        return AlignedRows(aligned, scores, posed.is_swapped, posed.is_reflected)


def fit_shape_model(points: Complex, labeled: Mask, flip: list[int]) -> ShapeModel | None:
    """Estimate the usual shape from rows of which a majority may be wrong.

    The shape on which most rows agree is found by trying rows as the shape (as random sample consensus does,
    Torr and Zisserman 2000, "MLESAC"). It is then refined to the median of the rows that agree, by
    generalized Procrustes analysis (Gower 1975). Up to `MODES` principal components of the deviations from it
    describe pose and expression (active shape model, Cootes et al. 1995).

    Parameters
    ----------
    points
        (N, K) pixels, finite; a sample of a few thousand rows is enough.
    labeled
        (N, K) mask of the landmarks that are used.
    flip
        For each landmark, the index of its partner in a mirrored image.

    Returns
    -------
    ShapeModel or None
        None if no shape is found on which `MIN_CONSENSUS` of the rows agree, because all landmarks coincide.
    """
    shape = _consensus_shape(points, labeled)
    if shape is None:
        return None
    for _ in range(8):
        aligned, distances = _align(points, labeled, shape)
        agree = distances <= _max_distance(distances)
        previous, shape = shape, _normalize(_median(aligned[agree], labeled[agree]))
        if np.nanmax(abs(shape - previous)) < TOLERANCE:
            break
    limit = _max_distance(_align(points, labeled, shape)[1])
    posed = _align_either_way(points, labeled, shape, limit, flip)
    agree = posed.distances <= limit
    aligned, known = posed.points[agree], posed.known[agree] & ~np.isnan(shape)
    spread = _spread(aligned, known, shape)
    modes, variances = _principal_components(aligned, known, shape, spread)
    model = ShapeModel(shape, spread, modes, variances, limit, flip)
    for _ in range(3):
        residuals = _remove_pose(aligned, known, model)
        model = replace(model, spread=_spread(residuals, known, shape))
    return model


# --- estimation of the shape ---------------------------------------------------------------------


def _consensus_shape(points: Complex, labeled: Mask) -> Complex | None:
    """Return the row, as a shape, with which most rows agree."""
    seeds = _seeds(points, labeled)
    if not seeds:
        return None
    probes = spaced(len(points), PROBES)
    distances = np.stack([_align(points[probes], labeled[probes], seed, 5)[1] for seed in seeds])
    # beyond twice the distance of the closest `MIN_CONSENSUS` of the rows, all rows count alike
    bound = 2 * max(float(np.quantile(distances, MIN_CONSENSUS, axis=1, method="lower").min()), MIN_SPREAD)
    if not np.isfinite(bound):
        return None
    return seeds[int(np.minimum(distances, bound).sum(axis=1).argmin())]


def _seeds(points: Complex, labeled: Mask) -> list[Complex]:
    """Return rows with many landmarks as shapes, with a median radius of 1; NaN where unlabeled."""
    counts = labeled.sum(axis=1)
    order = np.argsort(-counts, kind="stable")
    pool = np.sort(order[: max(int((counts >= 0.8 * counts.max()).sum()), min(SEEDS, len(order)))])
    seeds = []
    for row in pool[spaced(len(pool), SEEDS)].tolist():
        shape = np.where(labeled[row], points[row], np.nan)
        shape = shape - (np.nanmedian(shape.real) + 1j * np.nanmedian(shape.imag))
        # the median, because a landmark far away would make all others, and every distance from them, small
        radius = float(np.nanmedian(abs(shape)))
        if radius > 1e-6:
            seeds.append(shape / radius)
    return seeds


def _max_distance(distances: Floats) -> float:
    """Return up to which mean distance rows take part in the estimation, given those of all rows."""
    return max(CONSENSUS, 3 * float(np.quantile(distances, MIN_CONSENSUS, method="lower")))


def _normalize(shape: Complex) -> Complex:
    """Return a shape with centroid 0, root mean square radius 1 and its longest axis along x."""
    centered = shape - np.nanmean(shape)
    # so that medians and bounds along x and y do not depend on the rotation of the images
    rotated = centered * np.exp(-0.5j * np.angle(np.nansum(centered**2)))
    return np.asarray(rotated / max(float(np.sqrt(np.nanmean(abs(rotated) ** 2))), 1e-9))


def _median(aligned: Complex, labeled: Mask) -> Complex:
    """Return the median x and y of each landmark, (K,); NaN for landmarks that no row labels."""
    columns = [column[known] for column, known in zip(aligned.T, labeled.T, strict=True)]
    return np.array([np.median(c.real) + 1j * np.median(c.imag) if len(c) else np.nan for c in columns])


def _principal_components(
    aligned: Complex, known: Mask, shape: Complex, spread: Floats
) -> tuple[Floats, Floats]:
    """Return up to `MODES` principal components of the deviations, (2K, M), and their variances, (M,)."""
    counts = known.sum(axis=1)
    has_most = counts >= 0.8 * counts.max()
    n_modes = min(MODES, int(has_most.sum()) // ROWS_PER_MODE)
    deviations = _to_real(np.where(known, aligned - np.nan_to_num(shape), 0)[has_most])
    # clipped, so that a single wrong label does not determine a component
    bound = 3 * np.tile(spread, 2)
    clipped = np.clip(deviations, -bound, bound)
    variances, components = np.linalg.eigh(clipped.T @ clipped / len(clipped))
    return components[:, components.shape[1] - n_modes :], variances[len(variances) - n_modes :]


def _spread(aligned: Complex, known: Mask, shape: Complex) -> Floats:
    """Return the standard deviation of each landmark about the shape, (K,), from quantiles of the distance.

    It is the larger of two robust estimates. With the median alone, every open mouth would be an outlier if
    most are closed; the 90 % quantile tolerates errors in one of ten rows.
    """
    columns = [
        abs(column - center)[mask] for column, center, mask in zip(aligned.T, shape, known.T, strict=True)
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


# --- alignment -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Posed:
    """Rows aligned with a shape, those that fit its mirror image as mirror images.

    `known` is the mask of labeled landmarks after the exchange of the rows in `is_swapped`.
    """

    points: Complex
    known: Mask
    distances: Floats
    is_swapped: Mask
    is_reflected: Mask


def _align_either_way(
    points: Complex, labeled: Mask, shape: Complex, max_distance: float, flip: list[int]
) -> _Posed:
    """Align rows with a shape: with exchanged pairs, or reflected, if they fit much better so."""
    aligned, distances = _align(points, labeled, shape)
    known, is_swapped = labeled.copy(), np.zeros(len(points), bool)
    is_reflected = is_swapped.copy()
    exchanged = (points[:, flip], labeled[:, flip], is_swapped)
    candidates = [exchanged] if _has_pairs(flip) else []
    for tried, mask, flags in (*candidates, (points.conj(), labeled, is_reflected)):
        rows = np.flatnonzero((distances > MIN_MIRRORED) & ~is_swapped)
        # few iterations show whether the mirror image can be closer
        rows = rows[_align(tried[rows], mask[rows], shape, 4)[1] < distances[rows]]
        fitted, fitted_distances = _align(tried[rows], mask[rows], shape)
        better = fitted_distances < np.minimum(MIRROR_RATIO * distances[rows], max_distance)
        rows = rows[better]
        aligned[rows], distances[rows] = fitted[better], fitted_distances[better]
        known[rows], flags[rows] = mask[rows], True
    return _Posed(aligned, known & ~np.isnan(shape), distances, is_swapped, is_reflected)


def _has_pairs(flip: list[int]) -> bool:
    return flip != list(range(len(flip)))


def _align(
    points: Complex, labeled: Mask, shape: Complex, iterations: int = ITERATIONS
) -> tuple[Complex, Floats]:
    """Align rows with a shape by the similarities that minimize the sum of distances.

    They are computed by iteratively reweighted least squares.

    Returns
    -------
    tuple
        (N, K) the rows in the coordinate system of the shape, and (N,) the mean distance from it; infinite
        for rows with fewer than `MIN_LABELED` landmarks of the shape.
    """
    known = labeled & ~np.isnan(shape)
    target = np.nan_to_num(shape)
    aligned = np.zeros_like(points)
    distances = np.zeros(points.shape)
    weights = known.astype(np.float64)
    active = np.arange(len(points))
    for _ in range(iterations):
        fit = fit_similarity(points[active], target, weights[active])
        # bounded for rows whose landmarks all coincide
        transform = np.where(abs(fit.transform) < 1e-6, 1e-6, fit.transform)
        moved = replace(fit, transform=transform).to_shape(points[active])
        change = (abs(moved - aligned[active]) * known[active]).max(axis=1, initial=0)
        aligned[active] = moved
        distances[active] = np.where(known[active], abs(moved - target), 0)
        weights[active] = known[active] / np.maximum(distances[active], MIN_SPREAD)
        active = active[change > TOLERANCE]
        if not len(active):
            break
    counts = known.sum(axis=1)
    mean = distances.sum(axis=1) / np.maximum(counts, 1)
    return aligned, np.where(counts < MIN_LABELED, np.inf, mean)


def _remove_pose(aligned: Complex, known: Mask, model: ShapeModel) -> Complex:
    """Remove the part of each aligned row, (N, K), that pose and expression explain.

    A face seen from the side is far from the usual shape although its labels are right. Each row is therefore
    fitted by the principal components of the model, with their variances as prior, and by another similarity.
    The fit uses Huber weights, so that it does not follow a wrong landmark. The result is the shape plus the
    residuals.
    """
    target = np.nan_to_num(model.shape)
    deviations = _to_real(np.where(known, aligned - target, 0))
    spread, mask = np.tile(model.spread, 2), np.tile(known, 2)
    ones = np.ones_like(target)
    similarity = _to_real(np.stack([ones, 1j * ones, target, 1j * target]))
    basis = np.concatenate([similarity.T, model.modes], axis=1)
    prior = np.diag([1e-6] * 4 + [1 / max(float(variance), 1e-9) for variance in model.variances])
    products = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    residuals = deviations.copy()
    active = np.arange(len(aligned))
    for _ in range(ITERATIONS):
        distances = np.tile(np.hypot(*np.split(residuals[active], 2, axis=1)), 2)
        weights = mask[active] / (spread * np.maximum(spread, distances))
        gram = (weights @ products).reshape(-1, *prior.shape) + prior
        right = (weights * deviations[active]) @ basis
        coefficients = np.linalg.solve(gram, right[..., None])[..., 0]
        fitted = deviations[active] - coefficients @ basis.T
        change = (abs(fitted - residuals[active]) * mask[active]).max(axis=1, initial=0)
        residuals[active] = fitted
        active = active[change > TOLERANCE]
        if not len(active):
            break
    x, y = np.split(residuals, 2, axis=1)
    return np.asarray(model.shape + x + 1j * y)


def _to_real(points: Complex) -> Floats:
    """Return (N, K) complex points as (N, 2K): all x, then all y."""
    return np.concatenate([points.real, points.imag], axis=1)


def spaced(n: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` of the indices below n, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64)) if n else np.empty(0, np.int64)
