"""Splits into training and validation rows, with near-duplicates on the same side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.near_duplicates import group_near_duplicates, grouping_notes
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import suggest

SplitKind = Literal["grouped", "random"]
KINDS: tuple[SplitKind, ...] = ("grouped", "random")


@dataclass(frozen=True)
class Split:
    """Training and validation rows of a data set.

    Parameters
    ----------
    train, valid
        Sorted row indices, int64; every row of the data set is in exactly one of them.
    groups
        (N,) int64; rows with the same number are on the same side. With "random", each row is its own group.
    kind
        "grouped" or "random".
    seed
        Seed with which the validation rows were selected.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    groups: NDArray[np.int64]
    kind: SplitKind
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the split as JSON-serializable numbers and lists."""
        sizes = np.bincount(self.groups)
        return {
            "kind": self.kind,
            "seed": self.seed,
            "rows": {"train": len(self.train), "valid": len(self.valid)},
            "groups": {
                "train": len(np.unique(self.groups[self.train])),
                "valid": len(np.unique(self.groups[self.valid])),
                "largest": int(sizes.max()),
            },
            "train": self.train.tolist(),
            "valid": self.valid.tolist(),
        }


def split_dataset(dataset: LandmarkDataset, kind: str, valid_fraction: float, seed: int) -> Split:
    """Split a data set into training and validation rows.

    Parameters
    ----------
    dataset
        The data set.
    kind
        "grouped" keeps the rows of a group (`group_near_duplicates`) on the same side. "random" splits a
        random permutation of the rows: near-duplicates on both sides make the validation error too
        optimistic, so it is for comparison only.
    valid_fraction
        Fraction of validation rows, between 0 and 1; the actual number differs by less than the size of the
        largest group.
    seed
        The same seed gives the same split.

    Raises
    ------
    UserError
        If there are fewer than two rows, an argument is invalid, or all rows are in one group.
    """
    n = len(dataset)
    kind = _check_kind(kind)
    if not 0 < valid_fraction < 1:
        raise UserError(f"data.valid_fraction: {valid_fraction} must be between 0 and 1, for example 0.2")
    if n < 2:
        raise UserError(
            f"{dataset.source}: {n} row cannot be split into training and validation; at least two are needed"
        )
    rng = np.random.default_rng(seed)
    wanted = min(max(round(n * valid_fraction), 1), n - 1)
    if kind == "random":
        is_valid = np.zeros(n, bool)
        is_valid[rng.permutation(n)[:wanted]] = True
        return _make_split(is_valid, np.arange(n), kind, seed)
    groups = group_near_duplicates(dataset)
    sizes = np.bincount(groups)
    if len(sizes) == 1:
        raise UserError(
            f"{dataset.source}: all {n} rows look like one person or scene, so none can be used for"
            " validation; add data of other people, or set data.split to random"
        )
    return _make_split(_select_groups(sizes, wanted, rng)[groups], groups, kind, seed)


def split_into_folds(dataset: LandmarkDataset, kind: str, folds: int, seed: int) -> list[Split]:
    """Split a data set into folds for cross-validation: each row is a validation row of exactly one fold.

    Parameters
    ----------
    dataset, kind, seed
        See `split_dataset`; "grouped" keeps the rows of a group in the same fold.
    folds
        Number of folds, at least 2. Their sizes differ by at most the size of the largest group.

    Returns
    -------
    list[Split]
        One per fold.

    Raises
    ------
    UserError
        If `kind` is invalid, or there are fewer groups (with "random": rows) than folds.
    """
    kind = _check_kind(kind)
    groups = group_near_duplicates(dataset) if kind == "grouped" else np.arange(len(dataset))
    sizes = np.bincount(groups)
    if len(sizes) < folds:
        units = "groups of near-duplicates" if kind == "grouped" else "rows"
        raise UserError(
            f"data.folds: {dataset.source} has {len(sizes)} {units}, too few for {folds} folds; use fewer"
            " folds, or more data"
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    # largest first, groups of equal size in random order; each is added to the smallest fold so far
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_sizes = np.zeros(folds, np.int64)
    fold_of_group = np.empty(len(sizes), np.int64)
    for group in order:
        fold_of_group[group] = smallest = np.argmin(fold_sizes)
        fold_sizes[smallest] += sizes[group]
    fold_of_row = fold_of_group[groups]
    return [_make_split(fold_of_row == fold, groups, kind, seed) for fold in range(folds)]


def split_from_config(dataset: LandmarkDataset, data: DataConfig, seed: int) -> Split:
    """Split a data set by the options of a config; with folds but without `fold`, return the first fold.

    Raises
    ------
    UserError
        See `split_dataset` and `split_into_folds`.
    """
    if data.folds is None:
        return split_dataset(dataset, data.split, data.valid_fraction, seed)
    return split_into_folds(dataset, data.split, data.folds, seed)[(data.fold or 1) - 1]


def split_notes(dataset: LandmarkDataset, data: DataConfig) -> tuple[str, ...]:
    """Return what the user should know about the split of a data set, one line each."""
    return grouping_notes(dataset) if data.split == "grouped" else ()


def _check_kind(kind: str) -> SplitKind:
    for known in KINDS:
        if kind == known:
            return known
    raise UserError(f"data.split: no such kind {kind!r}; {suggest(kind, KINDS)}")


def _make_split(is_valid: NDArray[np.bool_], groups: NDArray[np.int64], kind: SplitKind, seed: int) -> Split:
    return Split(np.flatnonzero(~is_valid), np.flatnonzero(is_valid), groups, kind, seed)


def _select_groups(sizes: NDArray[np.int64], wanted: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Select groups with about `wanted` rows in total for validation, and return a mask of the groups."""
    selected, total = np.zeros(len(sizes), bool), 0
    for group in rng.permutation(len(sizes)):  # take each group that still fits, in random order
        if total + sizes[group] <= wanted:
            selected[group], total = True, total + sizes[group]
    if not total:  # every group has more rows than wanted
        selected[np.argmin(sizes)] = True
    return selected
