"""COCO's average precision of landmarks, computed by faster-coco-eval (extra ``coco``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.metrics import box_size, is_labeled
from landmarks_fastai.evaluation.sigmas import Sigmas
from landmarks_fastai.landmarks import Landmarks

MISSING = "COCO AP needs faster-coco-eval: pip install 'landmarks-fastai[coco]'"

UNUSED_SIGMA = 1.0
"""Sigma of a landmark without one; its labels are not passed on, so it has no effect."""


@dataclass(frozen=True)
class CocoScores:
    """COCO's scores of landmarks, for objects of all sizes.

    Every row is an image with one object and one detection, predicted in the crop of the label. These are
    therefore the scores of the landmarks alone, without a detector.

    Parameters
    ----------
    objects
        Number of objects; those without a box of labeled landmarks are left out.
    ap
        Mean of the average precisions at OKS thresholds 0.50, 0.55 … 0.95.
    ap_50, ap_75
        Average precision at these thresholds.
    ar
        Mean of the recalls at the ten thresholds.
    """

    objects: int
    ap: float
    ap_50: float
    ap_75: float
    ar: float


def coco_scores(predicted: Landmarks, true: NDArray[np.floating], sigmas: Sigmas) -> CocoScores:
    """Return COCO's average precision and recall.

    The score by which detections are sorted is the mean confidence of the landmarks; 1 for all if the model
    does not estimate it.

    Parameters
    ----------
    predicted
        Landmarks of N rows.
    true
        (N, K, 2) labels in pixels; NaN where unlabeled.
    sigmas
        The sigmas of the K landmarks; those without one are left out.

    Raises
    ------
    UserError
        If faster-coco-eval is not installed, or no row can be evaluated.
    """
    check_coco_available()
    from faster_coco_eval import COCO, COCOeval_faster

    known = np.isfinite(sigmas.values)
    labels = np.asarray(true, np.float64)
    labeled = is_labeled(labels) & known
    rows = np.flatnonzero(np.isfinite(box_size(labels)) & labeled.any(axis=1))
    if not len(rows):
        raise UserError("COCO AP: no row has a box of labeled landmarks that have a sigma; use --sigmas FILE")
    truth, detections = _to_coco(predicted, labels, labeled, rows)
    ground_truth = COCO(truth)
    evaluation = COCOeval_faster(
        ground_truth,
        ground_truth.loadRes(detections),
        iouType="keypoints",
        kpt_oks_sigmas=np.where(known, sigmas.values, UNUSED_SIGMA).tolist(),
        print_function=_ignore,
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ap, ap_50, ap_75, _, _, ar = (float(value) for value in evaluation.stats[:6])
    return CocoScores(len(rows), ap, ap_50, ap_75, ar)


def check_coco_available() -> None:
    """Raise UserError if faster-coco-eval is not installed."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError as error:
        raise UserError(MISSING) from error


def _to_coco(
    predicted: Landmarks, labels: NDArray[np.float64], labeled: NDArray[np.bool_], rows: NDArray[np.int64]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return labels as a COCO data set, and predictions as COCO results."""
    areas = box_size(labels) ** 2
    confidence = predicted.confidence.astype(np.float64)
    known = np.isfinite(confidence)
    counts = known.sum(axis=1)
    scores = np.where(counts > 0, np.where(known, confidence, 0).sum(axis=1) / np.maximum(counts, 1), 1.0)
    annotations, results = [], []
    for row in rows.tolist():
        points = np.where(labeled[row, :, None], labels[row], 0.0)
        corners = labels[row][is_labeled(labels[row])]
        low, high = corners.min(axis=0), corners.max(axis=0)
        annotations.append(
            {
                "id": row + 1,  # COCO's matching takes 0 for "not matched"
                "image_id": row,
                "category_id": 1,
                "iscrowd": 0,
                "area": float(areas[row]),
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "num_keypoints": int(labeled[row].sum()),
                "keypoints": np.column_stack([points, 2.0 * labeled[row]]).ravel().tolist(),
            }
        )
        found = predicted.points[row].astype(np.float64)
        flat = np.column_stack([found, np.ones(len(found))]).ravel().tolist()
        results.append({"image_id": row, "category_id": 1, "keypoints": flat, "score": float(scores[row])})
    images = [{"id": row} for row in rows.tolist()]
    categories = [{"id": 1, "name": "object", "keypoints": list(predicted.schema.names), "skeleton": []}]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def _ignore(*_: object) -> None:
    """Print nothing."""
