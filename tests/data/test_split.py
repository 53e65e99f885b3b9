"""The split: near-duplicates stay together, whatever the seed; every row is on one side."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.config import Data
from landmarks_fastai.data.split import find_groups, split, split_by, split_folds
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError

FACES = draw_faces(160, seed=21)


def again(table: FaceTable, rng: np.random.Generator) -> FaceTable:
    """Append each face once more: moved by up to 3 px, brighter or darker, with noise."""
    images, points = [], []
    for image, face in zip(table.images, table.points, strict=True):
        dx, dy = rng.integers(-3, 4, 2)
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
        moved = padded[3 - dy : 3 - dy + table.size, 3 - dx : 3 - dx + table.size]
        changed = moved * rng.uniform(0.8, 1.15) + rng.normal(0, 2, moved.shape)
        images.append(np.clip(changed, 0, 255).astype(np.uint8))
        points.append(face + np.array([dx, dy]))
    return dataclasses.replace(
        table,
        images=np.concatenate([table.images, images]),
        points=np.concatenate([table.points, np.asarray(points, np.float32)]),
        names=table.names * 2,
    )


def first(count: int) -> FaceTable:
    return FACES.rows(np.arange(count))


def assert_sides(parts, n):
    np.testing.assert_array_equal(np.sort(np.concatenate([parts.train, parts.valid])), np.arange(n))
    np.testing.assert_array_equal(parts.train, np.sort(parts.train))
    np.testing.assert_array_equal(parts.valid, np.sort(parts.valid))
    assert len(parts.train)
    assert len(parts.valid)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(4, 40))
def test_near_duplicates_land_on_the_same_side(seed, count):
    table = again(first(count), np.random.default_rng(seed))
    parts = split(table, "grouped", 0.25, seed)
    assert_sides(parts, 2 * count)
    held = np.isin(np.arange(2 * count), parts.valid)
    np.testing.assert_array_equal(held[:count], held[count:])
    assert len(np.unique(parts.groups)) > count // 2  # not all thrown together


@pytest.mark.parametrize("seed", [0, 1])
def test_near_duplicates_stay_together_among_many(seed):
    """Enough rows for the clustering of persons, and points missing as in Kaggle's data."""
    table = again(FACES, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    points = table.points.copy()
    points[np.ix_(np.flatnonzero(rng.random(len(points)) < 0.4), [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13])] = (
        np.nan
    )
    points[5, 0] = points[7, [0, 1]] = np.nan
    points[9] = np.nan
    table = dataclasses.replace(table, points=points)
    groups = find_groups(table)
    kept = np.setdiff1d(np.arange(160), [5, 7, 9])
    np.testing.assert_array_equal(groups[kept], groups[kept + 160])
    assert np.bincount(groups).max() < 30
    parts = split(table, "grouped", 0.2, seed)
    assert abs(len(parts.valid) - 64) < np.bincount(groups).max()


def test_colour_faces_of_another_size_are_compared_too():
    table = again(draw_faces(6, seed=2, size=150, colour=True), np.random.default_rng(0))
    np.testing.assert_array_equal(find_groups(table), [0, 1, 2, 3, 4, 5] * 2)


def test_without_labels_whole_images_are_compared():
    table = again(first(6), np.random.default_rng(0))
    images = table.images.copy()
    images[6:] = np.clip(images[:6] * 0.9 + 8, 0, 255)  # nothing to align by, so nothing is moved
    table = dataclasses.replace(table, images=images, points=np.full_like(table.points, np.nan))
    np.testing.assert_array_equal(find_groups(table), [0, 1, 2, 3, 4, 5] * 2)


def test_strangers_are_hardly_joined():
    assert np.bincount(find_groups(FACES)).max() <= 16
    np.testing.assert_array_equal(find_groups(first(40)), np.arange(40))


def test_given_groups_are_respected_and_identical_images_joined():
    table = dataclasses.replace(first(9), groups=np.array([7, 7, 7, 3, 3, 3, 5, 5, 5]))
    np.testing.assert_array_equal(find_groups(table), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    images = table.images.copy()
    images[8] = images[0]
    np.testing.assert_array_equal(
        find_groups(dataclasses.replace(table, images=images)), [0, 0, 0, 1, 1, 1, 0, 0, 0]
    )


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda found: len(set(found)) > 1),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 99),
)
def test_every_row_is_on_one_side_and_the_share_is_met_within_the_largest_group(groups, fraction, seed):
    table = dataclasses.replace(first(len(groups)), groups=np.array(groups))
    parts = split(table, "grouped", fraction, seed)
    assert_sides(parts, len(groups))
    assert not set(parts.groups[parts.train]) & set(parts.groups[parts.valid])
    wanted = min(max(round(len(groups) * fraction), 1), len(groups) - 1)
    assert abs(len(parts.valid) - wanted) < np.bincount(parts.groups).max()


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=4, max_size=60).filter(lambda found: len(set(found)) > 3),
    folds=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_folds_hold_each_row_out_once_and_no_group_is_torn(groups, folds, seed):
    table = dataclasses.replace(first(len(groups)), groups=np.array(groups))
    parts = split_folds(table, "grouped", folds, seed)
    assert len(parts) == folds
    for part in parts:
        assert_sides(part, len(groups))
        assert not set(part.groups[part.train]) & set(part.groups[part.valid])
    held_out = np.concatenate([part.valid for part in parts])
    np.testing.assert_array_equal(np.sort(held_out), np.arange(len(groups)))
    sizes = [len(part.valid) for part in parts]
    assert max(sizes) - min(sizes) <= np.bincount(parts[0].groups).max()


