"""Slices: groups of rows by pose, blur, size or a column of the data, whose scores are compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.metrics import Floats, normalizing_distance
from landmarks_fastai.evaluation.pose import Pose, estimate_pose
from landmarks_fastai.utils.text import suggest

Mask = NDArray[np.bool_]

ROLL_LIMITS = (10.0, 30.0)
"""Degrees of roll, in either direction, at which the slices by roll begin."""

MAX_VALUES = 12
"""A column with more different values is divided into thirds, if they are numbers, or else only its most
frequent values are slices."""

MIN_THIRDS = 6
"""Fewer rows are not divided into thirds."""

OTHER = "other"
"""Slice of all rows with less frequent values."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Rows that have something in common.

    Parameters
    ----------
    by
        What divides the rows: "roll", "yaw", "blur", "size" or the name of a column.
    value
        The slice in words: "more than 30°".
    rows
        (N,) mask of its rows.
    """

    by: str
    value: str
    rows: Mask


def make_slices(dataset: LandmarkDataset, names: Sequence[str] | None = None) -> list[Slice]:
    """Divide the rows of a data set into slices; rows whose value is unknown are in none.

    Parameters
    ----------
    dataset
        Rows with labels.
    names
        "roll", "yaw", "blur", "size" or names of columns; a column that is called like one of these is meant
        first. None: these four and every column with 2 to `MAX_VALUES` different values.

    Raises
    ------
    UserError
        If there is no such column.
    """
    if names is None:
        columns = [
            name
            for name, values in dataset.columns.items()
            if 1 < len(set(filter(None, values))) <= MAX_VALUES
        ]
        names = [*(name for name in BUILT_IN if name not in columns), *columns]
    rows, slices = _Rows(dataset), list[Slice]()
    for name in dict.fromkeys(names):
        if name in dataset.columns:
            slices += _by_column(name, dataset.columns[name])
        elif name in BUILT_IN:
            slices += BUILT_IN[name](rows)
        else:
            known = (*BUILT_IN, *dataset.columns)
            raise UserError(f"--slice {name}: {dataset.source} has no such column; {suggest(name, known)}")
    return slices


# --- pose, blur and size -------------------------------------------------------------------------


class _Rows:
    """The rows of a data set; its pose is estimated once.

    Parameters
    ----------
    dataset
        Rows with labels.
    """

    def __init__(self, dataset: LandmarkDataset) -> None:
        self.dataset = dataset

    @cached_property
    def pose(self) -> Pose:
        """Pose of each row."""
        return estimate_pose(self.dataset.points, self.dataset.schema)


def _by_roll(rows: _Rows) -> list[Slice]:
    """Divide rows by the roll of the labels, in either direction (`estimate_pose`)."""
    roll = abs(rows.pose.roll)
    small, large = ROLL_LIMITS
    parts = (
        (f"up to {small:g}°", roll <= small),
        (f"{small:g}° to {large:g}°", (roll > small) & (roll <= large)),
        (f"more than {large:g}°", roll > large),
    )
    return [Slice("roll", value, mask) for value, mask in parts if mask.any()]


def _by_yaw(rows: _Rows) -> list[Slice]:
    """Divide rows into thirds by the asymmetry of the labels, in either direction (`estimate_pose`)."""
    return _thirds("yaw", abs(rows.pose.yaw), ("frontal", "middle", "turned"), "{:.2f}")


def _by_blur(rows: _Rows) -> list[Slice]:
    return _thirds("blur", sharpness(rows.dataset), ("blurred", "middle", "sharp"), "{:.3g}")


def _by_size(rows: _Rows) -> list[Slice]:
    return _thirds("size", object_sizes(rows.dataset), ("small", "middle", "large"), "{:.3g} px")


BUILT_IN: dict[str, Callable[[_Rows], list[Slice]]] = {
    "roll": _by_roll,
    "yaw": _by_yaw,
    "blur": _by_blur,
    "size": _by_size,
}
"""Slices of every data set, by name."""


def sharpness(dataset: LandmarkDataset) -> Floats:
    """Return the variance of the Laplacian of each image; a low value means a blurred image.

    The measure of Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy: a comparative
    study" (ICPR). It also depends on contrast and texture. Of color images, the mean of the channels is used.

    Returns
    -------
    NDArray
        (N,) squared gray levels.
    """
    values = [np.empty(0)]
    for block in dataset.images.blocks():
        gray = block.astype(np.float32).mean(axis=3)
        center = gray[:, 1:-1, 1:-1]
        neighbors = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
        laplacian = (neighbors - 4 * center).reshape(len(block), -1)
        values.append(laplacian.var(axis=1).astype(np.float64) if laplacian.size else np.zeros(len(block)))
    return np.concatenate(values)


def object_sizes(dataset: LandmarkDataset) -> Floats:
    """Return the size of each object: its `normalizing_distance`, by default the inter-ocular distance.

    Returns
    -------
    NDArray
        (N,) pixels of the source images if the sizes of the crops are known, else of the data set's images;
        NaN where the landmarks that determine it are not labeled.
    """
    sizes = normalizing_distance(dataset.points, dataset.schema)
    return sizes if dataset.sides is None else sizes * dataset.sides / dataset.size


# --- columns -------------------------------------------------------------------------------------


def _by_column(name: str, values: Sequence[str]) -> list[Slice]:
    """Divide rows by the values of a column; rows with an empty value are in no slice."""
    counts = Counter(value for value in values if value)
    array = np.array(values, dtype=object)
    if len(counts) <= MAX_VALUES:
        return [Slice(name, value, np.asarray(array == value, bool)) for value in sorted(counts, key=_order)]
    numbers = np.array([_to_number(value) for value in values])
    if not np.isnan(numbers[array != ""]).any():
        return _thirds(name, numbers, ("low", "middle", "high"), "{:g}")
    frequent = [value for value, _ in counts.most_common(MAX_VALUES - 1)]
    slices = [Slice(name, value, np.asarray(array == value, bool)) for value in frequent]
    rest = np.array([bool(value) and value not in frequent for value in values])
    return [*slices, Slice(name, OTHER, rest)]


def _order(value: str) -> tuple[float, str]:
    """Sort numbers by size, and text after them alphabetically."""
    number = _to_number(value)
    return (math.inf if math.isnan(number) else number), value


def _to_number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _thirds(by: str, values: Floats, names: tuple[str, str, str], pattern: str) -> list[Slice]:
    """Divide rows into thirds of equal size by a value; equal values are in one third."""
    known = values[np.isfinite(values)]
    if len(known) < MIN_THIRDS or known.min() == known.max():
        return []
    first, second = np.quantile(known, [1 / 3, 2 / 3]).tolist()
    low, high = pattern.format(first), pattern.format(second)
    parts = (
        (f"{names[0]} (≤ {low})", values <= first),
        (f"{names[1]} (≤ {high})", (values > first) & (values <= second)),
        (f"{names[2]} (> {high})", values > second),
    )
    return [Slice(by, value, rows) for value, rows in parts if rows.any()]
