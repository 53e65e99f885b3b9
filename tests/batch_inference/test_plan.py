"""The plan: shards are read from their places in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarks_fastai.batch_inference.plan import PLAN_NAME, ShardPlan, plan_exists, read_planned, write_plan
from landmarks_fastai.batch_inference.shards import Shard
from landmarks_fastai.errors import UserError

SHARDS = [
    Shard("files", names=("a.jpg", "ä\udcff\n.jpg")),
    Shard("tar", archive="s3://b/a.tar"),
    Shard("zip", archive="a.zip", start=5, count=3),
]


def test_plan_gives_shards_and_settings(tmp_path: Path, memory_url: str) -> None:
    for out in (str(tmp_path), memory_url):
        assert not plan_exists(out)
        write_plan(out, SHARDS, {"refine": "auto", "models": ["a"]})
        assert plan_exists(out)
        plan = ShardPlan(out)
        assert plan.settings == {"refine": "auto", "models": ["a"]}
        assert [read_planned(out, plan.start(index)) for index in range(len(plan))] == SHARDS


@pytest.mark.parametrize("content", ["", "x\n", "[]\n", '{"version": 99, "settings": {}}\n'])
def test_damaged_plan_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / PLAN_NAME).write_text(content)
    with pytest.raises(UserError, match=r"plan\.jsonl: damaged, or written by another version"):
        ShardPlan(str(tmp_path))


def test_damaged_shard_is_reported(tmp_path: Path) -> None:
    write_plan(str(tmp_path), SHARDS, {})
    start = ShardPlan(str(tmp_path)).start(1)
    with pytest.raises(UserError, match="damaged"):
        read_planned(str(tmp_path), start + 3)
