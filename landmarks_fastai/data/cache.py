"""Cache of parsed data sets, so that each source is parsed only once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import atomic_write

FORMAT = 3
"""Increased when a reader returns other data for the same files, so that older cache files are ignored."""

PARSED = "parsed"
"""Subfolder of the cache with the parsed data sets."""


def load_or_parse(
    cache: Path, kind: str, key: tuple[str, ...], parse: Callable[[], LandmarkDataset]
) -> LandmarkDataset:
    """Return the data set cached under `key`, or parse and cache it.

    A damaged cache file is replaced. If the cache is not writable, the data set is returned without caching.

    Parameters
    ----------
    cache
        Cache folder; the data sets are in its subfolder ``parsed``.
    kind
        Prefix of the file name: "kaggle", "csv", "synthetic".
    key
        Everything that the data set depends on.
    parse
        Returns the data set; called at most once.
    """
    name = hashlib.sha256(json.dumps([FORMAT, kind, *key]).encode()).hexdigest()[:32]
    path = cache / PARSED / f"{kind}-{name}.npz"
    if path.is_file():
        # a damaged file makes zipfile, numpy and json raise almost any exception
        with suppress(Exception):
            return _load(path)
    dataset = parse()
    with suppress(LandmarksError, OSError), atomic_write(path) as partial:
        _save(dataset, partial)
    return dataset


def _save(dataset: LandmarkDataset, path: Path) -> None:
    metadata = {"schema": dataset.schema.to_dict(), "source": dataset.source, "digest": dataset.digest}
    arrays: dict[str, Any] = {
        "images": dataset.images,
        "points": dataset.points,
        "names": np.array(dataset.names),
    }
    if dataset.groups is not None:
        arrays["groups"] = dataset.groups
    np.savez(path, metadata=np.array(json.dumps(metadata)), **arrays)


def _load(path: Path) -> LandmarkDataset:
    with np.load(path, allow_pickle=False) as file:
        metadata = json.loads(str(file["metadata"]))
        return LandmarkDataset(
            images=file["images"],
            points=file["points"],
            schema=LandmarkSchema.from_dict(metadata["schema"]),
            names=tuple(file["names"].tolist()),
            source=metadata["source"],
            digest=metadata["digest"],
            groups=file.get("groups"),
        )
