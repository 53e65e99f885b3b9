"""Slices: which rows they contain, and how a column is divided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.slices import Slice, make_slices, object_sizes, sharpness


def with_columns(dataset: LandmarkDataset, **columns: list[str]) -> LandmarkDataset:
    return replace(dataset, columns={name: tuple(values) for name, values in columns.items()})


def sizes_of(slices: list[Slice]) -> dict[str, int]:
    return {one.value: int(one.rows.sum()) for one in slices}


def test_default_slices_are_pose_blur_size_and_columns_with_few_values(dataset: LandmarkDataset) -> None:
    data = with_columns(
        dataset,
        light=["day", "night", ""] * 20,
        one=["same"] * 60,
        file=[f"{row}.jpg" for row in range(60)],
    )
    slices = make_slices(data)
    assert list(dict.fromkeys(one.by for one in slices)) == ["roll", "yaw", "blur", "size", "light"]
    light = [one for one in slices if one.by == "light"]
    assert sizes_of(light) == {"day": 20, "night": 20}  # the rows without a value are in no slice
    assert light[1].rows.tolist() == [False, True, False] * 20
    for by in ("yaw", "blur", "size"):
        thirds = [one.rows for one in slices if one.by == by]
        assert len(thirds) == 3
        assert (np.sum(thirds, axis=0) == 1).all()
        assert all(18 <= rows.sum() <= 22 for rows in thirds)


def test_column_of_many_numbers_is_divided_into_thirds(dataset: LandmarkDataset) -> None:
    data = with_columns(dataset, age=["" if row == 0 else str(row) for row in range(60)])
    slices = make_slices(data, ["age"])
    assert [one.value.split()[0] for one in slices] == ["low", "middle", "high"]
    assert not any(one.rows[0] for one in slices)
    assert slices[0].rows[1:20].all()
    assert slices[2].rows[-19:].all()


def test_column_of_many_texts_keeps_the_most_frequent_and_joins_the_rest(dataset: LandmarkDataset) -> None:
    names = ["anna"] * 20 + ["ben"] * 15 + [f"p{row}" for row in range(25)]
    slices = make_slices(with_columns(dataset, person=names), ["person"])
    counts = sizes_of(slices)
    assert len(counts) == 12
    assert (counts["anna"], counts["ben"], counts["other"]) == (20, 15, 16)
    assert (np.sum([one.rows for one in slices], axis=0) == 1).all()


def test_values_that_are_numbers_are_sorted_as_numbers(dataset: LandmarkDataset) -> None:
    slices = make_slices(with_columns(dataset, n=["10", "9", "x"] * 20), ["n"])
    assert [one.value for one in slices] == ["9", "10", "x"]


def test_unknown_slice_is_refused_with_suggestion(dataset: LandmarkDataset) -> None:
    data = with_columns(dataset, light=["day", "night", ""] * 20)
    with pytest.raises(
        UserError, match=r"^--slice lihgt: synthetic faces .* has no such column; did you mean 'light'"
    ):
        make_slices(data, ["lihgt"])


def test_roll_slices_contain_rotated_rows(dataset: LandmarkDataset) -> None:
    points = dataset.points.copy()
    for row, degrees in ((0, 20), (1, -50)):
        angle = np.radians(degrees)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        points[row] = (dataset.points[2] - 48) @ rotation + 48
    slices = {one.value: one.rows for one in make_slices(replace(dataset, points=points), ["roll"])}
    assert slices["10° to 30°"][0]
    assert slices["more than 30°"].nonzero()[0].tolist()[0] == 1


def test_sharpness_decreases_with_blur(dataset: LandmarkDataset) -> None:
    images = dataset.images[:]
    blurred = gaussian_filter(images, (0, 2, 2, 0))
    assert (sharpness(replace(dataset, images=blurred)) < 0.5 * sharpness(dataset)).all()
    # a checkerboard of 0 and 8: the Laplacian is 32 at every pixel, with alternating sign
    board = (8 * (np.indices((96, 96)).sum(axis=0) % 2)).astype(np.uint8)
    images = np.broadcast_to(board[None, :, :, None], (60, 96, 96, 1))
    np.testing.assert_allclose(sharpness(replace(dataset, images=images)), 32.0**2)


def test_object_sizes_are_in_source_pixels_if_the_crops_are_known(dataset: LandmarkDataset) -> None:
    left, right = (dataset.points[:, index] for index in (0, 1))
    expected = np.hypot(*(left - right).T)
    np.testing.assert_allclose(object_sizes(dataset), expected, rtol=1e-5)
    sides = np.linspace(48, 960, 60).astype(np.float32)
    np.testing.assert_allclose(object_sizes(replace(dataset, sides=sides)), expected * sides / 96, rtol=1e-5)


def test_equal_values_make_no_thirds(dataset: LandmarkDataset) -> None:
    images = np.zeros((60, 96, 96, 1), np.uint8)
    assert make_slices(replace(dataset, images=images), ["blur"]) == []
