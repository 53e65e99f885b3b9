"""How far a model's own doubt can be believed: claimed chances and errors beside the true ones.

Knows arrays only. A model that knows its doubt gives each point a scale b: so large its errors along x and
along y are on the mean, without their signs. It was learnt as the scale of a Laplace distribution, whose
density for an error e is ``exp(-|e| / b) / 2b``; what is claimed follows from b alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from landmarks_fastai.errors import UserError

Floats = NDArray[np.float64]

NEAR = 0.025
"""How near to the truth a point must lie to count as found: a share of its square's side."""

BINS = 10


def chance_near(scales: ArrayLike, side: ArrayLike) -> Floats:
    """Chance that points lie within `NEAR` of the side of the truth, along x and along y.

    ``erf(NEAR · side / (b √π))²``: the chance of one coordinate, twice, from the normal distribution whose
    mean absolute error is b. Of all points together the errors are Laplace's; of those that share one b they
    are nearer to normal, as it is b that tells the hard points from the easy. By Laplace's own law the models
    that we released claimed 3 to 6 % fewer points than were near.

    Parameters
    ----------
    scales
        Mean absolute errors b, px; NaN where there are none.
    side
        Of the points' square, px; broadcast against `scales`.

    Returns
    -------
    NDArray[np.float64]
        In [0, 1], in the shape of `scales`; NaN where the scale is.
    """
    from scipy.special import erf

    near = NEAR * np.asarray(side, np.float64)
    return np.square(erf(near / (math.sqrt(math.pi) * np.asarray(scales, np.float64))))


def scale_of_chance(chance: ArrayLike, side: ArrayLike) -> Floats:
    """Return the scale, px, that `chance_near` gives this chance; 0 and 1 have none."""
    from scipy.special import erfinv

    near = NEAR * np.asarray(side, np.float64)
    return np.asarray(near / (math.sqrt(math.pi) * erfinv(np.sqrt(np.asarray(chance, np.float64)))))


def scale_factor(pred: ArrayLike, true: ArrayLike, scales: ArrayLike) -> float:
    """Return the one number by which all scales must be multiplied to fit the errors best.

    ``mean(|error| / b)`` over the labelled coordinates: where the likelihood of Laplace's distribution of
    scale ``factor · b`` is greatest. What temperature scaling (Guo et al. 2017, "On Calibration of Modern
    Neural Networks", ICML, section 4.2) is to a softmax, for a scale; the points' order stays.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, x then y, px; NaN in `true` where a point is unlabelled.
    scales
        (N, K) px; NaN where there are none.

    Returns
    -------
    float
        Above 1 where the model claims too much; 1 where nothing can be said.
    """
    differences, known = _known(pred, true, scales)
    factor = float(np.mean(np.abs(differences) / known[:, None])) if len(known) else 1.0
    return factor if factor > 0 else 1.0  # errors that are all 0 would make a scale that is none


@dataclass(frozen=True)
class Bin:
    """Points of like scales.

    Parameters
    ----------
    points
        How many.
    claimed, true
        The share of them that the model expects near the truth, and that lies there.
    claimed_error, true_error
        Mean absolute error of a coordinate, px: of Laplace's distribution it is b.
    """

    points: int
    claimed: float
    true: float
    claimed_error: float
    true_error: float


@dataclass(frozen=True)
class Calibration:
    """How well claimed chances and errors agree with the true ones, over all labelled points.

    Parameters
    ----------
    points
        How many points were judged.
    near
        How near to the truth counts, along x and along y, px.
    claimed, true
        The share of points that the model expects near the truth, and that lies there.
    ece
        Expected calibration error (Guo et al. 2017, eq. 5): the mean distance of claimed and true, over the
        bins, each weighted by its points. The bins hold equally many points here; there they are equally
        wide, and most of them nearly empty.
    rank_correlation
        Spearman's, of the confidence and the nearness of points: 1 where the order of the confidences is
        that of the distances from the truth, 0 where it says nothing. NaN where all are alike.
    factor
        `scale_factor` on these points: 1 where the claims are neither too bold nor too shy.
    bins
        From the least sure points to the surest.
    """

    points: int
    near: float
    claimed: float
    true: float
    ece: float
    rank_correlation: float
    factor: float
    bins: tuple[Bin, ...]


def calibrate(pred: ArrayLike, true: ArrayLike, scales: ArrayLike, side: float) -> Calibration | None:
    """Compare what a model claims of its points with what is true of them.

    Parameters
    ----------
    pred, true
        (N, K, 2) points, x then y, px; NaN in `true` where a point is unlabelled.
    scales
        (N, K) Laplace scales of the errors along x and along y, px; NaN where the model knows none.
    side
        Of the square that the points were found in, px.

    Returns
    -------
    Calibration or None
        None where no labelled point has a scale.

    Raises
    ------
    UserError
        If the shapes do not agree.
    """
    differences, known = _known(pred, true, scales)
    if not len(known):
        return None
    order = np.argsort(-known, kind="stable")
    differences, known = differences[order], known[order]
    claimed = chance_near(known, side)
    near = np.abs(differences).max(axis=1) <= NEAR * side
    errors = np.abs(differences).mean(axis=1)
    bins = tuple(
        Bin(
            points=len(rows),
            claimed=float(claimed[rows].mean()),
            true=float(near[rows].mean()),
            claimed_error=float(known[rows].mean()),
            true_error=float(errors[rows].mean()),
        )
        for rows in np.array_split(np.arange(len(known)), min(BINS, len(known)))
    )
    return Calibration(
        points=len(known),
        near=NEAR * side,
        claimed=float(claimed.mean()),
        true=float(near.mean()),
        ece=sum(one.points * abs(one.claimed - one.true) for one in bins) / len(known),
        rank_correlation=_rank_correlation(-known, -np.hypot(differences[:, 0], differences[:, 1])),
        factor=scale_factor(pred, true, scales),
        bins=bins,
    )


def _known(pred: ArrayLike, true: ArrayLike, scales: ArrayLike) -> tuple[Floats, Floats]:
    """Return the (M, 2) errors and (M,) scales of the points that have both a label and a scale."""
    found, wanted, spread = (np.asarray(array, np.float64) for array in (pred, true, scales))
    if found.shape != wanted.shape or found.shape != (*spread.shape, 2):
        raise UserError(
            f"points (N, K, 2) need scales (N, K), not {found.shape}, {wanted.shape} and {spread.shape}"
        )
    both = np.isfinite(wanted).all(axis=-1) & np.isfinite(spread)
    return found[both] - wanted[both], spread[both]


def _rank_correlation(first: Floats, second: Floats) -> float:
    """Return Spearman's rank correlation: Pearson's of the ranks, where equals share their mean rank."""
    from scipy.stats import rankdata

    ranks = rankdata(first), rankdata(second)
    if min(np.ptp(one) for one in ranks) == 0:
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])
