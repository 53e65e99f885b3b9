"""Parquet files of landmarks and of rejected images."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from landmarks_fastai.batch_inference import results
from landmarks_fastai.batch_inference.results import done_shards, shard_writer
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import KAGGLE15


def faces(count: int, start: float = 0.0) -> Landmarks:
    points = start + np.arange(count * 30, dtype=np.float32).reshape(count, 15, 2)
    confidence = np.full((count, 15), 0.5, np.float32)
    return Landmarks(points, KAGGLE15, confidence, np.full_like(confidence, np.nan))


@pytest.mark.parametrize("rows_per_group", [1, 1_000_000])
def test_table_has_one_row_per_landmark(
    tmp_path: Path, rows_per_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "ROWS_PER_GROUP", rows_per_group)
    with shard_writer(str(tmp_path), 3, KAGGLE15) as writer:
        writer.add("a.jpg", faces(2))
        writer.add("b\udcff.jpg", faces(1, 100.0))
        assert done_shards(str(tmp_path)) == set()
    assert done_shards(str(tmp_path)) == {3}
    table = pq.read_table(tmp_path / "landmarks" / "part-00003.parquet")
    assert table.column_names == ["path", "face", "landmark", "x", "y", "confidence", "visibility"]
    columns = table.to_pydict()
    assert columns["path"] == ["a.jpg"] * 30 + ["b\\udcff.jpg"] * 15
    assert columns["face"] == [0] * 15 + [1] * 15 + [0] * 15
    assert columns["landmark"] == list(KAGGLE15.names) * 3
    assert columns["x"][:3] == [0, 2, 4]
    assert columns["y"][-1] == 129
    assert set(columns["confidence"]) == {0.5}
    assert set(columns["visibility"]) == {None}
    assert not (tmp_path / "rejected").exists()


def test_rejected_images_are_listed_and_empty_shard_is_done(tmp_path: Path) -> None:
    with shard_writer(str(tmp_path), 0, KAGGLE15) as writer:
        writer.reject("a.jpg", "unreadable", "two\nlines")
    assert pq.read_table(tmp_path / "rejected" / "part-00000.parquet").to_pylist() == [
        {"path": "a.jpg", "kind": "unreadable", "reason": "two lines"}
    ]
    assert pq.read_table(tmp_path / "landmarks" / "part-00000.parquet").num_rows == 0
    assert done_shards(str(tmp_path)) == {0}


def test_exception_leaves_no_file(tmp_path: Path) -> None:
    with suppress(RuntimeError), shard_writer(str(tmp_path), 0, KAGGLE15) as writer:
        writer.add("a.jpg", faces(1))
        writer.reject("b.jpg", "unreadable", "x")
        raise RuntimeError
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_files_of_other_names_are_no_shards(memory_url: str, tmp_path: Path) -> None:
    assert done_shards(memory_url) == set()
    (tmp_path / "landmarks").mkdir()
    for name in (".part-00001.12.parquet", "part-00002.parquet.tmp", "part-123456.parquet"):
        (tmp_path / "landmarks" / name).touch()
    assert done_shards(str(tmp_path)) == {123456}
