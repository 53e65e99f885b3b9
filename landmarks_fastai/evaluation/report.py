"""The report of an evaluation: scores of all faces, of groups of faces, of each landmark and of each face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import Calibration, measure_calibration
from landmarks_fastai.evaluation.metrics import (
    Floats,
    auc,
    box_size,
    check_pair,
    failure_rate,
    inter_ocular_distance,
    is_labeled,
    known_values,
    l1,
    mean_or_nan,
    nme,
    normalizing_distance,
    rmse,
)
from landmarks_fastai.evaluation.visibility import VisibilityReport, evaluate_visibility
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from landmarks_fastai.data.dataset import LandmarkDataset
    from landmarks_fastai.landmarks import Landmarks

INTER_OCULAR, BOX, LANDMARKS = "inter_ocular", "box", "landmarks"
"""Normalizers of the NME."""

DIGITS = 6
"""Decimal places of numbers in JSON."""


@dataclass(frozen=True)
class Scores:
    """Scores of a group of faces; pixels are those of the evaluated images, and NaN means undefined.

    Parameters
    ----------
    faces
        Number of faces.
    faces_with_nme
        Number of faces that can be normalized; NME, failure rates and AUC are computed from these.
    l1, rmse
        Pixels.
    nme_inter_ocular, nme_box
        Mean NME for each normalizer, as a fraction.
    failure_rate_8, failure_rate_10, auc_8, auc_10
        At an NME of 0.08 and 0.10 with the report's normalizer.
    nme
        Mean NME with the report's normalizer, as a fraction.
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
    nme: float


@dataclass(frozen=True)
class LandmarkScores:
    """Scores of one landmark over all faces, in pixels; NaN if it is labeled in no face.

    Parameters
    ----------
    name
        Name of the landmark.
    labeled
        Number of faces in which it is labeled.
    mean_distance
        Mean distance of prediction and label.
    rmse
        Root mean squared error of its coordinates.
    bias_x, bias_y
        Mean of prediction minus label; positive is to the right and down.
    p95
        95th percentile of the distances.
    """

    name: str
    labeled: int
    mean_distance: float
    rmse: float
    bias_x: float
    bias_y: float
    p95: float


@dataclass(frozen=True, eq=False)
class Report:
    """Result of an evaluation.

    Parameters
    ----------
    schema
        Name of the schema.
    normalizer
        The normalizer of `nme`, the failure rates and the AUCs: "landmarks", the distance between the
        landmarks that the schema names for it; if it names none, "inter_ocular"; if it has no eyes, "box".
    image_size
        Side of the evaluated images in pixels; all errors in pixels refer to images of this size.
    overall, complete, partial
        Scores of all faces, of those with every landmark labeled, and of the others.
    landmarks
        Scores of each landmark, in the order of the schema.
    nme
        (N,) NME of each face as a fraction; NaN if it cannot be normalized.
    distances
        (N,) the normalizing distance of each face in pixels; NaN if it is undefined.
    calibration
        Calibration of the model's confidence; None if it does not estimate confidence.
    visibility
        Errors of visible and occluded landmarks, and scores of the predicted visibility; None if the labels
        do not distinguish them.
    """

    schema: str
    normalizer: str
    image_size: int
    overall: Scores
    complete: Scores
    partial: Scores
    landmarks: tuple[LandmarkScores, ...]
    nme: Floats
    distances: Floats
    calibration: Calibration | None = None
    visibility: VisibilityReport | None = None

    @property
    def normalizer_name(self) -> str:
        """The normalizer in words, for tables and plots."""
        names = {
            BOX: "box size",
            INTER_OCULAR: "inter-ocular distance",
            LANDMARKS: "normalizing distance of the schema",
        }
        return names[self.normalizer]

    def mean_nme(self, scores: Scores) -> float:
        """Return the mean NME of a group of faces with the report's normalizer."""
        return scores.nme

    def worst(self, n: int) -> tuple[int, ...]:
        """Return the indices of the `n` faces with the largest NME, the largest first."""
        order = np.argsort(-self.nme, kind="stable")  # NaN sorts to the end
        return tuple(int(i) for i in order[: np.isfinite(self.nme).sum()][:n])

    def to_dict(self, per_face: bool = False) -> dict[str, Any]:
        """Return the report as JSON-serializable values: at most 6 decimals, None for NaN.

        Parameters
        ----------
        per_face
            Include the NME of each face.
        """
        entries: dict[str, Any] = {
            "schema": self.schema,
            "normalizer": self.normalizer,
            "image_size": self.image_size,
            "overall": _to_plain(asdict(self.overall)),
            "complete": _to_plain(asdict(self.complete)),
            "partial": _to_plain(asdict(self.partial)),
            "landmarks": [_to_plain(asdict(scores)) for scores in self.landmarks],
            "calibration": None if self.calibration is None else _to_plain(asdict(self.calibration)),
        }
        if self.visibility is not None:
            entries["visibility"] = self.visibility.to_dict()
        if per_face:
            entries["nme"] = [_rounded(value) for value in self.nme.tolist()]
        return entries


