"""Groupings of the rows of cached data sets, kept in the cache entry of the data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.cache import entry_folder, entry_lock
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.utils.files import atomic_write

Groups = NDArray[np.int64]

VERSION = 1
"""Increased when the grouping of the same rows changes, so that older files are ignored."""

PREFIX = "groups-"
MAX_FILES = 20
"""Files per entry; those written first are removed. Each selection of rows and each set of corrections of the
labels has a file."""


def load_or_group(dataset: LandmarkDataset, group: Callable[[LandmarkDataset], Groups]) -> Groups:
    """Return the group of each row from the cache entry of the data set, or compute and keep it.

    The file depends on which images of the entry are used, their landmarks and their groups. Only one process
    computes a grouping at a time. If the images are not in the cache, or it is not writable, nothing is kept.

    Parameters
    ----------
    dataset
        The data set.
    group
        Returns the (N,) int64 groups of a data set.
    """
    entry = entry_folder(dataset.images)
    if entry is None:
        return group(dataset)
    path = entry / f"{PREFIX}{_key(dataset)}.npy"
    groups = _load(path, len(dataset))
    if groups is not None:
        return groups
    try:
        lock = entry_lock(entry)
        lock.acquire()
    except OSError:
        return group(dataset)
    try:
        groups = _load(path, len(dataset))
        if groups is None:
            groups = group(dataset)
            _save(path, groups)
        return groups
    finally:
        lock.release()


def _key(dataset: LandmarkDataset) -> str:
    digest = hashlib.sha256(repr((VERSION, dataset.points.shape)).encode())
    for values in (dataset.images.rows, dataset.points, dataset.groups):
        if values is not None:
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:32]


def _load(path: Path, n: int) -> Groups | None:
    """Return the groups in a file; None if there is none, or it is damaged."""
    with suppress(OSError, ValueError, EOFError):
        groups = np.load(path, allow_pickle=False)
        if groups.shape == (n,) and groups.dtype == np.int32 and n and groups.min() == 0:
            return np.asarray(groups, np.int64)
    return None


def _save(path: Path, groups: Groups) -> None:
    with suppress(OSError, UserError, RunError), atomic_write(path) as partial:
        np.save(partial, groups.astype(np.int32))
    with suppress(OSError):
        files = sorted(path.parent.glob(f"{PREFIX}*.npy"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MAX_FILES]:
            file.unlink()
