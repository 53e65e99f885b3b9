"""Paired comparison of two models on the same rows.

Both models are evaluated on the same groups of rows (a person, a scene), so that what makes a row difficult
cancels out. For each metric there is the difference of the models, its confidence interval by a bootstrap in
which both models get the same sample of groups, and the p-value of a permutation test: if the models were
equally good, exchanging them in any group would change nothing, so the observed difference is compared with
those after random exchanges (Fisher 1935, "The Design of Experiments"; Dror et al. 2018, "The Hitchhiker's
Guide to Testing Statistical Significance in Natural Language Processing", ACL).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.evaluation.bootstrap import (
    BLOCK,
    LEVEL,
    SEED,
    Interval,
    draw_counts,
    group_sums,
    number_of_replicates,
    percentile_interval,
)
from landmarks_fastai.evaluation.metrics import Floats
from landmarks_fastai.evaluation.row_metrics import RowMetric

PERMUTATIONS = 10_000
"""Number of random exchanges with up to `MAX_SIGNS` / `PERMUTATIONS` groups."""

MIN_PERMUTATIONS = 1000
MAX_SIGNS = 10**9

SIGNIFICANT = 1 - LEVEL
"""Largest p-value of a difference that is called significant."""

PRIMARY = "nme"
"""The metric of the verdict. The tests of the other metrics are not corrected for their number."""


@dataclass(frozen=True, eq=False)
class MetricComparison:
    """A metric of two models.

    Parameters
    ----------
    metric
        The metric of the first model.
    first, second
        Its values; NaN if undefined.
    interval
        Confidence interval of the difference, second minus first.
    p_value
        Of the permutation test, two-sided; NaN if there are fewer than two groups.
    """

    metric: RowMetric
    first: float
    second: float
    interval: Interval
    p_value: float

    @property
    def difference(self) -> float:
        """The second model's value minus the first's."""
        return self.second - self.first

    @property
    def is_significant(self) -> bool:
        """Whether the permutation test rejects that both models are equally good."""
        return self.p_value <= SIGNIFICANT

    @property
    def second_is_better(self) -> bool:
        """Whether the second model's value is better, significantly or not."""
        return self.difference > 0 if self.metric.higher_is_better else self.difference < 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Result of a paired comparison.

    Parameters
    ----------
    models
        Names of the two models.
    rows, groups
        Number of rows and of groups.
    metrics
        One comparison for each metric.
    first_wins, second_wins
        Number of groups in which the mean NME of the first and of the second model is lower.
    sign_p_value
        P-value of the sign test of these numbers, two-sided.
    """

    models: tuple[str, str]
    rows: int
    groups: int
    metrics: tuple[MetricComparison, ...]
    first_wins: int
    second_wins: int
    sign_p_value: float

    @property
    def primary(self) -> MetricComparison:
        """The comparison of the NME, on which the verdict is based."""
        return next(entry for entry in self.metrics if entry.metric.name == PRIMARY)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-serializable values; None for NaN."""
        return {
            "models": list(self.models),
            "rows": self.rows,
            "groups": self.groups,
            "level": LEVEL,
            "replicates": number_of_replicates(self.groups),
            "permutations": number_of_permutations(self.groups),
            "seed": SEED,
            "metrics": {
                entry.metric.name: {
                    "first": _plain(entry.first),
                    "second": _plain(entry.second),
                    "difference": _plain(entry.difference),
                    "interval": [_plain(entry.interval.low), _plain(entry.interval.high)],
                    "p_value": _plain(entry.p_value),
                }
                for entry in self.metrics
            },
            "sign_test": {
                "groups_first_better": self.first_wins,
                "groups_second_better": self.second_wins,
                "p_value": _plain(self.sign_p_value),
            },
        }


