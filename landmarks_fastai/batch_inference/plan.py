"""The plan of a run: which shards there are, in a file beside the results, so that a later run goes on."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from landmarks_fastai.batch_inference.shards import Shard
from landmarks_fastai.batch_inference.storage import join, opened, written
from landmarks_fastai.errors import UserError

PLAN_NAME = "plan.jsonl"
VERSION = 1


class ShardPlan:
    """The shards of a run, numbered from 0. In memory are only their places in the file.

    Parameters
    ----------
    out
        Folder of the results.

    Attributes
    ----------
    settings
        What determines the results, as `write_plan` got it.

    Raises
    ------
    UserError
        If there is no plan, or it is damaged.
    """

    def __init__(self, out: str) -> None:
        self.out = out
        self._location = join(out, PLAN_NAME)
        self._starts = array("q")
        with opened(self._location) as file:
            self.settings = self._read_settings(file.readline())
            start = file.tell()
            for line in file:
                self._starts.append(start)
                start += len(line)

    def _read_settings(self, line: bytes) -> dict[str, Any]:
        try:
            head = json.loads(line)
            if head["version"] == VERSION:
                return dict(head["settings"])
        except (ValueError, KeyError, TypeError):
            pass
        raise UserError(f"{self._location}: damaged, or written by another version; choose another --out")

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self._starts)

    def start(self, index: int) -> int:
        """Return the place of a shard in the file, for `read_planned`."""
        return self._starts[index]


def read_planned(out: str, start: int) -> Shard:
    """Read a shard of the plan of a folder.

    Parameters
    ----------
    out
        Folder of the results.
    start
        Place of the shard; see `ShardPlan.start`.

    Raises
    ------
    UserError
        If the plan is damaged.
    """
    location = join(out, PLAN_NAME)
    with opened(location) as file:
        file.seek(start)
        line = file.readline()
    try:
        values = json.loads(line)
        return Shard(**{**values, "names": tuple(values["names"])})
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{location}: damaged; choose another --out") from None


def plan_exists(out: str) -> bool:
    """Return True if a folder contains a plan."""
    try:
        with opened(join(out, PLAN_NAME)):
            return True
    except UserError:
        return False


def write_plan(out: str, shards: Iterable[Shard], settings: Mapping[str, Any]) -> None:
    """Write the plan of a folder; shards are taken and written one by one.

    Raises
    ------
    UserError, RunError
        If the shards cannot be listed, or the file cannot be written.
    """
    with written(join(out, PLAN_NAME)) as partial, partial.open("w", encoding="ascii") as file:
        file.write(json.dumps({"version": VERSION, "settings": settings}) + "\n")
        for shard in shards:
            file.write(json.dumps(asdict(shard)) + "\n")
