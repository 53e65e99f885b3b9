"""The analysis of an evaluation: PCK, OKS, COCO AP, confidence intervals, and the scores of slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.bootstrap import (
    FEW_GROUPS,
    LEVEL,
    SEED,
    Interval,
    bootstrap_intervals,
    number_of_replicates,
)
from landmarks_fastai.evaluation.coco_ap import CocoScores, coco_scores
from landmarks_fastai.evaluation.pck import PCK_THRESHOLDS
from landmarks_fastai.evaluation.report import DIGITS, Report
from landmarks_fastai.evaluation.row_groups import RowGroups
from landmarks_fastai.evaluation.row_metrics import RowMetric, row_metrics
from landmarks_fastai.evaluation.sigmas import Sigmas
from landmarks_fastai.evaluation.slices import Slice
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.text import format_count


@dataclass(frozen=True)
class MeasuredMetric:
    """A metric of some rows.

    Parameters
    ----------
    value
        NaN if undefined.
    interval
        Its 95 % confidence interval.
    """

    value: float
    interval: Interval


@dataclass(frozen=True, eq=False)
class SliceScores:
    """Scores of a slice.

    Parameters
    ----------
    by, value
        See `Slice`.
    faces, groups
        Number of its rows and of their groups.
    metrics
        Each metric by name.
    """

    by: str
    value: str
    faces: int
    groups: int
    metrics: dict[str, MeasuredMetric]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a report adds to the scores of all rows; see `analyze`.

    Parameters
    ----------
    row_metrics
        The metrics as sums over rows: their names, labels and directions.
    metrics
        Value and interval of each metric by name.
    groups
        Groups of the rows, the units of the intervals.
    landmarks
        Names of the K landmarks.
    sigmas
        Sigmas of the OKS; None if they are not known, and there is no OKS.
    coco
        COCO's scores; None if they were not asked for.
    slices
        Scores of each slice.
    """

    row_metrics: tuple[RowMetric, ...]
    metrics: dict[str, MeasuredMetric]
    groups: RowGroups
    landmarks: tuple[str, ...]
    sigmas: Sigmas | None
    coco: CocoScores | None
    slices: tuple[SliceScores, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that explain what the numbers rest on, for the user."""
        count = self.groups.count
        notes = [f"95% intervals by a bootstrap over {count:,} {self.groups.origin}"]
        if count < FEW_GROUPS:
            notes.append(f"intervals of fewer than {FEW_GROUPS} groups are too narrow to rely on")
        if self.sigmas is None:
            notes.append(
                "no OKS: too few labels to estimate the sigmas from; name a file of them with --sigmas"
            )
        else:
            notes.append(f"sigmas of the OKS: {self.sigmas.origin}")
            without = [
                name
                for name, sigma in zip(self.landmarks, self.sigmas.values, strict=True)
                if np.isnan(sigma)
            ]
            if without:
                notes.append(
                    f"the OKS leaves out {format_count(len(without), 'landmark')} with too few labels to"
                    f" estimate a sigma, such as {without[0]!r}"
                )
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """Return the analysis as JSON-serializable values: at most 6 decimals, None for NaN."""
        values, intervals = _plain_metrics(self.metrics)
        thresholds = {name.removeprefix("pck_"): value for name, value in values.items() if "pck_" in name}
        return {
            "pck": thresholds,
            "oks": values.get("oks"),
            "sigmas": None if self.sigmas is None else _plain_sigmas(self.sigmas, self.landmarks),
            "coco": None if self.coco is None else _plain_values(asdict(self.coco)),
            "intervals": {
                "level": LEVEL,
                "replicates": number_of_replicates(self.groups.count),
                "seed": SEED,
                "groups": self.groups.count,
                "grouping": self.groups.origin,
                **intervals,
            },
            "slices": [_plain_slice(scores) for scores in self.slices],
        }


def analyze(
    report: Report,
    predicted: Landmarks,
    dataset: LandmarkDataset,
    groups: RowGroups,
    *,
    sigmas: Sigmas | None = None,
    slices: Sequence[Slice] = (),
    pck_thresholds: Sequence[float] = PCK_THRESHOLDS,
    coco: bool = False,
) -> Analysis:
    """Analyze the predicted landmarks of a data set.

    Parameters
    ----------
    report
        The report of the same predictions, whose normalizer is used.
    predicted
        Landmarks of the N rows in the schema of the data set.
    dataset
        N rows with labels.
    groups
        Groups of these rows.
    sigmas
        Sigmas of the OKS; None without OKS.
    slices
        Slices of these rows (`make_slices`).
    pck_thresholds
        Thresholds of the PCK, as fractions of the normalizer.
    coco
        Compute COCO's average precision; needs `sigmas`.

    Raises
    ------
    UserError
        If a threshold is not larger than 0, or COCO's average precision cannot be computed.
    """
    if sigmas is not None and np.isnan(sigmas.values).all():
        sigmas = None
    if coco and sigmas is None:
        raise UserError(
            "--coco-ap: too few labels to estimate the sigmas from; name a file of them with --sigmas"
        )
    metrics = metrics_of(report, predicted, dataset, sigmas, pck_thresholds)
    return Analysis(
        row_metrics=metrics,
        metrics=_measure(metrics, groups.numbers),
        groups=groups,
        landmarks=dataset.schema.names,
        sigmas=sigmas,
        coco=coco_scores(predicted, dataset.points, sigmas) if coco and sigmas else None,
        slices=tuple(_score_slice(metrics, groups.numbers, one) for one in slices if one.rows.any()),
    )


def metrics_of(
    report: Report,
    predicted: Landmarks,
    dataset: LandmarkDataset,
    sigmas: Sigmas | None,
    pck_thresholds: Sequence[float] = PCK_THRESHOLDS,
) -> tuple[RowMetric, ...]:
    """Return the metrics of a report as sums over rows; see `row_metrics`."""
    return row_metrics(
        predicted.points,
        dataset.points,
        report.distances,
        pck_thresholds=pck_thresholds,
        sigmas=None if sigmas is None else sigmas.values,
    )


def _measure(metrics: Sequence[RowMetric], groups: NDArray[np.int64]) -> dict[str, MeasuredMetric]:
    intervals = bootstrap_intervals(metrics, groups)
    return {
        metric.name: MeasuredMetric(metric.value(), interval)
        for metric, interval in zip(metrics, intervals, strict=True)
    }


def _score_slice(metrics: Sequence[RowMetric], groups: NDArray[np.int64], one: Slice) -> SliceScores:
    chosen = groups[one.rows]
    return SliceScores(
        by=one.by,
        value=one.value,
        faces=int(one.rows.sum()),
        groups=len(np.unique(chosen)),
        metrics=_measure([metric.subset(one.rows) for metric in metrics], chosen),
    )


# --- JSON ----------------------------------------------------------------------------------------


def _plain_slice(scores: SliceScores) -> dict[str, Any]:
    values, intervals = _plain_metrics(scores.metrics)
    return {
        "by": scores.by,
        "value": scores.value,
        "faces": scores.faces,
        "groups": scores.groups,
        "metrics": values,
        "intervals": intervals,
    }


def _plain_metrics(
    metrics: dict[str, MeasuredMetric],
) -> tuple[dict[str, float | None], dict[str, list[float | None]]]:
    """Return the values and the intervals by name."""
    values = {name: _plain(one.value) for name, one in metrics.items()}
    intervals = {name: [_plain(one.interval.low), _plain(one.interval.high)] for name, one in metrics.items()}
    return values, intervals


def _plain_sigmas(sigmas: Sigmas, names: Sequence[str]) -> dict[str, Any]:
    values = {name: _plain(value) for name, value in zip(names, sigmas.values.tolist(), strict=True)}
    return {"origin": sigmas.origin, "values": values}


def _plain_values(entries: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) if isinstance(value, float) else value for key, value in entries.items()}


def _plain(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None
