"""What a table holds, and which of its labels a person should look at again.

Knows shapes and robust statistics. Knows nothing about files, networks or the terminal.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.table import FaceTable

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SUSPICIOUS = 6.0
"""Robust standard deviations from which a point is told: one of a thousand in ordinary data, or fewer."""

FEW_ROWS = 8  # fewer: no telling what is usual
MANY_ROWS = 2000  # more: the usual shape is found from so many, evenly drawn
LEAST_SPREAD = 0.02  # of the shape's radius: labels are no better than this, whatever the spread looks like
MODES = 4  # ways in which faces differ that are no mistake: turn, nod, mouth, build
ROWS_A_MODE = 15  # fewer rows can't tell a way in which faces differ from a mistake
APART = 0.3  # of the radius: points that usually lie nearer may well fall on one pixel


@dataclass(frozen=True)
class Suspicion:
    """A label to look at.

    Parameters
    ----------
    row
        The row's name.
    point
        The point, or None where several are meant, which `reason` then names.
    reason
        For a person.
    score
        Robust standard deviations from what is usual; the higher, the likelier a mistake.
    """

    row: str
    point: str | None
    reason: str
    score: float


@dataclass(frozen=True)
class Summary:
    """What a table holds.

    Parameters
    ----------
    rows, size, channels
        Faces, side of their images in pixels, 1 (gray) or 3 (RGB).
    labelled
        How many rows have each point, by name, in the order of the schema.
    complete
        Rows that have all points.
    duplicates
        Images that equal an earlier one byte for byte.
    suspicions
        The highest score first.
    """

    rows: int
    size: int
    channels: int
    labelled: dict[str, int]
    complete: int
    duplicates: int
    suspicions: tuple[Suspicion, ...]


def summarise(table: FaceTable) -> Summary:
    """Count what there is and look for labels that are hard to believe.

    Each face is laid on the usual shape by the similarity that fits most of its points (least absolute
    distances, so that a wrong point does not drag the others along). Told are:

    - points that lie `SUSPICIOUS` robust standard deviations from where that point usually lies
    - points that change places with their mirror image, and only so lie right
    - two points on one pixel that usually lie apart
    - points outside of the image

    The first three need `FEW_ROWS` rows with three points or more.
    """
    digests = {hashlib.sha256(image.tobytes()).digest() for image in table.images}
    counts = table.labelled.sum(0).tolist()
    found = [*_outside(table), *_odd_shapes(table)]
    return Summary(
        rows=len(table),
        size=table.size,
        channels=table.channels,
        labelled=dict(zip(table.schema.points, counts, strict=True)),
        complete=int(table.complete.sum()),
        duplicates=len(table) - len(digests),
        suspicions=tuple(sorted(found, key=lambda suspicion: -suspicion.score)),
    )


def _outside(table: FaceTable) -> Iterator[Suspicion]:
    points = table.points.astype(np.float64)
    over = np.maximum(-0.5 - points, points - (table.size - 0.5)).max(axis=2)  # px; NaN compares as False
    for row, point in np.argwhere(over > 0):
        x, y = points[row, point]
        name = table.schema.points[point]
        reason = f"{name} lies outside of the image, at ({x:.1f}, {y:.1f})"
        # as many deviations more as it lies per cent of the side outside
        yield Suspicion(
            table.names[row], name, reason, float(SUSPICIOUS + 100 * over[row, point] / table.size)
        )


# --- shapes ----------------------------------------------------------------------------------------


def _odd_shapes(table: FaceTable) -> Iterator[Suspicion]:
    """Compare each face with the usual one."""
    usable = np.flatnonzero(table.labelled.sum(1) >= 3)
    if len(usable) < FEW_ROWS:
        return
    labelled = table.labelled[usable]
    z = np.where(labelled, table.points[usable, :, 0] + 1j * table.points[usable, :, 1].astype(np.float64), 0)
    flip = list(table.schema.flip_index)
    shape = _usual_shape(z, labelled)
    laid, cost = _lay(z, labelled, shape)
    # a face whose left and right are swapped throughout is laid by its mirror names
    mirrored, mirrored_cost = _lay(z[:, flip], labelled[:, flip], shape)
    is_mirrored = (mirrored_cost < 0.5 * cost)[:, None]
    known = np.where(is_mirrored, labelled[:, flip], labelled)
    laid = _straighten(np.where(is_mirrored, mirrored, laid), known, shape)
    spread = _spread(laid, known, shape)
    laid = np.where(is_mirrored, laid[:, flip], laid)  # back to the names that the labels have
    scores = np.where(labelled, abs(laid - shape) / spread, 0)
    names, points = table.names, table.schema.points
    for row, face in enumerate(usable):
        name, told = names[face], set[int]()
        swapped = _swapped_pairs(laid[row], labelled[row], shape, scores[row], flip)
        if swapped:
            told.update(i for pair in swapped for i in pair)
            pairs = ", ".join(f"{points[a]} and {points[b]}" for a, b in swapped[:3])
            more = f" and {len(swapped) - 3} more pairs" if len(swapped) > 3 else ""
            score = max(scores[row, i] for i in told)
            yield Suspicion(name, None, f"{pairs}{more} look swapped", float(score))
        for a, b in _same_pixel(table.points[face], labelled[row], shape):
            told.update((a, b))
            score = max(SUSPICIOUS, scores[row, a], scores[row, b])
            yield Suspicion(name, None, f"{points[a]} and {points[b]} lie on the same pixel", float(score))
        for point in np.flatnonzero(scores[row] >= SUSPICIOUS):
            if int(point) not in told:
                score = float(scores[row, point])
                reason = f"{points[point]} lies {score:.0f} deviations from where it usually does"
                yield Suspicion(name, points[point], reason, score)


def _usual_shape(z: Complex, labelled: Mask) -> Complex:
    """Find the median shape by generalised Procrustes analysis (Gower 1975), (K,) with radius 1 about 0.

    Points that no row has are NaN.
    """
    drawn = np.unique(np.linspace(0, len(z) - 1, min(len(z), MANY_ROWS)).astype(int))
    z, labelled = z[drawn], labelled[drawn]
    counts = labelled.sum(1)
    most = counts >= 0.8 * counts.max()  # the first guess is from rows whose middle and size are comparable
    laid = z - (z.sum(1) / counts)[:, None]
    radius = np.sqrt((abs(laid) ** 2 * labelled).sum(1) / counts)
    laid /= np.maximum(radius, 1e-9)[:, None]
    shape = _median(laid[most], labelled[most])
    for _ in range(5):
        laid, _cost = _lay(z, labelled, shape)
        shape = _median(laid, labelled)
        shape -= np.nanmean(shape)
        shape /= max(float(np.sqrt(np.nanmean(abs(shape) ** 2))), 1e-9)  # all points on one
    return shape


def _median(laid: Complex, labelled: Mask) -> Complex:
    columns = [column[known] for column, known in zip(laid.T, labelled.T, strict=True)]
    return np.array([np.median(c.real) + 1j * np.median(c.imag) if len(c) else np.nan for c in columns])


def _lay(z: Complex, labelled: Mask, shape: Complex, rounds: int = 15) -> tuple[Complex, Floats]:
    """Lay faces on a shape by the similarity with the least absolute distances (reweighted least squares).

    Returns
    -------
    tuple
        (N, K) the faces in the shape's frame, and (N,) the mean distance in it.
    """
    known = labelled & ~np.isnan(shape)
    there = np.where(known, np.nan_to_num(shape), 0)
    weight = known.astype(np.float64)
    laid = z
    for _ in range(rounds):
        total = np.maximum(weight.sum(1), 1e-9)[:, None]
        z_mean = (weight * z).sum(1, keepdims=True) / total
        there_mean = (weight * there).sum(1, keepdims=True) / total
        apart = there - there_mean
        scatter = (weight * abs(apart) ** 2).sum(1, keepdims=True)
        step = (weight * (z - z_mean) * apart.conj()).sum(1, keepdims=True) / np.maximum(scatter, 1e-9)
        step = np.where(abs(step) < 1e-6, 1e-6, step)  # all points on one
        laid = (z - z_mean) / step + there_mean
        distance = np.where(known, abs(laid - there), 0)
        weight = known / np.maximum(distance, LEAST_SPREAD)
    return laid, distance.sum(1) / np.maximum(known.sum(1), 1)


def _straighten(laid: Complex, labelled: Mask, shape: Complex) -> Complex:
    """Take out of each face what turns of the head and expressions explain, (N, K).

    A turned head is no mistake and yet far from the median shape. So each face is explained by `MODES`
    principal components of all faces' distances from it (active shape model, Cootes et al. 1995), with a
    prior of their variances, and by one more similarity; with Huber's weights, so that a wrong point stays
    unexplained. What remains is added to the shape.
    """
    known = labelled & ~np.isnan(shape)
    away = _flat(np.where(known, laid - np.nan_to_num(shape), 0))
    spread = np.tile(_spread(laid, known, shape), 2)
    seen = np.tile(known, 2)
    counts = known.sum(1)
    most = counts >= 0.8 * counts.max()
    count = min(MODES, int(most.sum()) // ROWS_A_MODE)
    usual = np.clip(away[most], -3 * spread, 3 * spread)  # no single mistake shall make a component
    variances, modes = np.linalg.eigh(usual.T @ usual / len(usual))
    variances, modes = variances[len(variances) - count :], modes[:, modes.shape[1] - count :]
    at = np.nan_to_num(shape)
    ones = np.ones_like(at)
    similarity = _flat(np.stack([ones, 1j * ones, at, 1j * at]))
    basis = np.concatenate([similarity.T, modes], axis=1)
    prior = np.diag([1e-6] * 4 + [1 / max(float(variance), 1e-9) for variance in variances])
    products = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    remains = away
    for _ in range(15):
        distance = np.tile(np.hypot(*np.split(remains, 2, axis=1)), 2)
        weight = seen / (spread * np.maximum(spread, distance))
        gram = (weight @ products).reshape(-1, *prior.shape) + prior
        factors = np.linalg.solve(gram, ((weight * away) @ basis)[..., None])[..., 0]
        remains = away - factors @ basis.T
        x, y = np.split(remains, 2, axis=1)
        spread = np.tile(_spread(shape + x + 1j * y, known, shape), 2)
    return np.asarray(shape + x + 1j * y)


def _flat(z: Complex) -> Floats:
    """Put the x of all points before all y."""
    return np.concatenate([z.real, z.imag], axis=1)


def _spread(laid: Complex, labelled: Mask, shape: Complex) -> Floats:
    """Estimate each point's standard deviation about the shape, (K,), from quantiles of the distance.

    The median alone would call every open mouth a mistake where most are shut: so the greater of two
    estimates, of which the other stands up to mistakes in one row of ten.
    """
    columns = [abs(column - at)[known] for column, at, known in zip(laid.T, shape, labelled.T, strict=True)]
    # the distance from the middle of a round normal distribution is Rayleigh's: sqrt(-2 ln(1 - share))
    sigmas = [
        max(float(np.quantile(c, share) / np.sqrt(-2 * np.log(1 - share))) for share in (0.5, 0.9))
        if len(c)
        else 1.0
        for c in columns
    ]
    return np.maximum(sigmas, LEAST_SPREAD)


def _swapped_pairs(
    laid: Complex, labelled: Mask, shape: Complex, scores: Floats, flip: list[int]
) -> list[tuple[int, int]]:
    """List the pairs that lie right only the other way round."""
    pairs = []
    for a, b in enumerate(flip):
        if a < b and labelled[a] and labelled[b] and max(scores[a], scores[b]) >= SUSPICIOUS / 2:
            own = abs(laid[a] - shape[a]) + abs(laid[b] - shape[b])
            other = abs(laid[a] - shape[b]) + abs(laid[b] - shape[a])
            if other < 0.5 * own:
                pairs.append((a, b))
    return pairs


def _same_pixel(points: NDArray[np.float32], labelled: Mask, shape: Complex) -> Iterator[tuple[int, int]]:
    """Yield points that share a pixel and usually lie `APART`."""
    places = defaultdict(list)
    for point in np.flatnonzero(labelled):
        x, y = np.rint(points[point])
        places[float(x), float(y)].append(int(point))
    for there in places.values():
        for a, b in pairwise(there):
            if abs(shape[a] - shape[b]) > APART:
                yield a, b
