"""From predicted and true points to numbers: errors, curves and the report that `evaluate` prints.

Knows arrays and the schema only: nothing about models, files or pictures. A point is labelled where
both its true coordinates are numbers; every other point is masked, never filled. A prediction that is
not a number is not masked: a diverged model must not look good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.calibration import Calibration, calibrate
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import Schema

Floats = NDArray[np.float64]


def l1(pred: ArrayLike, true: ArrayLike) -> float:
    """Mean absolute coordinate error in px, the loss that the origin trained with.

    ``mean(|pred - true|)`` over every labelled coordinate of every face, x and y alike.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, x then y, px; NaN in `true` where a point is unlabelled.

    Returns
    -------
    float
        px; NaN where nothing is labelled.
    """
    return _mean(np.abs(_labelled_differences(pred, true)))


def rmse(pred: ArrayLike, true: ArrayLike) -> float:
    """Root mean squared coordinate error in px, as Kaggle scores Facial Keypoints Detection.

    ``sqrt(mean((pred - true)²))`` over every labelled coordinate of all faces together: not the mean
    of each face's own RMSE, so that a face with 15 points weighs more than one with 4
    (https://www.kaggle.com/c/facial-keypoints-detection/overview/evaluation).

    Parameters
    ----------
    pred, true
        (N, K, 2) points, x then y, px; NaN in `true` where a point is unlabelled.

    Returns
    -------
    float
        px; NaN where nothing is labelled.
    """
    return math.sqrt(_mean(_labelled_differences(pred, true) ** 2))


def point_distances(pred: ArrayLike, true: ArrayLike) -> Floats:
    """Euclidean distance from each predicted point to the true one.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, x then y, px; NaN in `true` where a point is unlabelled.

    Returns
    -------
    NDArray[np.float64]
        (N, K) px; NaN where the point is unlabelled.
    """
    pred, true = _pair(pred, true)
    distances = np.hypot(*np.moveaxis(pred - true, -1, 0))
    return np.where(_labelled(true), distances, np.nan)


def inter_ocular_distance(true: ArrayLike, schema: Schema) -> Floats:
    """Distance between the means of the schema's two groups of eye points.

    For kaggle15 these are the two labelled eye centres. For ibug68 they are the means of the six
    points round each eye, hence the inter-pupil style of normaliser (Ren et al. 2014, "Face Alignment
    at 3000 FPS", CVPR). The 300-W challenge itself divides by the distance of the outer eye corners,
    ibug68's points 36 and 45 (Sagonas et al. 2016, "300 Faces In-The-Wild Challenge: database and
    results", Image and Vision Computing 47), which is longer and so gives a smaller NME: numbers by
    the two are not comparable. A third normaliser is `box_size`.

    Parameters
    ----------
    true
        (N, K, 2) points, x then y, px; NaN where unlabelled.
    schema
        Names the eye points.

    Returns
    -------
    NDArray[np.float64]
        (N,) px; NaN where an eye point is unlabelled, the eyes coincide or the schema has none.
    """
    true = _points(true)
    if schema.inter_ocular is None:
        return np.full(len(true), np.nan)
    # a mean of NaN is NaN: half an eye has its centre elsewhere, so it does not count as an eye
    first, second = (true[:, schema.indices(eye)].mean(axis=1) for eye in schema.inter_ocular)
    distance = np.hypot(*np.moveaxis(first - second, -1, 0))
    return np.where(distance > 0, distance, np.nan)


def box_size(true: ArrayLike) -> Floats:
    """Size of the upright box round a face's labelled points: ``sqrt(width · height)``.

    The normaliser of Bulat & Tzimiropoulos 2017, "How far are we from solving the 2D & 3D Face
    Alignment problem?" (ICCV, arXiv:1703.07332). It depends on which points are labelled: compare
    only faces that are labelled alike.

    Parameters
    ----------
    true
        (N, K, 2) points, x then y, px; NaN where unlabelled.

    Returns
    -------
    NDArray[np.float64]
        (N,) px; NaN where fewer than 3 points are labelled or the box has no area.
    """
    true = _points(true)
    labelled = _labelled(true)
    low = np.where(labelled[..., None], true, np.inf).min(axis=1)
    high = np.where(labelled[..., None], true, -np.inf).max(axis=1)
    enough = labelled.sum(axis=1) >= 3
    sides = np.where(enough[:, None], high, 0.0) - np.where(enough[:, None], low, 0.0)
    size = np.sqrt(sides.prod(axis=1))
    return np.where(size > 0, size, np.nan)


def nme(pred: ArrayLike, true: ArrayLike, normaliser: ArrayLike) -> Floats:
    """Normalised mean error of each face: ``mean(distance over its labelled points) / normaliser``.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, x then y, px; NaN in `true` where a point is unlabelled.
    normaliser
        (N,) px: `inter_ocular_distance` or `box_size` of the true points.

    Returns
    -------
    NDArray[np.float64]
        (N,) as a fraction (0.05 is "5 %"); NaN where no point is labelled or the normaliser is not a
        positive number.
    """
    distances = point_distances(pred, true)
    labelled = _labelled(_points(true))
    counts = labelled.sum(axis=1)
    sums = np.where(labelled, distances, 0.0).sum(axis=1)
    divisor = np.asarray(normaliser, np.float64)
    if divisor.shape != counts.shape:
        raise UserError(f"{len(counts)} faces need {len(counts)} normalisers, not {divisor.shape}")
    usable = (counts > 0) & (divisor > 0) & np.isfinite(divisor)
    return np.where(usable, sums / np.where(usable, counts * divisor, 1.0), np.nan)


def failure_rate(nme: ArrayLike, threshold: float) -> float:
    """Share of faces whose NME is larger than `threshold`: ``mean(nme > threshold)``.

    Failures at 8 % as in 300-W (Sagonas et al. 2016), at 10 % as in WFLW (Wu et al. 2018, "Look at
    Boundary", CVPR). A face whose NME equals the threshold did not fail.

    Parameters
    ----------
    nme
        (N,) NMEs as fractions; NaN (a face that can't be normalised) is left out.
    threshold
        A fraction: 0.08 is "8 %".

    Returns
    -------
    float
        In [0, 1]; NaN where no face has an NME.
    """
    return _mean((_known(nme) > threshold).astype(np.float64))


def auc(nme: ArrayLike, threshold: float) -> float:
    """Area under the cumulative error distribution from 0 to `threshold`, divided by `threshold`.

    Exact, not a sum over bins: the CED is a step function, and each face adds the part of the range
    that lies above its error, ``mean(max(0, 1 - nme / threshold))``. The measure of 300-VW and of
    Bulat & Tzimiropoulos 2017; 1 is perfect.

    Parameters
    ----------
    nme
        (N,) NMEs as fractions; NaN (a face that can't be normalised) is left out.
    threshold
        A fraction larger than 0: 0.08 is "8 %".

    Returns
    -------
    float
        In [0, 1]; NaN where no face has an NME.
    """
    if not threshold > 0:
        raise UserError(f"the threshold of an AUC must be larger than 0, not {threshold}")
    return _mean(np.maximum(0.0, 1.0 - _known(nme) / threshold))


def ced(nme: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Cumulative error distribution: the share of faces whose NME is at most each threshold.

    Parameters
    ----------
    nme
        (N,) NMEs as fractions; NaN (a face that can't be normalised) is left out.
    thresholds
        (T,) fractions, in any order.

    Returns
    -------
    NDArray[np.float64]
        (T,) in [0, 1]; NaN where no face has an NME.
    """
    known = np.sort(_known(nme))
    at = np.asarray(thresholds, np.float64)
    if not len(known):
        return np.full(at.shape, np.nan)
    return np.searchsorted(known, at, side="right") / len(known)


@dataclass(frozen=True)
class Scores:
    """What a group of faces scored. Px are those of the evaluated images; NaN where there is nothing.

    Parameters
    ----------
    faces
        How many rows the group has.
    faces_with_nme
        How many of them could be normalised; NME, failure rates and AUC are over these.
    l1, rmse
        In px.
    nme_inter_ocular, nme_box
        Means over the faces, as fractions.
    failure_rate_8, failure_rate_10, auc_8, auc_10
        At NMEs of 0.08 and 0.10 by the report's normaliser.
    """

    faces: int
    faces_with_nme: int
    l1: float
    rmse: float
    nme_inter_ocular: float
    nme_box: float
    failure_rate_8: float
    failure_rate_10: float
    auc_8: float
    auc_10: float


@dataclass(frozen=True)
class PointScores:
    """What one landmark scored over all faces, in px. NaN where it is labelled nowhere.

    Parameters
    ----------
    name
        What the schema calls it.
    labelled
        In how many faces it has a label.
    mean_distance, rmse
        Mean distance, and root mean squared error of its coordinates.
    bias_x, bias_y
        Mean of predicted minus true: positive means too far right, too far down.
    p95
        95 % of the distances are at most this.
    """

    name: str
    labelled: int
    mean_distance: float
    rmse: float
    bias_x: float
    bias_y: float
    p95: float


@dataclass(frozen=True, eq=False)
class Report:
    """How well points were found, over all faces, by group, by landmark and by face.

    Parameters
    ----------
    schema
        Name of the schema.
    normaliser
        ``"inter_ocular"``, or ``"box"`` where the schema has no eyes: what `nme`, the failure rates
        and the AUCs divide by.
    image_size
        Side of the images that the px belong to.
    overall, complete, partial
        Scores of all rows, of those with every point labelled, and of the others.
    points
        Scores of each landmark, in the schema's order.
    nme
        (N,) NME of each face as a fraction; NaN where it can't be normalised.
    calibration
        How far the model's confidence can be believed; None where it has none.
    """

    schema: str
    normaliser: str
    image_size: int
    overall: Scores
    complete: Scores
    partial: Scores
    points: tuple[PointScores, ...]
    nme: Floats
    calibration: Calibration | None = None

    @property
    def divided_by(self) -> str:
        """What NMEs are divided by, in words."""
        return "box size" if self.normaliser == "box" else "inter-ocular distance"

    def mean_nme(self, scores: Scores) -> float:
        """Return the mean NME of some of the rows, by the report's own normaliser."""
        return scores.nme_box if self.normaliser == "box" else scores.nme_inter_ocular

    def worst(self, n: int) -> tuple[int, ...]:
        """Return the indices of the `n` faces with the largest NME, the worst first."""
        order = np.argsort(-self.nme, kind="stable")  # NaN sorts to the end
        return tuple(int(i) for i in order[: np.isfinite(self.nme).sum()][:n])

    def to_dict(self, per_face: bool = False) -> dict[str, Any]:
        """Return the report as JSON has it: plain numbers of at most 6 decimals, None for NaN.

        Parameters
        ----------
        per_face
            Whether to add the NME of each face, in the rows' order.
        """
        entries: dict[str, Any] = {
            "schema": self.schema,
            "normaliser": self.normaliser,
            "image_size": self.image_size,
            "overall": _plain(asdict(self.overall)),
            "complete": _plain(asdict(self.complete)),
            "partial": _plain(asdict(self.partial)),
            "points": [_plain(asdict(point)) for point in self.points],
            "calibration": None if self.calibration is None else _plain(asdict(self.calibration)),
        }
        if per_face:
            entries["nme"] = [_rounded(value) for value in self.nme.tolist()]
        return entries


def evaluate_points(
    pred: ArrayLike,
    true: ArrayLike,
    schema: Schema,
    complete: ArrayLike,
    image_size: int,
    scales: ArrayLike | None = None,
) -> Report:
    """Judge predicted points by true ones.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, x then y, px of the images; NaN in `true` where a point is unlabelled.
    schema
        What the K points are called.
    complete
        (N,) bool: the rows that are reported as complete, apart from the others.
    image_size
        Side of the images, px; goes into the report, so that its px can be read.
    scales
        (N, K) Laplace scales of the errors along x and along y, px; NaN where the model knows none. None
        where they are not to be judged.

    Returns
    -------
    Report
        All numbers, over all rows and by group, landmark and face.

    Raises
    ------
    UserError
        If shapes do not agree, nothing is labelled or a prediction is not a number.
    """
    pred, true = _pair(pred, true)
    mask = np.asarray(complete, bool)
    if true.shape[1] != len(schema):
        raise UserError(f"schema {schema.name} has {len(schema)} points, but the faces have {true.shape[1]}")
    if mask.shape != (len(true),):
        raise UserError(f"{len(true)} faces need {len(true)} marks for complete rows, not {mask.shape}")
    labelled = _labelled(true)
    if not labelled.any():
        raise UserError("no point is labelled: there is nothing to evaluate by")
    broken = np.argwhere(~np.isfinite(pred).all(axis=2) & labelled)
    if len(broken):
        face, point = broken[0]
        raise UserError(
            f"the prediction of {schema.points[point]!r} in face {face} is not a number"
            f" ({len(broken)} such points): the model has diverged, train it with a lower learning rate"
        )

    by_eyes, by_box = nme(pred, true, inter_ocular_distance(true, schema)), nme(pred, true, box_size(true))
    normaliser = "box" if schema.inter_ocular is None else "inter_ocular"
    judged = by_box if schema.inter_ocular is None else by_eyes

    def scores(rows: NDArray[np.bool_]) -> Scores:
        return Scores(
            faces=int(rows.sum()),
            faces_with_nme=len(_known(judged[rows])),
            l1=l1(pred[rows], true[rows]),
            rmse=rmse(pred[rows], true[rows]),
            nme_inter_ocular=_mean(_known(by_eyes[rows])),
            nme_box=_mean(_known(by_box[rows])),
            failure_rate_8=failure_rate(judged[rows], 0.08),
            failure_rate_10=failure_rate(judged[rows], 0.10),
            auc_8=auc(judged[rows], 0.08),
            auc_10=auc(judged[rows], 0.10),
        )

    return Report(
        schema=schema.name,
        normaliser=normaliser,
        image_size=image_size,
        overall=scores(np.ones(len(true), bool)),
        complete=scores(mask),
        partial=scores(~mask),
        points=_by_point(pred, true, schema.points),
        nme=judged,
        calibration=None if scales is None else calibrate(pred, true, scales, image_size),
    )


def _by_point(pred: Floats, true: Floats, names: Sequence[str]) -> tuple[PointScores, ...]:
    rows = []
    for k, name in enumerate(names):
        differences = (pred[:, k] - true[:, k])[_labelled(true[:, k])]
        distances = np.hypot(differences[:, 0], differences[:, 1])
        rows.append(
            PointScores(
                name=name,
                labelled=len(distances),
                mean_distance=_mean(distances),
                rmse=math.sqrt(_mean(differences**2)),
                bias_x=_mean(differences[:, 0]),
                bias_y=_mean(differences[:, 1]),
                p95=float(np.percentile(distances, 95)) if len(distances) else math.nan,
            )
        )
    return tuple(rows)


def _points(points: ArrayLike) -> Floats:
    array = np.asarray(points, np.float64)
    if array.ndim != 3 or array.shape[2] != 2:
        raise UserError(f"points must be (N, K, 2), not {array.shape}")
    return array


def _pair(pred: ArrayLike, true: ArrayLike) -> tuple[Floats, Floats]:
    found, wanted = _points(pred), _points(true)
    if found.shape != wanted.shape:
        raise UserError(f"predicted and true points must agree, not {found.shape} and {wanted.shape}")
    return found, wanted


def _labelled(true: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(true).all(axis=-1))


def _labelled_differences(pred: ArrayLike, true: ArrayLike) -> Floats:
    found, wanted = _pair(pred, true)
    labelled = _labelled(wanted)
    return found[labelled] - wanted[labelled]


def _known(nme: ArrayLike) -> Floats:
    values = np.asarray(nme, np.float64)
    return values[~np.isnan(values)]


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


def _plain(entries: dict[str, Any]) -> dict[str, Any]:
    return {key: _rounded(value) for key, value in entries.items()}
