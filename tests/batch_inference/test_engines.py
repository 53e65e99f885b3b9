"""The engines: what a worker returns, and stopping while shards are in progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from landmarks_fastai.batch_inference.engines import ray
from landmarks_fastai.batch_inference.plan import ShardPlan, write_plan
from landmarks_fastai.batch_inference.prediction import Job, ShardPredictor
from landmarks_fastai.batch_inference.results import done_shards
from landmarks_fastai.batch_inference.shards import Shard
from landmarks_fastai.errors import RunError
from landmarks_fastai.utils.processors import PROCESSORS_VARIABLE


@pytest.fixture
def planned(job: Job, photos: Path) -> ShardPlan:
    """Return a plan of two shards of one image each."""
    write_plan(job.out, [Shard("files", names=(str(photos / name),)) for name in ("1.png", "2.png")], {})
    return ShardPlan(job.out)


@pytest.fixture(autouse=True)
def _all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROCESSORS_VARIABLE, "1")  # removed afterward; an actor sets it


def test_actor_predicts_the_shard_at_a_place_of_the_plan(job: Job, planned: ShardPlan) -> None:
    row = ray.ShardActor(job)({"index": 1, "start": planned.start(1)})
    assert (row["index"], row["images"], row["error"], row[ray.FATAL]) == (1, 1, "", "")
    assert done_shards(job.out) == {1}


def test_actor_reports_an_error_that_ends_the_run(
    job: Job, planned: ShardPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = ray.ShardActor(job)

    def full(*_: object) -> None:
        raise RunError("out: cannot be written (no space)")

    monkeypatch.setattr(ShardPredictor, "__call__", full)
    assert actor({"index": 0, "start": planned.start(0)})[ray.FATAL] == "out: cannot be written (no space)"


def test_stop_does_not_wait_for_shards_in_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "POLL_SECONDS", 0.01)
    ended, answers = Event(), iter([False, False, True])

    def rows() -> Iterator[dict[str, object]]:
        yield {"index": 0}
        ended.wait(60)

    assert list(ray._until_stopped(rows(), lambda: next(answers))) == [{"index": 0}]
    ended.set()


def test_error_of_the_cluster_reaches_the_caller() -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"index": 0}
        raise ValueError("lost")

    results = ray._until_stopped(rows(), lambda: False)
    assert next(results) == {"index": 0}
    with pytest.raises(ValueError, match="lost"):
        next(results)