def test_near_duplicates_stay_in_one_fold_and_random_folds_tear_them():
    table = again(first(20), np.random.default_rng(0))
    for part in split_folds(table, "grouped", 4, 0):
        held = np.isin(np.arange(40), part.valid)
        np.testing.assert_array_equal(held[:20], held[20:])
    torn = split_folds(table, "random", 4, 0)[0]
    assert len(torn.valid) == 10
    held = np.isin(np.arange(40), torn.valid)
    assert (held[:20] != held[20:]).any()


def test_the_seed_decides_the_folds():
    one, same, other = (split_folds(first(40), "grouped", 4, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.valid, same.valid)
    assert not np.array_equal(one.valid, other.valid)


def test_a_recipe_s_split_is_the_fold_it_names():
    folds = split_folds(first(20), "grouped", 4, 7)
    for number in (1, 4):
        named = split_by(first(20), Data(folds=4, fold=number), 7)
        np.testing.assert_array_equal(named.valid, folds[number - 1].valid)
    whole = split_by(first(20), Data(valid_fraction=0.25), 7)
    np.testing.assert_array_equal(whole.valid, split(first(20), "grouped", 0.25, 7).valid)


def test_fewer_groups_than_folds_are_told():
    table = dataclasses.replace(first(9), groups=np.array([7, 7, 7, 3, 3, 3, 5, 5, 5]))
    assert len(split_folds(table, "grouped", 3, 0)) == 3
    with pytest.raises(
        UserError, match=r"^data\.folds: .* has 3 groups of near-duplicates, too few for 4 folds"
    ):
        split_folds(table, "grouped", 4, 0)


def test_the_seed_decides():
    table = first(40)
    one, same, other = (split(table, "grouped", 0.25, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.valid, same.valid)
    assert not np.array_equal(one.valid, other.valid)
    assert len(one.valid) == 10


def test_random_is_a_plain_permutation():
    table = again(first(20), np.random.default_rng(0))
    parts = split(table, "random", 0.25, 3)
    assert_sides(parts, 40)
    np.testing.assert_array_equal(parts.valid, np.sort(np.random.default_rng(3).permutation(40)[:10]))
    held = np.isin(np.arange(40), parts.valid)
    assert (held[:20] != held[20:]).any()


def test_the_dictionary_is_plain_and_complete():
    table = dataclasses.replace(first(4), groups=np.array([0, 0, 1, 2]))
    entries = json.loads(json.dumps(split(table, "grouped", 0.25, 0).to_dict()))
    assert entries["rows"] == {"train": 3, "valid": 1}
    assert entries["groups"] == {"train": 2, "valid": 1, "largest": 2}
    assert sorted(entries["train"] + entries["valid"]) == [0, 1, 2, 3]
    assert (entries["kind"], entries["seed"]) == ("grouped", 0)


def test_two_rows_are_enough_and_one_is_not():
    assert_sides(split(first(2), "grouped", 0.2, 0), 2)
    with pytest.raises(UserError, match="1 row can't be split"):
        split(first(1), "grouped", 0.2, 0)
    np.testing.assert_array_equal(find_groups(first(1)), [0])


def test_wrong_arguments_are_named():
    with pytest.raises(UserError, match=r"data\.split: no such kind 'groups'; did you mean 'grouped'"):
        split(first(4), "groups", 0.2, 0)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(UserError, match=r"data\.valid_fraction"):
            split(first(4), "grouped", fraction, 0)
    everyone = dataclasses.replace(first(4), groups=np.zeros(4, np.int64))
    with pytest.raises(UserError, match="all 4 rows look like one person"):
        split(everyone, "grouped", 0.2, 0)
