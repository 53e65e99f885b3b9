"""Near-duplicates are grouped, whatever their labels, color and number; different faces rarely are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.near_duplicates import with_near_duplicates

from landmarks_fastai.data import near_duplicates
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.image_array import ImageArray
from landmarks_fastai.data.near_duplicates import group_near_duplicates, grouping_notes
from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces

FACES = draw_synthetic_faces(160, seed=21)


def first_faces(count: int) -> LandmarkDataset:
    return FACES.subset(np.arange(count))


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
    images = dataset.images[:].copy()
    images[6:] = np.clip(images[:6] * 0.9 + 8, 0, 255)  # not shifted: there are no labels to align them by
    dataset = dataclasses.replace(dataset, images=images, points=np.full_like(dataset.points, np.nan))
    np.testing.assert_array_equal(group_near_duplicates(dataset), [0, 1, 2, 3, 4, 5] * 2)


def test_group_near_duplicates_rarely_groups_different_faces():
    assert np.bincount(group_near_duplicates(FACES)).max() <= 16
    np.testing.assert_array_equal(group_near_duplicates(first_faces(40)), np.arange(40))


def test_group_near_duplicates_uses_given_groups_and_identical_images():
    dataset = dataclasses.replace(first_faces(9), groups=np.array([7, 7, 7, 3, 3, 3, 5, 5, 5]))
    np.testing.assert_array_equal(group_near_duplicates(dataset), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    images = dataset.images[:].copy()
    images[8] = images[0]
    np.testing.assert_array_equal(
        group_near_duplicates(dataclasses.replace(dataset, images=images)), [0, 0, 0, 1, 1, 1, 0, 0, 0]
    )


def test_group_near_duplicates_of_many_rows_uses_compact_patches(monkeypatch):
    """The same groups as with float32 patches, except for the identities."""
    dataset = with_near_duplicates(first_faces(60), np.random.default_rng(0))
    monkeypatch.setattr(near_duplicates, "MIN_ROWS", 1000)
    groups = group_near_duplicates(dataset)
    monkeypatch.setattr(near_duplicates, "MAX_ROWS", 100)
    compact: list[bool] = []
    extract = near_duplicates.aligned_patches
    monkeypatch.setattr(
        near_duplicates,
        "aligned_patches",
        lambda dataset, compact_: compact.append(compact_) or extract(dataset, compact_),
    )
    np.testing.assert_array_equal(group_near_duplicates(dataset), groups)
    np.testing.assert_array_equal(groups, [*range(60), *range(60)])
    assert compact == [True]


def test_group_near_duplicates_groups_rows_of_one_image():
    """Two faces of one picture: its pixels would otherwise be on both sides of a split."""
    dataset = first_faces(5)
    ids = np.array([4, 9, 4, 7, 9], np.uint64)
    dataset = dataclasses.replace(dataset, images=ImageArray(dataset.images[:], ids=ids))
    np.testing.assert_array_equal(group_near_duplicates(dataset), [0, 1, 0, 2, 1])
    # groups of persons join pictures, and pictures join groups
    dataset = dataclasses.replace(dataset, groups=np.array([8, 8, 5, 3, 2]))
    np.testing.assert_array_equal(group_near_duplicates(dataset), [0, 0, 0, 1, 0])


def test_grouping_notes_of_many_rows_without_groups(monkeypatch):
    assert grouping_notes(FACES) == ()
    monkeypatch.setattr(near_duplicates, "MAX_ROWS", 150)
    (note,) = grouping_notes(FACES)
    assert "of more than 150 rows, only near-duplicates are grouped" in note
    assert grouping_notes(dataclasses.replace(FACES, groups=np.arange(160))) == ()
    assert grouping_notes(first_faces(150)) == ()


def test_group_near_duplicates_of_one_row():
    np.testing.assert_array_equal(group_near_duplicates(first_faces(1)), [0])


def test_group_near_duplicates_of_real_faces_is_unchanged(kaggle_zip):
    """The number of groups that version 0.1 found with another algorithm."""
    from landmarks_fastai.data.sources import load_dataset

    groups = group_near_duplicates(load_dataset(kaggle_zip))
    assert (len(groups), groups.max() + 1) == (2940, 268)
    assert np.sort(np.bincount(groups))[-3:].tolist() == [46, 62, 66]
