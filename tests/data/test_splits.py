"""Splits and folds: near-duplicates stay together, every row is used once, the seed determines the result."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from helpers.near_duplicates import with_near_duplicates
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data import near_duplicates
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import split_dataset, split_from_config, split_into_folds, split_notes
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError

FACES = draw_synthetic_faces(160, seed=21)


def first_faces(count: int) -> LandmarkDataset:
    return FACES.subset(np.arange(count))


def assert_partition(split, n):
    np.testing.assert_array_equal(np.sort(np.concatenate([split.train, split.valid])), np.arange(n))
    np.testing.assert_array_equal(split.train, np.sort(split.train))
    np.testing.assert_array_equal(split.valid, np.sort(split.valid))
    assert len(split.train)
    assert len(split.valid)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(4, 40))
def test_split_dataset_keeps_near_duplicates_on_one_side(seed, count):
    dataset = with_near_duplicates(first_faces(count), np.random.default_rng(seed))
    split = split_dataset(dataset, "grouped", 0.25, seed)
    assert_partition(split, 2 * count)
    is_valid = np.isin(np.arange(2 * count), split.valid)
    np.testing.assert_array_equal(is_valid[:count], is_valid[count:])
    assert len(np.unique(split.groups)) > count // 2  # not all in one group


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda groups: len(set(groups)) > 1),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 99),
)
def test_split_dataset_reaches_fraction_to_within_largest_group(groups, fraction, seed):
    dataset = dataclasses.replace(first_faces(len(groups)), groups=np.array(groups))
    split = split_dataset(dataset, "grouped", fraction, seed)
    assert_partition(split, len(groups))
    assert not set(split.groups[split.train]) & set(split.groups[split.valid])
    wanted = min(max(round(len(groups) * fraction), 1), len(groups) - 1)
    assert abs(len(split.valid) - wanted) < np.bincount(split.groups).max()


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=4, max_size=60).filter(lambda groups: len(set(groups)) > 3),
    folds=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_split_into_folds_uses_each_row_once_and_keeps_groups_together(groups, folds, seed):
    dataset = dataclasses.replace(first_faces(len(groups)), groups=np.array(groups))
    splits = split_into_folds(dataset, "grouped", folds, seed)
    assert len(splits) == folds
    for split in splits:
        assert_partition(split, len(groups))
        assert not set(split.groups[split.train]) & set(split.groups[split.valid])
    valid = np.concatenate([split.valid for split in splits])
    np.testing.assert_array_equal(np.sort(valid), np.arange(len(groups)))
    sizes = [len(split.valid) for split in splits]
    assert max(sizes) - min(sizes) <= np.bincount(splits[0].groups).max()


def test_split_into_folds_grouped_keeps_near_duplicates_together_and_random_does_not():
    dataset = with_near_duplicates(first_faces(20), np.random.default_rng(0))
    for split in split_into_folds(dataset, "grouped", 4, 0):
        is_valid = np.isin(np.arange(40), split.valid)
        np.testing.assert_array_equal(is_valid[:20], is_valid[20:])
    random_fold = split_into_folds(dataset, "random", 4, 0)[0]
    assert len(random_fold.valid) == 10
    is_valid = np.isin(np.arange(40), random_fold.valid)
    assert (is_valid[:20] != is_valid[20:]).any()


def test_split_notes_of_grouped_split_of_many_rows(monkeypatch):
    assert split_notes(FACES, DataConfig()) == ()
    monkeypatch.setattr(near_duplicates, "MAX_ROWS", 100)
    (note,) = split_notes(FACES, DataConfig())
    assert "only near-duplicates are grouped" in note
    assert split_notes(FACES, DataConfig(split="random")) == ()


def test_split_into_folds_depends_on_seed():
    split, repeated, other = (split_into_folds(first_faces(40), "grouped", 4, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(split.valid, repeated.valid)
    assert not np.array_equal(split.valid, other.valid)


def test_split_from_config_returns_named_fold():
    folds = split_into_folds(first_faces(20), "grouped", 4, 7)
    for number in (1, 4):
        fold = split_from_config(first_faces(20), DataConfig(folds=4, fold=number), 7)
        np.testing.assert_array_equal(fold.valid, folds[number - 1].valid)
    split = split_from_config(first_faces(20), DataConfig(valid_fraction=0.25), 7)
    np.testing.assert_array_equal(split.valid, split_dataset(first_faces(20), "grouped", 0.25, 7).valid)


def test_split_into_folds_fewer_groups_than_folds_raises():
    dataset = dataclasses.replace(first_faces(9), groups=np.array([7, 7, 7, 3, 3, 3, 5, 5, 5]))
    assert len(split_into_folds(dataset, "grouped", 3, 0)) == 3
    with pytest.raises(
        UserError, match=r"^data\.folds: .* has 3 groups of near-duplicates, too few for 4 folds"
    ):
        split_into_folds(dataset, "grouped", 4, 0)


def test_split_dataset_depends_on_seed():
    dataset = first_faces(40)
    split, repeated, other = (split_dataset(dataset, "grouped", 0.25, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(split.valid, repeated.valid)
    assert not np.array_equal(split.valid, other.valid)
    assert len(split.valid) == 10


def test_split_dataset_random_is_permutation_of_rows():
    dataset = with_near_duplicates(first_faces(20), np.random.default_rng(0))
    split = split_dataset(dataset, "random", 0.25, 3)
    assert_partition(split, 40)
    np.testing.assert_array_equal(split.valid, np.sort(np.random.default_rng(3).permutation(40)[:10]))
    is_valid = np.isin(np.arange(40), split.valid)
    assert (is_valid[:20] != is_valid[20:]).any()


def test_split_to_dict_is_json_serializable_and_complete():
    dataset = dataclasses.replace(first_faces(4), groups=np.array([0, 0, 1, 2]))
    entries = json.loads(json.dumps(split_dataset(dataset, "grouped", 0.25, 0).to_dict()))
    assert entries["rows"] == {"train": 3, "valid": 1}
    assert entries["groups"] == {"train": 2, "valid": 1, "largest": 2}
    assert sorted(entries["train"] + entries["valid"]) == [0, 1, 2, 3]
    assert (entries["kind"], entries["seed"]) == ("grouped", 0)


def test_split_dataset_needs_two_rows():
    assert_partition(split_dataset(first_faces(2), "grouped", 0.2, 0), 2)
    with pytest.raises(UserError, match="1 row cannot be split"):
        split_dataset(first_faces(1), "grouped", 0.2, 0)


def test_split_dataset_invalid_argument_raises():
    with pytest.raises(UserError, match=r"data\.split: no such kind 'groups'; did you mean 'grouped'"):
        split_dataset(first_faces(4), "groups", 0.2, 0)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(UserError, match=r"data\.valid_fraction"):
            split_dataset(first_faces(4), "grouped", fraction, 0)
    one_group = dataclasses.replace(first_faces(4), groups=np.zeros(4, np.int64))
    with pytest.raises(UserError, match="all 4 rows look like one person"):
        split_dataset(one_group, "grouped", 0.2, 0)
