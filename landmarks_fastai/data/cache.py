"""Cache of data sets: each is read once into a folder, whose images are then memory-mapped.

A cache entry is a folder with ``images.npy`` (N, S, S, C) and ``labels.npz``. It is built
under the name ``ENTRY.partial`` and renamed when it is complete; a lock makes other processes wait for it. A
build that is interrupted leaves ``ENTRY.partial``, so that the next one can continue.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray, open_images
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.schema import LandmarkSchema

FORMAT = 5
"""Increased when a reader returns other data for the same files, so that older entries are ignored."""

PARSED = "parsed"
"""Subfolder of the cache with the entries."""

LOCKS = "locks"
"""Subfolder of the cache with the lock files of the entries."""

IMAGES_NAME = "images.npy"
LABELS_NAME = "labels.npz"
PARTIAL = ".partial"
COLUMN = "column "
"""Prefix of the names of `LandmarkDataset.columns` in the file of the labels."""

MAX_CHECKED = 1 << 30
"""Larger files of images are not searched for damaged bytes on every start."""

LIMIT_VARIABLE = "LANDMARKS_FASTAI_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0
"""Size of all entries above which those that were not used for the longest time are removed."""

Build = Callable[[Path | None], LandmarkDataset]
"""Returns the data set. It may write its images to the given folder as `IMAGES_NAME`, and must then return
them memory-mapped; without a folder, it returns them in memory."""


@dataclass(frozen=True)
class CacheEntry:
    """A data set in the cache.

    Parameters
    ----------
    path
        Folder of the entry.
    source
        Where the data set came from; "unfinished" if it is not complete.
    rows
        Number of rows; 0 if it is not complete.
    size
        Size in bytes.
    """

    path: Path
    source: str
    rows: int
    size: int


def load_or_build(cache: Path, kind: str, key: tuple[str, ...], build: Build) -> LandmarkDataset:
    """Return the data set cached under `key`, or build and cache it.

    A damaged entry is built again. If the cache is not writable or the disk is full, the data set is built in
    memory, and a note says so.

    Parameters
    ----------
    cache
        Cache folder; the entries are in its subfolder ``parsed``.
    kind
        Prefix of the entry's name: "kaggle", "annotations", "synthetic".
    key
        Everything that the data set depends on.
    build
        See `Build`; called once, and once more if there is no space for its files.
    """
    name = hashlib.sha256(json.dumps([FORMAT, kind, *key]).encode()).hexdigest()[:32]
    folder = cache / PARSED / f"{kind}-{name}"
    dataset = _load(folder)
    if dataset is not None:
        return dataset
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = entry_lock(folder)
        lock.acquire()
    except OSError as error:
        return _not_cached(build(None), cache, error)
    try:
        return _load(folder) or _build(folder, build)
    finally:
        lock.release()


def _build(folder: Path, build: Build) -> LandmarkDataset:
    """Build an entry; keep the data set in memory if it cannot be written."""
    partial, cache = folder.with_suffix(PARTIAL), folder.parent.parent
    try:
        partial.mkdir(exist_ok=True)
    except OSError as error:
        return _not_cached(build(None), cache, error)
    try:
        dataset = build(partial)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        return _not_cached(build(None), cache, error)
    try:
        _save(dataset, partial)
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        os.replace(partial, folder)
    except OSError as error:
        if not isinstance(dataset.images.pixels, np.memmap):
            shutil.rmtree(partial, ignore_errors=True)
        return _not_cached(dataset, cache, error)
    _evict(folder)
    return _load(folder) or dataset


def _not_cached(dataset: LandmarkDataset, cache: Path, error: OSError) -> LandmarkDataset:
    """Return the data set with a note: it takes memory, and the next command has to read it again."""
    reason = error.strerror or os.strerror(errno.ENOSPC)  # numpy's, of a partly written array, has no number
    note = (
        f"{cache}: the data set is not cached ({reason}), so the next command reads it"
        " again; free some space or make the folder writable"
    )
    return replace(dataset, notes=(*dataset.notes, note))


def _save(dataset: LandmarkDataset, folder: Path) -> None:
    """Write the labels, and the images unless they are already in the folder."""
    is_mapped = isinstance(dataset.images.pixels, np.memmap)
    if not is_mapped:
        np.save(folder / IMAGES_NAME, dataset.images[:])
    metadata = {
        "schema": dataset.schema.to_dict(),
        "source": dataset.source,
        "digest": dataset.digest,
        "rows": len(dataset),
        "notes": dataset.notes,
        "crc32": _crc32(folder / IMAGES_NAME),
    }
    arrays: dict[str, Any] = {
        "metadata": np.array(json.dumps(metadata)),
        "points": dataset.points,
        "names": np.array(dataset.names),
        "ids": dataset.images.ids,
        "rows": dataset.images.rows if is_mapped else None,
        "groups": dataset.groups,
        "visibility": dataset.visibility,
        "sides": dataset.sides,
        **{COLUMN + name: np.array(values) for name, values in dataset.columns.items()},
    }
    np.savez(folder / LABELS_NAME, **{name: values for name, values in arrays.items() if values is not None})


def _load(folder: Path) -> LandmarkDataset | None:
    """Return a cached data set; None if there is none, or it is damaged."""
    labels = folder / LABELS_NAME
    if not labels.is_file():
        return None
    # a damaged file makes zipfile, numpy and json raise almost any exception
    with suppress(Exception):
        with np.load(labels, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
            if _crc32(folder / IMAGES_NAME) != metadata["crc32"]:
                return None
            pixels = open_images(folder / IMAGES_NAME)
            rows = file.get("rows")
            ids = np.zeros(len(pixels), np.uint64)
            ids[slice(None) if rows is None else rows] = file["ids"]
            columns = {
                name.removeprefix(COLUMN): tuple(file[name].tolist())
                for name in file.files
                if name.startswith(COLUMN)
            }
            dataset = LandmarkDataset(
                images=ImageArray(pixels, rows, ids),
                points=file["points"],
                schema=LandmarkSchema.from_dict(metadata["schema"]),
                names=tuple(file["names"].tolist()),
                source=metadata["source"],
                digest=metadata["digest"],
                groups=file.get("groups"),
                visibility=file.get("visibility"),
                sides=file.get("sides"),
                columns=columns,
                notes=tuple(metadata["notes"]),
            )
        os.utime(labels)  # when it was last used, for the eviction
        return dataset
    return None


def _crc32(path: Path) -> int | None:
    """Return the CRC-32 of a file; None above `MAX_CHECKED`, where computing it would take too long."""
    if path.stat().st_size > MAX_CHECKED:
        return None
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


# --- size ----------------------------------------------------------------------------------------


def cache_entries(cache: Path) -> list[CacheEntry]:
    """Return the entries of the cache, the least recently used first."""
    parsed = cache / PARSED
    folders = [path for path in parsed.iterdir() if path.is_dir()] if parsed.is_dir() else []
    return [_describe(folder) for folder in sorted(folders, key=_last_used)]


def clear_cache(cache: Path) -> list[CacheEntry]:
    """Remove all entries that no process is building, and return them.

    Raises
    ------
    RunError
        If an entry cannot be removed.
    """
    removed = []
    for entry in cache_entries(cache):
        with _unless_locked(entry.path) as free:
            if free:
                try:
                    shutil.rmtree(entry.path)
                except OSError as error:
                    raise RunError(f"{entry.path}: cannot be removed ({error.strerror or error})") from error
                removed.append(entry)
    for stale in (cache / PARSED).glob("*.npz"):  # of version 0.1
        stale.unlink()
    return removed


def cache_limit() -> float:
    """Return the size limit of the cache in bytes, from the variable `LIMIT_VARIABLE`.

    Raises
    ------
    UserError
        If it is not a positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise UserError(f"{LIMIT_VARIABLE}={text[:40]}: must be a positive number of gigabytes")
    return limit * 1e9


