"""Confidence intervals by a bootstrap over groups of rows.

Rows of one person or scene are not independent, and treating them as if they were makes intervals too narrow.
Whole groups are therefore drawn with replacement (cluster bootstrap: Davison & Hinkley 1997, "Bootstrap
Methods and their Application", section 3.8; Field & Welsh 2007, "Bootstrapping clustered data", JRSS B 69),
and the metric of each sample is computed from its sums, as many times as there are replicates. The interval
is that between the percentiles of these values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.evaluation.metrics import Floats
from landmarks_fastai.evaluation.row_metrics import RowMetric

LEVEL = 0.95
"""Probability with which an interval is meant to contain the true value."""

REPLICATES = 2000
"""Number of samples that are drawn."""

MIN_REPLICATES = 200
"""Number of samples that are drawn at least, however many groups there are."""

MAX_DRAWS = 10**8
"""With more groups than `MAX_DRAWS` / `REPLICATES`, fewer samples are drawn, to take seconds."""

FEW_GROUPS = 20
"""With fewer groups, an interval is too narrow to rely on (Cameron, Gelbach & Miller 2008, "Bootstrap-based
improvements for inference with clustered errors", Review of Economics and Statistics 90)."""

BLOCK = 2**22
"""Number of draws that are held in memory at a time."""

SEED = 0


@dataclass(frozen=True)
class Interval:
    """A confidence interval; both ends are NaN if it is undefined.

    Parameters
    ----------
    low, high
        Its ends.
    """

    low: float
    high: float

    @classmethod
    def undefined(cls) -> Interval:
        """Return an interval that is not known."""
        return cls(math.nan, math.nan)


def bootstrap_intervals(
    metrics: Sequence[RowMetric], groups: NDArray[np.int64], *, seed: int = SEED
) -> tuple[Interval, ...]:
    """Return the 95 % confidence interval of each metric.

    Parameters
    ----------
    metrics
        M metrics of the same N rows.
    groups
        (N,) group number of each row.
    seed
        Seed of the samples.

    Returns
    -------
    tuple of Interval
        M intervals; undefined for a metric that fewer than two groups determine.
    """
    numerators, denominators = group_sums(metrics, groups)
    values = replicate_values(metrics, numerators, denominators, seed)
    has_spread = (denominators > 0).sum(axis=0) >= 2
    return tuple(
        percentile_interval(column) if spread else Interval.undefined()
        for column, spread in zip(values.T, has_spread, strict=True)
    )


def percentile_interval(values: Floats) -> Interval:
    """Return the interval that contains the middle `LEVEL` of the values, without those that are NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Interval.undefined()
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail]).tolist()
    return Interval(low, high)


def group_sums(metrics: Sequence[RowMetric], groups: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the numerators and the denominators of M metrics, summed over the rows of each of G groups.

    Returns
    -------
    tuple of NDArray
        Two (G, M) arrays.
    """
    _, index = np.unique(groups, return_inverse=True)
    numerators = [np.bincount(index, metric.numerators) for metric in metrics]
    denominators = [np.bincount(index, metric.denominators) for metric in metrics]
    return np.stack(numerators, axis=1), np.stack(denominators, axis=1)


def replicate_values(
    metrics: Sequence[RowMetric], numerators: Floats, denominators: Floats, seed: int
) -> Floats:
    """Return the (replicates, M) values of M metrics in samples of the groups; see `group_sums`."""
    values = []
    for counts in draw_counts(len(numerators), seed):
        top, bottom = counts @ numerators, counts @ denominators
        values.append(np.stack([m.ratio(top[:, i], bottom[:, i]) for i, m in enumerate(metrics)], axis=1))
    return np.concatenate(values)


def draw_counts(n_groups: int, seed: int) -> Iterator[Floats]:
    """Yield how often each group is drawn in each sample, (b, G) for some samples at a time."""
    rng = np.random.default_rng(seed)
    remaining = number_of_replicates(n_groups)
    while remaining:
        block = min(remaining, max(1, BLOCK // n_groups))
        drawn = rng.integers(n_groups, size=(block, n_groups))
        flat = (drawn + n_groups * np.arange(block)[:, None]).ravel()
        yield np.bincount(flat, minlength=block * n_groups).reshape(block, n_groups).astype(np.float64)
        remaining -= block


def number_of_replicates(n_groups: int) -> int:
    """Return the number of samples that are drawn from this many groups."""
    return min(REPLICATES, max(MIN_REPLICATES, MAX_DRAWS // n_groups))
