"""Metrics as ratios of sums over rows, so that they can be computed for any sample or group of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.evaluation.metrics import Floats, check_pair, is_labeled, nme
from landmarks_fastai.evaluation.oks import oks
from landmarks_fastai.evaluation.pck import PCK_THRESHOLDS, check_threshold, relative_distances

NME_THRESHOLDS = (0.08, 0.10)
"""NMEs at which failure rates and AUCs are computed."""


@dataclass(frozen=True, eq=False)
class RowMetric:
    """A metric that is the sum of its numerators divided by the sum of its denominators.

    Parameters
    ----------
    name
        Key in JSON: "rmse", "pck_0.05".
    label
        Heading in tables: "RMSE px", "PCK 5%".
    numerators, denominators
        (N,) parts of each row; both are 0 for a row that does not count.
    root
        The metric is the square root of the ratio.
    higher_is_better
        Whether larger values are better.
    percent
        Whether it is printed in percent.
    """

    name: str
    label: str
    numerators: Floats
    denominators: Floats
    root: bool = False
    higher_is_better: bool = False
    percent: bool = False

    def value(self) -> float:
        """Return the metric of all rows; NaN if none of them counts."""
        return float(self.ratio(self.numerators.sum(), self.denominators.sum()))

    def subset(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> RowMetric:
        """Return the metric of some rows."""
        return replace(self, numerators=self.numerators[rows], denominators=self.denominators[rows])

    def ratio(self, numerator: ArrayLike, denominator: ArrayLike) -> Floats:
        """Return the metric from sums; NaN where the denominator is 0."""
        top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
        ratio = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)
        # a sum of swapped squares (`comparison`) may be slightly below 0 by rounding
        return np.sqrt(np.maximum(ratio, 0.0)) if self.root else ratio


def row_metrics(
    pred: ArrayLike,
    true: ArrayLike,
    normalizer: ArrayLike,
    *,
    pck_thresholds: Sequence[float] = PCK_THRESHOLDS,
    sigmas: ArrayLike | None = None,
) -> tuple[RowMetric, ...]:
    """Return RMSE, NME, failure rates, AUCs, PCKs and, with sigmas, the mean OKS as sums over rows.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, (x, y) in pixels; NaN in `true` where a landmark is unlabeled.
    normalizer
        (N,) pixels, see `nme`.
    pck_thresholds
        Fractions of the normalizer.
    sigmas
        (K,), see `oks`; None without OKS.

    Returns
    -------
    tuple of RowMetric
        Their values equal those of `landmarks_fastai.evaluation.metrics`, `pck` and the mean of `oks`.

    Raises
    ------
    UserError
        If a threshold is not larger than 0.
    """
    pred, true = check_pair(pred, true)
    labeled = is_labeled(true)
    squares = np.where(labeled[..., None], (pred - true) ** 2, 0.0).sum(axis=(1, 2))
    errors = nme(pred, true, normalizer)
    metrics = [
        RowMetric("rmse", "RMSE px", squares, 2.0 * labeled.sum(axis=1), root=True),
        _mean_metric("nme", "NME", errors, percent=True),
    ]
    for limit in NME_THRESHOLDS:
        # comparisons with NaN are False, so NaN is put back
        is_failure = np.where(np.isnan(errors), np.nan, errors > limit)
        percent = f"{100 * limit:g}"
        metrics.append(_mean_metric(f"failure_rate_{percent}", f"fail {percent}%", is_failure, percent=True))
    for limit in NME_THRESHOLDS:
        area = np.maximum(0.0, 1.0 - errors / limit)
        metrics.append(
            _mean_metric(f"auc_{100 * limit:g}", f"AUC {100 * limit:g}%", area, higher_is_better=True)
        )
    distances = relative_distances(pred, true, normalizer)
    counts = (~np.isnan(distances)).sum(axis=1).astype(np.float64)
    for threshold in pck_thresholds:
        check_threshold(threshold)
        correct = (distances <= threshold).sum(axis=1).astype(np.float64)
        label = f"PCK {100 * threshold:g}%"
        metrics.append(
            RowMetric(f"pck_{threshold:g}", label, correct, counts, higher_is_better=True, percent=True)
        )
    if sigmas is not None:
        metrics.append(_mean_metric("oks", "OKS", oks(pred, true, sigmas), higher_is_better=True))
    return tuple(metrics)


def _mean_metric(
    name: str, label: str, values: Floats, *, higher_is_better: bool = False, percent: bool = False
) -> RowMetric:
    """Return the mean of (N,) values as a metric; NaN does not count."""
    known = ~np.isnan(values)
    return RowMetric(
        name,
        label,
        np.where(known, values, 0.0),
        known.astype(np.float64),
        higher_is_better=higher_is_better,
        percent=percent,
    )