def compare_metrics(
    first: Sequence[RowMetric],
    second: Sequence[RowMetric],
    groups: NDArray[np.int64],
    models: tuple[str, str],
    *,
    seed: int = SEED,
) -> Comparison:
    """Compare the metrics of two models on the same N rows.

    Parameters
    ----------
    first, second
        The same metrics of both models (`row_metrics`), from the same labels, so that the denominators agree.
    groups
        (N,) group number of each row.
    models
        Names of the models.
    seed
        Seed of the samples and of the exchanges.
    """
    first_sums, counts = group_sums(first, groups)
    second_sums, _ = group_sums(second, groups)
    intervals = _difference_intervals(first, first_sums, second_sums, counts, seed)
    p_values = _permutation_p_values(first, first_sums, second_sums, counts, seed)
    comparisons = tuple(
        MetricComparison(metric, metric.value(), other.value(), interval, p_value)
        for metric, other, interval, p_value in zip(first, second, intervals, p_values, strict=True)
    )
    column = [metric.name for metric in first].index(PRIMARY)
    differences = second_sums[:, column] - first_sums[:, column]
    first_wins, second_wins = int((differences > 0).sum()), int((differences < 0).sum())
    return Comparison(
        models=models,
        rows=len(groups),
        groups=len(counts),
        metrics=comparisons,
        first_wins=first_wins,
        second_wins=second_wins,
        sign_p_value=sign_test(first_wins, second_wins),
    )


def sign_test(first_wins: int, second_wins: int) -> float:
    """Return the two-sided p-value of the sign test: an exact binomial test; NaN without wins."""
    from scipy.stats import binom

    n = first_wins + second_wins
    if not n:
        return math.nan
    return min(1.0, 2 * float(binom.cdf(min(first_wins, second_wins), n, 0.5)))


def number_of_permutations(n_groups: int) -> int:
    """Return the number of random exchanges with this many groups."""
    return min(PERMUTATIONS, max(MIN_PERMUTATIONS, MAX_SIGNS // n_groups))


def _difference_intervals(
    metrics: Sequence[RowMetric], first: Floats, second: Floats, denominators: Floats, seed: int
) -> list[Interval]:
    """Return the interval of each difference; `first`, `second` and `denominators` are (G, M) sums."""
    values = []
    for counts in draw_counts(len(first), seed):
        bottom = counts @ denominators
        a, b = counts @ first, counts @ second
        values.append(
            np.stack(
                [
                    m.ratio(b[:, i], bottom[:, i]) - m.ratio(a[:, i], bottom[:, i])
                    for i, m in enumerate(metrics)
                ],
                axis=1,
            )
        )
    replicates = np.concatenate(values)
    has_spread = (denominators > 0).sum(axis=0) >= 2
    return [
        percentile_interval(column) if spread else Interval.undefined()
        for column, spread in zip(replicates.T, has_spread, strict=True)
    ]


def _permutation_p_values(
    metrics: Sequence[RowMetric], first: Floats, second: Floats, denominators: Floats, seed: int
) -> list[float]:
    """Return the p-value of each metric, ``(1 + exceeding) / (1 + permutations)``.

    The observed difference is one of the permutations, so that a p-value is never 0 (Phipson & Smyth 2010,
    "Permutation p-values should never be zero", Statistical Applications in Genetics and Molecular Biology).
    """
    middle, half = (first + second).sum(axis=0) / 2, (second - first) / 2
    bottom = denominators.sum(axis=0)

    def differences(shift: Floats) -> Floats:
        return np.stack(
            [
                m.ratio(middle[i] + shift[..., i], bottom[i]) - m.ratio(middle[i] - shift[..., i], bottom[i])
                for i, m in enumerate(metrics)
            ],
            axis=-1,
        )

    observed = np.abs(differences(half.sum(axis=0)))
    exceeding = np.zeros(len(metrics), np.int64)
    for signs in _draw_signs(len(first), seed):
        # a tolerance, because the sums are rounded differently
        exceeding += (np.abs(differences(signs @ half)) >= observed * (1 - 1e-9) - 1e-15).sum(axis=0)
    total = number_of_permutations(len(first))
    is_defined = (bottom > 0) & ((denominators > 0).sum(axis=0) >= 2)
    return [float(p) for p in np.where(is_defined, (1 + exceeding) / (1 + total), np.nan)]


def _draw_signs(n_groups: int, seed: int) -> Iterator[Floats]:
    """Yield the signs, -1 for an exchange, of each group: (b, G) for some permutations at a time."""
    rng = np.random.default_rng([seed, 1])
    remaining = number_of_permutations(n_groups)
    while remaining:
        block = min(remaining, max(1, BLOCK // n_groups))
        yield 2.0 * rng.integers(0, 2, size=(block, n_groups), dtype=np.int8).astype(np.float64) - 1.0
        remaining -= block


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
