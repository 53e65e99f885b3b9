"""The grouping of a cached data set is computed once; it depends on the rows, their labels and groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data import grouping_cache
from landmarks_fastai.data.cache import cache_entries, clear_cache, entry_folder, load_or_build
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.grouping_cache import load_or_group
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces

FACES = draw_synthetic_faces(6, seed=4)


class CountingGroup:
    """Groups rows in pairs, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, dataset: LandmarkDataset) -> np.ndarray:
        self.calls += 1
        return np.arange(len(dataset)) // 2


@pytest.fixture
def cached(tmp_path: Path) -> LandmarkDataset:
    return load_or_build(tmp_path, "synthetic", ("a",), lambda folder: FACES)


def files(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("parsed/*/groups-*.npy"))


def test_load_or_group_computes_once(tmp_path, cached):
    group = CountingGroup()
    for _ in range(3):
        groups = load_or_group(cached, group)
        assert groups.dtype == np.int64
        assert groups.tolist() == [0, 0, 1, 1, 2, 2]
    # another process opens the data set again
    again = load_or_build(tmp_path, "synthetic", ("a",), lambda folder: FACES)
    assert load_or_group(again, group).tolist() == [0, 0, 1, 1, 2, 2]
    assert group.calls == 1
    assert len(files(tmp_path)) == 1


def test_load_or_group_depends_on_rows_points_and_groups(tmp_path, cached):
    group = CountingGroup()
    points = cached.points.copy()
    points[2, 3] = np.nan
    variants = [
        cached,
        cached.subset(np.array([0, 1, 2, 3, 4])),
        replace(cached, images=cached.images.select(np.array([1, 0, 2, 3, 4, 5]))),
        replace(cached, points=points),
        replace(cached, groups=np.arange(6)),
        replace(cached, groups=np.array([0, 0, 1, 1, 2, 2])),
    ]
    for _ in range(2):
        for dataset in variants:
            assert len(load_or_group(dataset, group)) == len(dataset)
    assert group.calls == len(variants) == len(files(tmp_path))
    # what the groups do not depend on
    load_or_group(replace(cached, names=tuple("abcdef"), corrections="1", digest="2"), group)
    assert group.calls == len(variants)


def test_load_or_group_of_images_outside_the_cache_keeps_nothing(tmp_path, cached):
    """Neither of images in memory, such as altered ones, nor beside a file of the user."""
    np.save(tmp_path / "images.npy", FACES.images[:])
    for images in (255 - cached.images[:], np.load(tmp_path / "images.npy", mmap_mode="r")):
        group = CountingGroup()
        for _ in range(2):
            load_or_group(replace(cached, images=images), group)
        assert group.calls == 2
    assert not files(tmp_path)
    assert entry_folder(cached.images) == next((tmp_path / "parsed").iterdir())


@pytest.mark.parametrize("content", [b"", b"not numpy", None])
def test_load_or_group_replaces_damaged_file(tmp_path, cached, content):
    group = CountingGroup()
    load_or_group(cached, group)
    (path,) = files(tmp_path)
    if content is None:
        np.save(path, np.zeros(3, np.int32))
    else:
        path.write_bytes(content)
    assert load_or_group(cached, group).tolist() == [0, 0, 1, 1, 2, 2]
    assert group.calls == 2
    load_or_group(cached, group)
    assert group.calls == 2


def test_load_or_group_removes_oldest_files(tmp_path, cached, monkeypatch):
    monkeypatch.setattr(grouping_cache, "MAX_FILES", 2)
    group = CountingGroup()
    for count in (2, 3, 4, 5):
        load_or_group(cached.subset(np.arange(count)), group)
    assert len(files(tmp_path)) == 2
    load_or_group(cached.subset(np.arange(5)), group)
    assert group.calls == 4


def test_load_or_group_in_read_only_cache_computes(tmp_path, cached, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "save", refuse)
    assert load_or_group(cached, CountingGroup()).tolist() == [0, 0, 1, 1, 2, 2]
    monkeypatch.setattr(grouping_cache, "entry_lock", refuse)
    assert load_or_group(cached, CountingGroup()).tolist() == [0, 0, 1, 1, 2, 2]


def test_groupings_are_part_of_the_cache_entry(tmp_path, cached):
    before = cache_entries(tmp_path)[0].size
    load_or_group(cached, CountingGroup())
    assert cache_entries(tmp_path)[0].size == before + files(tmp_path)[0].stat().st_size
    assert len(clear_cache(tmp_path)) == 1
    assert not files(tmp_path)
