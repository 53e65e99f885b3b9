"""Tables that were read once, kept so that they need not be read again.

Knows how a table lies in a file. Knows nothing about where its faces came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.files import replacing
from landmarks_fastai.schema import Schema

FORMAT = 2
"""Goes up when a reader makes another table of the same bytes, so that older files are not found."""

PARSED = "parsed"


def remember(cache: Path, kind: str, key: tuple[str, ...], make: Callable[[], FaceTable]) -> FaceTable:
    """Return the table that is kept under `key`, or make and keep it.

    A file that is damaged is made anew. Where the folder can't be written to, nothing is kept: that
    costs time at the next call and is no fault of this one.

    Parameters
    ----------
    cache
        The cache; tables are kept in its folder ``parsed``, beside what was fetched.
    kind
        What the file's name begins with: "kaggle", "folder".
    key
        All that the table depends on.
    make
        Reads the table; called once at most.
    """
    name = hashlib.sha256(json.dumps([FORMAT, kind, *key]).encode()).hexdigest()[:32]
    path = cache / PARSED / f"{kind}-{name}.npz"
    if path.is_file():
        # damaged, it makes zipfile, numpy (which parses Python in it) and json raise nearly anything
        with suppress(Exception):
            return _load(path)
    table = make()
    with suppress(LandmarksError, OSError), replacing(path) as part:
        _save(table, part)
    return table


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _save(table: FaceTable, path: Path) -> None:
    about = {"schema": table.schema.to_dict(), "source": table.source, "digest": table.digest}
    arrays: dict[str, Any] = {"images": table.images, "points": table.points, "names": np.array(table.names)}
    if table.groups is not None:
        arrays["groups"] = table.groups
    np.savez(path, about=np.array(json.dumps(about)), **arrays)


def _load(path: Path) -> FaceTable:
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        return FaceTable(
            images=file["images"],
            points=file["points"],
            schema=Schema.from_dict(about["schema"]),
            names=tuple(file["names"].tolist()),
            source=about["source"],
            digest=about["digest"],
            groups=file.get("groups"),
        )
