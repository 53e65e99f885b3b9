"""Training and validation rows, chosen before augmentation so that no face stands on both sides.

Knows how to find rows that show the same person or scene from their pixels alone. Knows nothing about
files, and not what the rows are used for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.config import Data
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError, nearest

Floats = NDArray[np.float32]
Kind = Literal["grouped", "random"]

VIEWS = (
    3.2,
    5.0,
)  # side of the aligned patches, in root-mean-square radii of the points: face, and surroundings
PATCH = 24  # side of a patch in its own pixels
WORKING_SIZE = 96  # larger images are reduced to this first
COMPONENTS = 150  # of the principal components, at most
NEAR_DUPLICATE = 0.88  # correlation of patches from which two rows are the same frame
FEW_ROWS = 100  # fewer than this: principal components mean nothing, only near-duplicates are joined
MANY_ROWS = 12_000  # more than this: clustering takes gigabytes, only near-duplicates are joined


@dataclass(frozen=True)
class Split:
    """Which rows train and which validate.

    Parameters
    ----------
    train, valid
        Sorted row numbers, int64; every row of the table stands in exactly one of them.
    groups
        (N,) int64: rows with the same number were kept together. Every row its own under "random".
    kind
        "grouped" or "random".
    seed
        What chose the groups (or rows) of the validation side.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    groups: NDArray[np.int64]
    kind: Kind
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the split as plain numbers and lists, for a JSON file."""
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


def split(table: FaceTable, kind: str, valid_fraction: float, seed: int) -> Split:
    """Choose the validation rows.

    Parameters
    ----------
    table
        The faces, unaugmented.
    kind
        "grouped" keeps the rows of a group (`find_groups`) on one side. "random" is a plain permutation,
        which puts near-duplicates on both sides and so flatters the result: for comparison only.
    valid_fraction
        Wanted share of validation rows, between 0 and 1; met to within the largest group.
    seed
        The same seed gives the same split.

    Raises
    ------
    UserError
        If there are fewer than two rows, an argument is out of range, or all rows are in one group.
    """
    n = len(table)
    _check_kind(kind)
    if not 0 < valid_fraction < 1:
        raise UserError(f"data.valid_fraction: {valid_fraction} must lie between 0 and 1, for example 0.2")
    if n < 2:
        raise UserError(
            f"{table.source}: {n} row can't be split into training and validation; two are needed"
        )
    rng = np.random.default_rng(seed)
    wanted = min(max(round(n * valid_fraction), 1), n - 1)
    chosen = np.zeros(n, bool)
    if kind == "random":
        chosen[rng.permutation(n)[:wanted]] = True
        return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen), np.arange(n), "random", seed)
    groups = find_groups(table)
    sizes = np.bincount(groups)
    if len(sizes) == 1:
        raise UserError(
            f"{table.source}: all {n} rows look like one person or scene, so none can be held out; "
            "give data of more people, or set data.split to random"
        )
    order, taken = rng.permutation(len(sizes)), 0
    picked = np.zeros(len(sizes), bool)
    for group in order:  # in random order, each group that still fits
        if taken + sizes[group] <= wanted:
            picked[group], taken = True, taken + sizes[group]
    if not taken:  # every group is larger than the validation side
        picked[np.argmin(sizes)] = True
    chosen = picked[groups]
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen), groups, "grouped", seed)


def split_folds(table: FaceTable, kind: str, folds: int, seed: int) -> list[Split]:
    """Choose the validation rows of several runs so that each row validates exactly one of them.

    Parameters
    ----------
    table, kind, seed
        As for `split`: "grouped" keeps the rows of a group in one fold.
    folds
        How many, 2 or more. Their sizes differ by no more than the largest group.

    Returns
    -------
    list[Split]
        One a fold.

    Raises
    ------
    UserError
        If there are fewer groups (or rows) than folds.
    """
    _check_kind(kind)
    groups = find_groups(table) if kind == "grouped" else np.arange(len(table))
    sizes = np.bincount(groups)
    if len(sizes) < folds:
        what = "groups of near-duplicates" if kind == "grouped" else "rows"
        raise UserError(
            f"data.folds: {table.source} has {len(sizes)} {what}, too few for {folds} folds;"
            " ask for fewer, or give more data"
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]  # the largest first, equal ones in random order
    taken = np.zeros(folds, np.int64)
    place = np.empty(len(sizes), np.int64)
    for group in order:
        place[group] = fold = np.argmin(taken)
        taken[fold] += sizes[group]
    chosen = place[groups]
    named: Kind = "grouped" if kind == "grouped" else "random"
    return [
        Split(np.flatnonzero(chosen != fold), np.flatnonzero(chosen == fold), groups, named, seed)
        for fold in range(folds)
    ]


def split_by(table: FaceTable, data: Data, seed: int) -> Split:
    """Split as a recipe says; with folds and none of them named, the first.

    Raises
    ------
    UserError
        As `split` and `split_folds`.
    """
    if data.folds is None:
        return split(table, data.split, data.valid_fraction, seed)
    return split_folds(table, data.split, data.folds, seed)[(data.fold or 1) - 1]


def _check_kind(kind: str) -> None:
    if kind not in ("grouped", "random"):
        raise UserError(f"data.split: no such kind {kind!r}; {nearest(kind, ('grouped', 'random'))}")


def find_groups(table: FaceTable) -> NDArray[np.int64]:
    """Give each row a number, so that those of one person or scene have the same number.

    Identical images are always together. Where the table has groups of its own, those are used; else
    rows are compared by their pixels, in two views that the labelled points align:

    1. Rows whose locally normalised patches correlate (`NEAR_DUPLICATE`) are the same frame.
    2. Patches are projected on whitened principal components, clustered, whitened once more by the scatter
       within the clusters (within-class covariance normalisation, Hatch et al. 2006), and clustered
       again by average linkage until the mean cosine between two groups is what chance would give.

    It errs on the side of joining strangers: that costs nothing, and a person on both sides does. Tables
    under `FEW_ROWS` or over `MANY_ROWS` rows get step 1 only.

    Returns
    -------
    NDArray
        (N,) int64, from 0 upwards in order of first appearance.
    """
    joined = [_same_bytes(table)]
    if table.groups is not None:
        joined.append(np.unique(table.groups, return_inverse=True)[1])
    elif len(table) > 1:
        views = _views(table)
        joined.append(_near_duplicates(np.concatenate(views, axis=1) / np.float32(np.sqrt(len(views)))))
        if FEW_ROWS <= len(table) <= MANY_ROWS:
            joined.append(_people(views))
    return _merge(joined)


def _same_bytes(table: FaceTable) -> NDArray[np.int64]:
    """Give rows a number by the content of their image."""
    first: dict[bytes, int] = {}
    digests = (hashlib.sha256(image.tobytes()).digest() for image in table.images)
    return np.array([first.setdefault(digest, i) for i, digest in enumerate(digests)], np.int64)


def _merge(labellings: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Join rows that any of the labellings joins."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(labellings[0])
    starts, ends = [], []
    for labels in labellings:
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        starts.append(np.arange(n))
        ends.append(first[inverse])
    pairs = (np.concatenate(starts), np.concatenate(ends))
    graph = coo_array((np.ones(len(pairs[0]), bool), pairs), shape=(n, n))
    joined = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _views(table: FaceTable) -> list[Floats]:
    """Cut the aligned patches: one (N, PATCH²) array of zero-mean unit vectors a view."""
    from scipy.ndimage import gaussian_filter, map_coordinates, uniform_filter

    centre, step = _alignment(table)
    reduced = min(table.size, WORKING_SIZE) / table.size
    ticks = (np.arange(PATCH) + 0.5) / PATCH - 0.5
    grid = ticks[None] + 1j * ticks[:, None]
    patches = np.empty((len(VIEWS), len(table), PATCH, PATCH), np.float32)
    for row, image in enumerate(table.images):
        gray = Image.fromarray(image if table.channels == 3 else image[..., 0]).convert("L")
        if reduced < 1:
            gray = gray.resize((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
        pixels = np.asarray(gray, np.float32)
        for view, side in enumerate(VIEWS):
            spacing = side * abs(step[row]) * reduced / PATCH
            where = (centre[row] + side * step[row] * grid + (0.5 + 0.5j)) * reduced - (0.5 + 0.5j)
            smooth = gaussian_filter(pixels, 0.5 * spacing)
            patches[view, row] = map_coordinates(smooth, [where.imag, where.real], order=1, mode="nearest")
    vectors = []
    for patch in patches:
        # local contrast: light and exposure differ from frame to frame, edges stay
        mean = uniform_filter(patch, (0, 7, 7))
        variance = uniform_filter(patch * patch, (0, 7, 7)) - mean * mean
        local = (patch - mean) / (np.sqrt(np.maximum(variance, 0)) + 8)
        flat = local.reshape(len(table), -1)
        vectors.append(_unit(flat - flat.mean(1, keepdims=True)))
    return vectors


def _alignment(table: FaceTable) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Find where each face lies: centre and, as one complex number, size and turn (x + iy, pixels).

    Least squares over the points that most rows have; a row without two of them, or a table without
    labels, gets the mean place of the others or the middle of the image.
    """
    n = len(table)
    middle, radius = (table.size - 1) / 2 * (1 + 1j), table.size / VIEWS[-1]
    centre, step = np.full(n, middle, np.complex128), np.full(n, radius, np.complex128)
    labelled = table.labelled
    anchors = np.flatnonzero(labelled.mean(0) > 0.9)
    known = labelled[:, anchors]
    if len(anchors) < 2 or not known.all(1).any():
        return centre, step
    z = np.where(known, table.points[:, anchors, 0] + 1j * table.points[:, anchors, 1], 0).astype(
        np.complex128
    )
    shape = z[known.all(1)].mean(0)
    shape = shape - shape.mean()
    shape = shape / max(float(np.sqrt((abs(shape) ** 2).mean())), 1e-9)
    count = np.maximum(known.sum(1), 1)
    z_mean, shape_mean = z.sum(1) / count, (known * shape).sum(1) / count
    there = known * (shape - shape_mean[:, None])
    scatter = (abs(there) ** 2).sum(1)
    fit = ((z - z_mean[:, None]) * there.conj()).sum(1) / np.maximum(scatter, 1e-9)
    usable = (known.sum(1) >= 2) & (scatter > 1e-3) & (abs(fit) > 0.01 * table.size)
    if usable.any():
        step[:] = abs(fit[usable]).mean()
        centre[:] = (z_mean - fit * shape_mean)[usable].mean()
        step[usable], centre[usable] = fit[usable], (z_mean - fit * shape_mean)[usable]
    return centre, step


