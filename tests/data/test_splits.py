"""Splits and folds: near-duplicates stay together, every row is used once, the seed determines the result."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.near_duplicates import group_near_duplicates
from landmarks_fastai.data.splits import split_dataset, split_from_config, split_into_folds
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError

FACES = draw_synthetic_faces(160, seed=21)


def with_near_duplicates(dataset: LandmarkDataset, rng: np.random.Generator) -> LandmarkDataset:
    """Append a copy of each face, shifted by up to 3 px, brighter or darker, and noisy."""
    images, points = [], []
    for image, face in zip(dataset.images, dataset.points, strict=True):
        dx, dy = rng.integers(-3, 4, 2)
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
        shifted = padded[3 - dy : 3 - dy + dataset.size, 3 - dx : 3 - dx + dataset.size]
        changed = shifted * rng.uniform(0.8, 1.15) + rng.normal(0, 2, shifted.shape)
        images.append(np.clip(changed, 0, 255).astype(np.uint8))
        points.append(face + np.array([dx, dy]))
    return dataclasses.replace(
        dataset,
        images=np.concatenate([dataset.images, images]),
        points=np.concatenate([dataset.points, np.asarray(points, np.float32)]),
        names=dataset.names * 2,
    )


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


@pytest.mark.parametrize("seed", [0, 1])
def test_group_near_duplicates_with_missing_labels_groups_copies(seed):
    """There are enough rows to cluster identities, and labels are missing as in Kaggle's data."""
    dataset = with_near_duplicates(FACES, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    points = dataset.points.copy()
    points[np.ix_(np.flatnonzero(rng.random(len(points)) < 0.4), [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13])] = (
        np.nan
    )
    points[5, 0] = points[7, [0, 1]] = np.nan
    points[9] = np.nan
    dataset = dataclasses.replace(dataset, points=points)
    groups = group_near_duplicates(dataset)
    aligned = np.setdiff1d(np.arange(160), [5, 7, 9])
    np.testing.assert_array_equal(groups[aligned], groups[aligned + 160])
    assert np.bincount(groups).max() < 30
    split = split_dataset(dataset, "grouped", 0.2, seed)
    assert abs(len(split.valid) - 64) < np.bincount(groups).max()


def test_group_near_duplicates_accepts_color_and_large_images():
    dataset = with_near_duplicates(
        draw_synthetic_faces(6, seed=2, size=150, color=True), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(group_near_duplicates(dataset), [0, 1, 2, 3, 4, 5] * 2)


def test_group_near_duplicates_without_labels_compares_whole_images():
    dataset = with_near_duplicates(first_faces(6), np.random.default_rng(0))
    images = dataset.images.copy()
    images[6:] = np.clip(images[:6] * 0.9 + 8, 0, 255)  # not shifted: there are no labels to align them by
    dataset = dataclasses.replace(dataset, images=images, points=np.full_like(dataset.points, np.nan))
    np.testing.assert_array_equal(group_near_duplicates(dataset), [0, 1, 2, 3, 4, 5] * 2)


def test_group_near_duplicates_rarely_groups_different_faces():
    assert np.bincount(group_near_duplicates(FACES)).max() <= 16
    np.testing.assert_array_equal(group_near_duplicates(first_faces(40)), np.arange(40))


def test_group_near_duplicates_uses_given_groups_and_identical_images():
    dataset = dataclasses.replace(first_faces(9), groups=np.array([7, 7, 7, 3, 3, 3, 5, 5, 5]))
    np.testing.assert_array_equal(group_near_duplicates(dataset), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    images = dataset.images.copy()
    images[8] = images[0]
    np.testing.assert_array_equal(
        group_near_duplicates(dataclasses.replace(dataset, images=images)), [0, 0, 0, 1, 1, 1, 0, 0, 0]
    )


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
    np.testing.assert_array_equal(group_near_duplicates(first_faces(1)), [0])


def test_split_dataset_invalid_argument_raises():
    with pytest.raises(UserError, match=r"data\.split: no such kind 'groups'; did you mean 'grouped'"):
        split_dataset(first_faces(4), "groups", 0.2, 0)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(UserError, match=r"data\.valid_fraction"):
            split_dataset(first_faces(4), "grouped", fraction, 0)
    one_group = dataclasses.replace(first_faces(4), groups=np.zeros(4, np.int64))
    with pytest.raises(UserError, match="all 4 rows look like one person"):
        split_dataset(one_group, "grouped", 0.2, 0)
