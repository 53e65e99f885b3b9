"""The sigmas of OKS: how accurately each landmark can be labeled, from a file or from the labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.shape_model import spaced
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.metrics import box_size, is_labeled
from landmarks_fastai.evaluation.pose import usual_shape
from landmarks_fastai.geometry import Complex, Floats, fit_similarity, to_complex
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.csv_reader import CsvReader
from landmarks_fastai.utils.files import write_csv
from landmarks_fastai.utils.text import suggest

Mask = NDArray[np.bool_]

COLUMNS = ("landmark", "sigma")
"""Columns of a file of sigmas."""

MIN_REPEATS = 20
"""Number of images that must be labeled more than once, to estimate the sigma of a landmark from these."""

MAX_REPEAT_DISTANCE = 0.25
"""Labels of one image whose median distance is larger, relative to the scale, are of different objects."""

MIN_SIGMA = 1e-3
"""Lower bound of a sigma: with 0, only exact predictions would count."""

NEIGHBORS = 12
"""Number of other landmarks from which the position of a landmark is predicted."""

MIN_ROWS = 60
"""Number of rows needed for this prediction."""

MAX_ROWS = 4000
"""It is fitted to at most this many rows, evenly spaced."""

FOLDS = 5
"""A row is predicted by a fit to the other folds."""

RIDGE = 1e-3
"""Regularization of this fit, relative to the mean variance of the neighbors."""

OUTLIER = 3.5
"""Rows whose neighbors, or whose residual in a first fit, deviate by more than this factor times the median
take no part in the fit."""


@dataclass(frozen=True, eq=False)
class Sigmas:
    """Standard deviation of the labels of each landmark, as a fraction of the object's scale (see `oks`).

    Parameters
    ----------
    values
        (K,); NaN where unknown.
    origin
        Where they come from, in words.
    """

    values: Floats
    origin: str


def read_sigmas(path: Path, schema: LandmarkSchema) -> Sigmas:
    """Read a CSV with the columns landmark and sigma, and one line for each landmark of a schema.

    Raises
    ------
    UserError
        If the file cannot be read, a landmark is unknown, missing or named twice, or a sigma is not a
        positive number.
    """
    try:
        with path.open("rb") as stream:
            found = _parse_sigmas(CsvReader(stream, str(path)), schema)
    except OSError as error:
        raise UserError(f"--sigmas {path}: cannot be read ({error.strerror or error})") from error
    missing = [name for name in schema.names if name not in found]
    if missing:
        raise UserError(
            f"{path}: no sigma for {missing[0]!r} ({len(missing)} of {len(schema)} landmarks are missing);"
            " add a line for each"
        )
    return Sigmas(np.array([found[name] for name in schema.names]), f"file {path}")


def _parse_sigmas(reader: CsvReader, schema: LandmarkSchema) -> dict[str, float]:
    for column in COLUMNS:
        if column not in reader.columns:
            raise UserError(f"{reader.source}: no column {column!r}; the columns must be landmark and sigma")
    landmark, sigma = (reader.columns.index(column) for column in COLUMNS)
    found: dict[str, float] = {}
    for line, fields in reader.rows():
        name = fields[landmark].strip()
        if name not in schema.names:
            raise UserError(f"{reader.at(line)}: no landmark {name[:40]!r}; {suggest(name, schema.names)}")
        if name in found:
            raise UserError(f"{reader.at(line)}: {name!r} occurs twice; remove one of the lines")
        value = reader.number(fields[sigma], line, "sigma")
        if not value > 0:
            raise UserError(
                f"{reader.at(line)}: sigma is {fields[sigma].strip()[:40]!r}; enter a fraction of the"
                " object's scale larger than 0, such as 0.025"
            )
        found[name] = value
    return found


def write_sigmas(path: Path, sigmas: Sigmas, schema: LandmarkSchema) -> None:
    """Write a file that `read_sigmas` reads, with the landmarks whose sigma is known."""
    known = [
        (name, f"{value:.6g}")
        for name, value in zip(schema.names, sigmas.values.tolist(), strict=True)
        if not math.isnan(value)
    ]
    write_csv(path, [COLUMNS, *known])


def estimate_sigmas(dataset: LandmarkDataset) -> Sigmas:
    """Estimate the sigmas from labels alone, so that they do not depend on the models to be evaluated.

    From the errors of the evaluated model they could be estimated, too, but then an inaccurate model had
    large sigmas and, with these, as good an OKS as an accurate one.

    If at least `MIN_REPEATS` images are labeled more than once, as in COCO, ``σ² = E[d² / s²]``, with
    the squared distances d² of the labels of one image from their mean (divided by their number minus one)
    and the scale s (`box_size`).

    Otherwise each landmark is predicted from its `NEIGHBORS` nearest other landmarks, in the coordinate
    system of the usual shape fitted to these, by linear ridge regression on other rows. Its residual contains
    the error of its label and whatever is individual about it. This sigma is therefore an upper bound of that
    of repeated labels if the errors of different landmarks are independent; it is too small for a landmark
    whose label was derived from others. An OKS computed with it compares models on the same data, but not
    with COCO's. ``σ² = median(d² / s²) / ln 2``, as for a normal distribution in the plane, which is robust
    against wrong labels.

    Returns
    -------
    Sigmas
        NaN for landmarks that are not labeled often enough.
    """
    repeated = _sigmas_of_repeated_labels(dataset)
    if repeated is not None:
        return repeated
    values = _sigmas_of_residuals(dataset.points.astype(np.float64), dataset.labeled, dataset.schema)
    return Sigmas(values, f"residuals of a linear shape model of {len(dataset):,} labeled rows")


# --- repeated labels -----------------------------------------------------------------------------


def _sigmas_of_repeated_labels(dataset: LandmarkDataset) -> Sigmas | None:
    """Return the sigmas from images that are labeled more than once; None if there are too few."""
    squares: list[list[float]] = [[] for _ in dataset.schema.names]
    for labels in _repeated_labels(dataset):
        area = float(np.nanmean(box_size(labels))) ** 2
        known = is_labeled(labels)
        for landmark in np.flatnonzero(known.sum(axis=0) >= 2).tolist():
            points = labels[known[:, landmark], landmark]
            variance = float(((points - points.mean(axis=0)) ** 2).sum()) / (len(points) - 1)
            squares[landmark].append(variance / area)
    used = np.flatnonzero(dataset.labeled.any(axis=0)).tolist()
    fewest = min((len(squares[landmark]) for landmark in used), default=0)
    if fewest < MIN_REPEATS:
        return None
    values = [math.sqrt(float(np.mean(column))) if column else math.nan for column in squares]
    return Sigmas(np.maximum(values, MIN_SIGMA), f"{fewest:,} images that are labeled more than once")


def _repeated_labels(dataset: LandmarkDataset) -> Iterator[Floats]:
    """Yield the different (R, K, 2) labels of each image with more than one."""
    _, inverse, counts = np.unique(dataset.images.ids, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(counts[inverse] > 1)
    if not len(candidates):
        return
    # one image may show several faces, so the crops must be the same, too
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in zip(candidates.tolist(), dataset.subset(candidates).image_digests(), strict=True):
        rows[digest].append(row)
    for same in rows.values():
        labels = dataset.points[same].astype(np.float64)
        # a copied row is not another opinion
        distinct = list({label.tobytes(): label for label in labels}.values())
        if len(distinct) > 1 and _show_one_object(np.stack(distinct)):
            yield np.stack(distinct)


def _show_one_object(labels: Floats) -> bool:
    """Return True if (R, K, 2) labels are close enough to be of one object."""
    distances = np.hypot(*np.moveaxis(labels[1:] - labels[0], -1, 0))
    scales = box_size(labels)
    known = distances[np.isfinite(distances)]
    if not len(known) or not np.isfinite(scales).any():
        return False
    return bool(np.median(known) < MAX_REPEAT_DISTANCE * float(np.nanmean(scales)))


# --- residuals of a shape model ------------------------------------------------------------------


def _sigmas_of_residuals(points: Floats, labeled: Mask, schema: LandmarkSchema) -> Floats:
    """Return the (K,) sigmas from the residuals of each landmark; see `estimate_sigmas`."""
    sigmas = np.full(points.shape[1], np.nan)
    shape = usual_shape(points, schema)
    scales = box_size(points)
    if shape is None:
        return sigmas
    positions = np.where(labeled, to_complex(points), 0)
    for landmark in range(len(sigmas)):
        neighbors = _neighbors(landmark, labeled, shape)
        rows = np.flatnonzero(labeled[:, [landmark, *neighbors]].all(axis=1) & np.isfinite(scales))
        rows = rows[spaced(len(rows), MAX_ROWS)]
        if len(neighbors) < 2 or len(rows) < MIN_ROWS:
            continue
        residuals = _residuals(positions[rows], shape, landmark, neighbors) / scales[rows]
        sigmas[landmark] = math.sqrt(float(np.median(residuals**2)) / math.log(2))
    return np.asarray(np.maximum(sigmas, MIN_SIGMA))


def _neighbors(landmark: int, labeled: Mask, shape: Complex) -> list[int]:
    """Return the nearest other landmarks that are labeled in most of the rows of a landmark."""
    rows = labeled[:, landmark]
    if not rows.any():
        return []
    usable = (labeled[rows].mean(axis=0) > 0.5) & ~np.isnan(shape)
    usable[landmark] = False
    candidates = np.flatnonzero(usable)
    order = np.argsort(abs(shape[candidates] - shape[landmark]), kind="stable")
    return [int(index) for index in candidates[order[:NEIGHBORS]]]


def _residuals(positions: Complex, shape: Complex, landmark: int, neighbors: Sequence[int]) -> Floats:
    """Return the (n,) distances in pixels of a landmark from its prediction by its neighbors."""
    others = list(neighbors)
    fit = fit_similarity(positions[:, others], shape[others], np.ones((len(positions), len(others))))
    usable = abs(fit.transform) > 1e-6
    scale = np.where(usable, abs(fit.transform), 1.0)
    rotation = np.where(usable, fit.transform, 1.0)

    def to_shape(points: Complex) -> Complex:
        return (points - fit.points_mean[:, None]) / rotation[:, None] + fit.shape_mean[:, None]

    deviations = to_shape(positions[:, others]) - shape[others]
    features = np.concatenate([deviations.real, deviations.imag], axis=1)
    target = to_shape(positions[:, [landmark]])[:, 0] - shape[landmark]
    predicted = _cross_predict(features, np.stack([target.real, target.imag], axis=1))
    return np.asarray(np.hypot(target.real - predicted[:, 0], target.imag - predicted[:, 1]) * scale)


def _cross_predict(features: Floats, targets: Floats) -> Floats:
    """Predict each row's (n, 2) targets by robust ridge regression on the rows of the other folds."""
    folds = np.arange(len(features)) % FOLDS
    # rows whose neighbors are wrong would have the largest influence on the fit
    is_usual = _inliers(np.sqrt((features**2).sum(axis=1)))
    predicted = np.empty_like(targets)
    for fold in range(FOLDS):
        train, test = (folds != fold) & is_usual, folds == fold
        x, y = features[train], targets[train]
        for _ in range(2):
            center, offset, weights = _fit_ridge(x, y)
            kept = _inliers(np.hypot(*(y - offset - (x - center) @ weights).T))
            x, y = x[kept], y[kept]
        predicted[test] = offset + (features[test] - center) @ weights
    return predicted


def _inliers(distances: Floats) -> Mask:
    """Return the mask of distances that are not much larger than most."""
    return np.asarray(distances <= OUTLIER * max(float(np.median(distances)), 1e-12))


def _fit_ridge(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the center of the features, the offset of the targets and the weights of a ridge regression."""
    center, offset = np.median(x, axis=0), np.median(y, axis=0)
    centered = x - center
    gram = centered.T @ centered / len(x)
    penalty = RIDGE * float(np.trace(gram)) / len(gram) + 1e-12
    weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), centered.T @ (y - offset) / len(x))
    return center, offset, np.asarray(weights)