def _unit(rows: NDArray[Any]) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def _cosines(rows: Floats, block: int = 512) -> Iterator[tuple[int, Floats]]:
    """Yield (i, cosines of row i with rows i + 1 …), a block's worth computed at a time."""
    for start in range(0, len(rows), block):
        products = rows[start : start + block] @ rows[start:].T
        for offset, row in enumerate(products):
            yield start + offset, row[offset + 1 :]


def _near_duplicates(rows: Floats) -> NDArray[np.int64]:
    """Join rows whose cosine is at least `NEAR_DUPLICATE`, and theirs, and so on."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [np.empty((2, 0), np.int64)]
    for i, cosines in _cosines(rows):
        later = np.flatnonzero(cosines >= NEAR_DUPLICATE) + i + 1
        pairs.append(np.stack([np.full(len(later), i), later]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(rows), len(rows)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _people(views: list[Floats]) -> NDArray[np.int64]:
    """Cluster whitened patches twice, the second time whitened by what varies within a cluster."""
    k = min(COMPONENTS, len(views[0]) // 4)
    chance = 1 / np.sqrt(k)  # standard deviation of the cosine of two random directions
    components = [_principal(view, k) for view in views]
    frames = _cluster(_unit(components[0]), 4 * chance)
    normalised = [_unit(_within_normalised(component, frames)) for component in components]
    return _cluster(_unit(np.concatenate(normalised, axis=1)), 2 * chance)


def _principal(rows: Floats, k: int) -> NDArray[np.float64]:
    """Project on the first k principal components, each scaled to variance 1."""
    centred = rows - rows.mean(0)
    values, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(rows))
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    return np.asarray(centred @ (vectors / np.sqrt(np.maximum(values, 1e-12))))


def _within_normalised(rows: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Turn and scale so that the scatter within labels becomes the same in all directions."""
    sizes, k = np.bincount(labels), rows.shape[1]
    several = sizes[labels] > 1
    if np.count_nonzero(several) <= k:
        return rows
    means = (
        np.stack([np.bincount(labels, column) for column in rows.T], axis=1) / np.maximum(sizes, 1)[:, None]
    )
    apart = (rows - means[labels])[several]
    scatter = apart.T @ apart / (len(apart) - np.count_nonzero(sizes > 1))
    # a tenth of a round scatter, so that directions with few samples are not blown up
    scatter = 0.9 * scatter + 0.1 * np.trace(scatter) / k * np.eye(k)
    values, vectors = np.linalg.eigh(scatter)
    return np.asarray(rows @ vectors / np.sqrt(values))


def _cluster(rows: Floats, cosine: float) -> NDArray[np.int64]:
    """Average linkage until no two clusters have a mean cosine above `cosine`."""
    from scipy.cluster.hierarchy import fcluster, linkage

    n = len(rows)
    distances = np.empty(n * (n - 1) // 2)
    start = 0
    for _, cosines in _cosines(rows):
        distances[start : start + len(cosines)] = np.clip(1 - cosines, 0, 2)
        start += len(cosines)
    tree = linkage(distances, method="average")
    return np.asarray(fcluster(tree, 1 - cosine, criterion="distance"), np.int64) - 1
