"""The cache of parsed data sets: hits, damaged files, folders that are not writable."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from landmarks_fastai.data.cache import load_or_parse
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces

DATASET = replace(draw_synthetic_faces(3, seed=1), groups=np.array([4, 4, 2]))


def fail_if_called():
    raise AssertionError("must not be called")


def test_load_or_parse_parses_once_per_key(tmp_path):
    calls: list[int] = []

    def parse():
        calls.append(1)
        return DATASET

    for key in [("a",), ("a",), ("b",), ("a",)]:
        dataset = load_or_parse(tmp_path, "kaggle", key, parse)
        np.testing.assert_array_equal(dataset.images, DATASET.images)
        np.testing.assert_array_equal(dataset.points, DATASET.points)
        np.testing.assert_array_equal(dataset.groups, DATASET.groups)
        metadata = (dataset.schema, dataset.names, dataset.source, dataset.digest)
        assert metadata == (DATASET.schema, DATASET.names, DATASET.source, DATASET.digest)
    assert len(calls) == 2
    assert len(list((tmp_path / "parsed").iterdir())) == 2


def test_load_or_parse_keeps_missing_labels_and_groups(tmp_path):
    points = DATASET.points.copy()
    points[1, 3] = np.nan
    dataset = replace(DATASET, points=points, groups=None)
    load_or_parse(tmp_path, "kaggle", ("a",), lambda: dataset)
    cached = load_or_parse(tmp_path, "kaggle", ("a",), fail_if_called)
    np.testing.assert_array_equal(cached.points, points)
    assert cached.groups is None


def test_load_or_parse_replaces_damaged_file(tmp_path):
    """Truncate the file and flip bits at many positions: there must be no exception and no wrong data."""
    dataset = DATASET.subset(np.array([1]))
    load_or_parse(tmp_path, "kaggle", ("a",), lambda: dataset)
    (path,) = (tmp_path / "parsed").glob("kaggle-*.npz")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    positions = np.r_[0:200:2, len(content) - 1200 : len(content) : 5, rng.integers(0, len(content), 50)]
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        for damaged in [bytes(flipped), content[:position]]:
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                loaded = load_or_parse(tmp_path, "kaggle", ("a",), lambda: dataset)
            np.testing.assert_array_equal(loaded.images, dataset.images)
            np.testing.assert_array_equal(loaded.points, dataset.points)
            assert (loaded.names, loaded.source) == (dataset.names, dataset.source)


def test_load_or_parse_without_writable_cache_returns_data(tmp_path):
    file = tmp_path / "parsed"
    file.write_bytes(b"")
    assert load_or_parse(tmp_path, "kaggle", ("a",), lambda: DATASET) is DATASET
    assert load_or_parse(file, "kaggle", ("a",), lambda: DATASET) is DATASET