def _evict(keep: Path) -> None:
    """Remove the least recently used entries until the rest, with `keep`, is below the limit."""
    cache = keep.parent.parent
    entries = cache_entries(cache)
    excess = sum(entry.size for entry in entries) - cache_limit()
    for entry in entries:
        if excess <= 0:
            return
        if entry.path == keep:
            continue
        with _unless_locked(entry.path) as free, suppress(OSError):
            if free:
                shutil.rmtree(entry.path)
                excess -= entry.size


@contextmanager
def _unless_locked(folder: Path) -> Iterator[bool]:
    """Yield True, holding the lock of an entry, or False if another process is building it."""
    try:
        lock = entry_lock(folder)
        lock.acquire(blocking=False)
    except (OSError, TimeoutError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def entry_folder(images: ImageArray) -> Path | None:
    """Return the folder of the entry that images are memory-mapped from; None if they are from elsewhere."""
    if not isinstance(images.pixels, np.memmap) or images.pixels.filename is None:
        return None
    folder = Path(str(images.pixels.filename)).parent
    return folder if folder.parent.name == PARSED and (folder / LABELS_NAME).is_file() else None


def entry_lock(folder: Path) -> FileLock:
    """Return the lock of an entry, whose file is in another folder and is never removed."""
    locks = folder.parent.parent / LOCKS
    locks.mkdir(exist_ok=True)
    return FileLock(locks / f"{folder.stem}.lock")


def _describe(folder: Path) -> CacheEntry:
    size = sum(_file_size(path) for path in folder.iterdir())
    source, rows = "unfinished", 0
    with suppress(Exception):
        with np.load(folder / LABELS_NAME, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
        source, rows = str(metadata["source"]), int(metadata["rows"])
    return CacheEntry(folder, source, rows, size)


def _file_size(path: Path) -> int:
    with suppress(OSError):  # another process may have renamed it in the meantime
        return path.stat().st_size
    return 0


def _last_used(folder: Path) -> float:
    labels = folder / LABELS_NAME
    return (labels if labels.is_file() else folder).stat().st_mtime