def evaluate_dataset(predicted: Landmarks, dataset: LandmarkDataset) -> Report:
    """Evaluate the predicted landmarks of a data set.

    Parameters
    ----------
    predicted
        Landmarks of the N rows, in pixels of the data set's images. The landmarks of the data set must be
        among them.
    dataset
        N rows with labels.

    Raises
    ------
    UserError
        See `Landmarks.select` and `evaluate_landmarks`.
    """
    selected = predicted.select(dataset.schema)
    report = evaluate_landmarks(
        selected.points, dataset.points, dataset.schema, dataset.complete, dataset.size, selected.scales
    )
    return replace(report, visibility=evaluate_visibility(selected, dataset))


def evaluate_landmarks(
    pred: ArrayLike,
    true: ArrayLike,
    schema: LandmarkSchema,
    complete: ArrayLike,
    image_size: int,
    scales: ArrayLike | None = None,
) -> Report:
    """Evaluate predicted points against labels.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels of the images; NaN in `true` where a landmark is unlabeled.
    schema
        Names of the K landmarks.
    complete
        (N,) bool: the rows that are reported as complete; the others are reported as partial.
    image_size
        Side of the images in pixels.
    scales
        (N, K) predicted scales in pixels (`Landmarks.scales`); NaN where unknown. None: no calibration.

    Returns
    -------
    Report
        Scores of all rows, of both groups, of each landmark and of each face.

    Raises
    ------
    UserError
        If the shapes do not agree, nothing is labeled or a prediction is not a number.
    """
    pred, true = check_pair(pred, true)
    is_complete = np.asarray(complete, bool)
    _check_input(pred, true, schema, is_complete)
    inter_ocular_nme = nme(pred, true, inter_ocular_distance(true, schema))
    box_nme = nme(pred, true, box_size(true))
    distances = normalizing_distance(true, schema)
    normalized = nme(pred, true, distances)

    def scores(rows: NDArray[np.bool_]) -> Scores:
        return Scores(
            faces=int(rows.sum()),
            faces_with_nme=len(known_values(normalized[rows])),
            l1=l1(pred[rows], true[rows]),
            rmse=rmse(pred[rows], true[rows]),
            nme_inter_ocular=mean_or_nan(known_values(inter_ocular_nme[rows])),
            nme_box=mean_or_nan(known_values(box_nme[rows])),
            failure_rate_8=failure_rate(normalized[rows], 0.08),
            failure_rate_10=failure_rate(normalized[rows], 0.10),
            auc_8=auc(normalized[rows], 0.08),
            auc_10=auc(normalized[rows], 0.10),
            nme=mean_or_nan(known_values(normalized[rows])),
        )

    return Report(
        schema=schema.name,
        normalizer=_normalizer(schema),
        image_size=image_size,
        overall=scores(np.ones(len(true), bool)),
        complete=scores(is_complete),
        partial=scores(~is_complete),
        landmarks=_landmark_scores(pred, true, schema.names),
        nme=normalized,
        distances=distances,
        calibration=None if scales is None else measure_calibration(pred, true, scales, image_size),
    )


def _normalizer(schema: LandmarkSchema) -> str:
    """Return which distance `normalizing_distance` is; see `Report`."""
    if schema.normalizer is not None:
        return LANDMARKS
    return BOX if schema.eyes is None else INTER_OCULAR


def _check_input(pred: Floats, true: Floats, schema: LandmarkSchema, complete: NDArray[np.bool_]) -> None:
    """Raise a UserError if the input cannot be evaluated; see `evaluate_landmarks`."""
    if true.shape[1] != len(schema):
        raise UserError(
            f"schema {schema.name} has {len(schema)} landmarks, but the faces have {true.shape[1]}"
        )
    if complete.shape != (len(true),):
        raise UserError(f"{len(true)} faces need {len(true)} values of complete, not shape {complete.shape}")
    labeled = is_labeled(true)
    if not labeled.any():
        raise UserError("no landmark is labeled: evaluation needs labels")
    not_finite = np.argwhere(~np.isfinite(pred).all(axis=2) & labeled)
    if len(not_finite):
        face, landmark = not_finite[0]
        raise UserError(
            f"the prediction of {schema.names[landmark]!r} in face {face} is not a number"
            f" ({format_count(len(not_finite), 'such value')}): the model has diverged; train it with a lower"
            " learning rate"
        )


def _landmark_scores(pred: Floats, true: Floats, names: Sequence[str]) -> tuple[LandmarkScores, ...]:
    rows = []
    for index, name in enumerate(names):
        differences = (pred[:, index] - true[:, index])[is_labeled(true[:, index])]
        distances = np.hypot(differences[:, 0], differences[:, 1])
        rows.append(
            LandmarkScores(
                name=name,
                labeled=len(distances),
                mean_distance=mean_or_nan(distances),
                rmse=math.sqrt(mean_or_nan(differences**2)),
                bias_x=mean_or_nan(differences[:, 0]),
                bias_y=mean_or_nan(differences[:, 1]),
                p95=float(np.percentile(distances, 95)) if len(distances) else math.nan,
            )
        )
    return tuple(rows)


def _to_plain(entries: dict[str, Any]) -> dict[str, Any]:
    return {key: _rounded(value) for key, value in entries.items()}


def _rounded(value: Any) -> Any:
    """Return a value as JSON: floats rounded and NaN as None, a tuple of dictionaries as a list."""
    if isinstance(value, tuple):
        return [_to_plain(entry) for entry in value]
    if not isinstance(value, float):
        return value
    return round(value, DIGITS) if math.isfinite(value) else None
