"""Predict any number of images, shard by shard, into Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from landmarks_fastai.batch_inference.engines import ENGINES
from landmarks_fastai.batch_inference.engines.base import Run
from landmarks_fastai.batch_inference.plan import PLAN_NAME, ShardPlan, plan_exists, write_plan
from landmarks_fastai.batch_inference.prediction import ShardSummary
from landmarks_fastai.batch_inference.results import LANDMARKS, REJECTED, done_shards, part_name
from landmarks_fastai.batch_inference.sources import divide, list_files
from landmarks_fastai.batch_inference.storage import delete, is_url, join
from landmarks_fastai.commands.prediction_folder import Existing, lock_predictions
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.files import remove_stale_partials
from landmarks_fastai.utils.text import format_count, suggest

SHARD_SIZE = 1_000
"""Default number of images of a shard: what a stop costs, and the images of one file of results."""

OPTIONS = {
    "sources": "the sources",
    "models": "--model",
    "detector": "--detector",
    "refine": "--refine",
    "min_confidence": "--min-confidence",
    "shard_size": "--shard-size",
}
"""What must not change when a run is resumed, by its key in the plan."""


@dataclass
class ShardTotals:
    """Totals of a run.

    Parameters
    ----------
    done
        Number of shards that were predicted.
    failed
        Messages about the shards that could not be read.
    images, faces, no_face, unreadable, others
        See `ShardSummary`.
    """

    done: int = 0
    failed: int = 0
    images: int = 0
    faces: int = 0
    no_face: int = 0
    unreadable: int = 0
    others: int = 0

    def add(self, summary: ShardSummary) -> None:
        """Add a shard."""
        if summary.error:
            self.failed += 1
            return
        self.done += 1
        for field in fields(self)[2:]:
            setattr(self, field.name, getattr(self, field.name) + getattr(summary, field.name))


def check_engine(name: str) -> None:
    """Raise a UserError if there is no such engine."""
    if name not in ENGINES:
        raise UserError(f"--engine {name}: no such engine; {suggest(name, ENGINES)}")


def check_shards(out: str, existing: Existing) -> None:
    """Raise a UserError if a folder cannot take results.

    It is a file; it has results, and they are neither to be resumed nor replaced; or their plan is missing.
    """
    if not is_url(out) and Path(out).exists() and not Path(out).is_dir():
        raise UserError(f"{out}: is a file; choose another --out")
    done, planned = done_shards(out), plan_exists(out)
    if existing is Existing.RESUME and done and not planned:
        raise UserError(
            f"{out}: cannot be resumed, because {PLAN_NAME} is missing; use --overwrite, or choose another"
            " --out"
        )
    if existing is Existing.REFUSE and (planned or done):
        count = format_count(len(done), "shard")
        raise UserError(
            f"{out}: contains results of an earlier run ({count}); go on with --resume, replace them with"
            " --overwrite, or choose another --out"
        )


@contextmanager
def open_shards(
    out: str,
    sources: Sequence[str],
    settings: Mapping[str, Any],
    existing: Existing,
    shard_size: int,
    note: Callable[[str], None],
) -> Iterator[ShardPlan]:
    """Open a folder for results, and plan its shards unless that is done; see `check_shards`.

    No other process of this machine can do so until the end of the block.

    Parameters
    ----------
    out
        The folder: a path or a URL.
    sources
        Sources of images: absolute paths or URLs.
    settings
        What determines the results, by the keys of `OPTIONS` that are not set here.
    existing
        What to do with results in it.
    shard_size
        Number of images of a shard.
    note
        Called with one line about files that are left out, or results that are deleted.

    Raises
    ------
    UserError
        If the folder is not available, the results to resume were made with other options, or a source cannot
        be used.
    RunError
        If the folder cannot be written to.
    """
    settings = {"sources": list(sources), "shard_size": shard_size, **settings}
    # files appear in a remote folder only complete, so that it needs no lock
    with nullcontext() if is_url(out) else lock_predictions(Path(out)):
        check_shards(out, existing)
        if existing is Existing.OVERWRITE and (plan_exists(out) or done_shards(out)):
            note(f"{out}: results of {format_count(len(done_shards(out)), 'shard')} deleted")
            for name in (PLAN_NAME, LANDMARKS, REJECTED):
                delete(join(out, name))
        if not plan_exists(out):
            locations = (location for source in sources for location in list_files(source, note))
            write_plan(out, divide(locations, shard_size), settings)
        plan = ShardPlan(out)
        _check_unchanged(out, plan.settings, settings)
        if not is_url(out):  # killed processes may have left temporary files
            names = {part_name(index) for index in range(len(plan))}
            for folder in (LANDMARKS, REJECTED):
                remove_stale_partials(Path(out, folder), names)
        yield plan


def predict_shards(engine: str, run: Run, report: Callable[[ShardSummary], None]) -> ShardTotals:
    """Predict shards with one of `ENGINES`, and return the totals.

    Parameters
    ----------
    engine
        Its name.
    run
        The shards.
    report
        Called with what became of each shard.

    Raises
    ------
    UserError
        If the engine is not available.
    RunError
        If results cannot be written.
    """
    totals = ShardTotals()
    for summary in ENGINES[engine](run) if run.shards else ():
        totals.add(summary)
        report(summary)
    return totals


def _check_unchanged(out: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise a UserError if results were made with other options."""
    changed = [title for key, title in OPTIONS.items() if before.get(key) != now.get(key)]
    if changed:
        raise UserError(
            f"{out}: the earlier results were made with another value of {', '.join(changed)}; use the same,"
            " or choose another --out"
        )
