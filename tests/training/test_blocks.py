"""From file to batch and back: exact, and as fastai's users know it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.vision.all import PILImage, TensorImage, TensorPoint
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.config import Recipe, check_recipe
from landmarks_fastai.data.split import Split, split
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.framing import Square, cut_square
from landmarks_fastai.schema import KAGGLE15
from landmarks_fastai.training.blocks import SplitSchemes, face_dataloaders, pixel_statistics


def recipe_with(**model: object) -> Recipe:
    return check_recipe(
        {"model": model, "augment": "none", "training": {"batch_size": 8}, "data": {"multiplier": 1}},
        "a test",
    )


def loaders(table: FaceTable, recipe: Recipe, parts: Split | None = None):
    channels = table.channels
    mean, std = pixel_statistics(table.images, channels)
    parts = parts or split(table, "random", 0.25, 0)
    return face_dataloaders(table, parts, recipe, mean, std, Path("."), torch.device("cpu"))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**20),
    size=st.sampled_from([64, 96, 97]),
    input_size=st.sampled_from([48, 64, 96, 128]),
    channels=st.sampled_from([1, 3]),
    augment=st.sampled_from(["none", "standard", "origin"]),
)
def test_points_come_back_from_a_batch_exactly(seed, size, input_size, channels, augment) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (12, size, size, channels), dtype=np.uint8)
    points = rng.uniform(-0.5, size - 0.5, (12, 15, 2)).astype(np.float32)
    points[rng.random((12, 15)) < 0.2] = np.nan
    table = FaceTable(images, points, KAGGLE15, tuple(map(str, range(12))), "random", "0")
    recipe = check_recipe(
        {"model": {"input_size": input_size}, "augment": augment, "training": {"batch_size": 9}}, "a test"
    )
    parts = Split(np.arange(9), np.arange(9, 12), np.arange(12), "random", 0)
    dls = loaders(table, recipe, parts)
    # validation is never augmented: its points come back to the source's pixels
    batch = dls.valid.one_batch()
    assert isinstance(batch[0], TensorImage)
    assert isinstance(batch[1], TensorPoint)
    assert batch[0].shape == (3, channels, input_size, input_size)
    _, back = dls.valid.decode(batch)
    source = (np.asarray(back) + 0.5) * size / input_size - 0.5
    np.testing.assert_allclose(source, points[9:], atol=0.01)
    # training: what decode gives, scaled again, is the batch, and masked points stay masked
    torch.manual_seed(seed)
    batch = dls.train.one_batch()
    _, back = dls.train.decode(batch)
    again = (torch.as_tensor(np.asarray(back)) + 0.5) * 2 / input_size - 1
    np.testing.assert_allclose(again, np.asarray(batch[1]), atol=1e-5)
    shown = np.asarray(batch[1])[~np.isnan(np.asarray(batch[1]))]
    assert np.abs(shown).max(initial=0) <= 1 + 1e-6


def test_validation_sees_the_pixels_that_prediction_sees(faces: FaceTable) -> None:
    recipe = recipe_with(input_size=64)
    dls = loaders(faces, recipe)
    parts = split(faces, "random", 0.25, 0)
    image, _ = dls.valid.decode(dls.valid.one_batch())
    ours = np.stack([cut_square(face, Square(0, 0, faces.size), 64, 1) for face in faces.images[parts.valid]])
    pixels = np.asarray(image, dtype=np.float32).transpose(0, 2, 3, 1)
    difference = np.abs(pixels - ours)
    assert difference[:, 1:-1, 1:-1].max() <= 2  # Pillow rounds to whole gray levels, torch does not
    assert difference.max() <= 10  # at the border, prediction repeats the picture's edge


def test_an_epoch_meets_each_face_as_often_as_the_multiplier_says(faces: FaceTable) -> None:
    recipe = check_recipe(
        {"data": {"multiplier": 3}, "augment": "none", "training": {"batch_size": 10}}, "a test"
    )
    parts = Split(np.arange(0, 40), np.arange(40, 60), np.arange(60), "random", 0)
    dls = loaders(faces, recipe, parts)
    assert dls.train.n == 120
    assert len(dls.train) == 12
    assert dls.valid.n == 20
    seen = torch.cat([points[:, 10] for _, points in dls.train])
    values, counts = np.unique(np.asarray(seen).round(5), axis=0, return_counts=True)
    assert len(values) == 40
    assert set(counts) == {3}
    # predictions on the training set meet each face once
    assert dls.train.new(shuffle=False, drop_last=False).n == 40


def test_worker_processes_deal_out_the_same_epoch(faces: FaceTable) -> None:
    entries = {"augment": "none", "training": {"batch_size": 8, "workers": 2}}
    parts = Split(np.arange(0, 48), np.arange(48, 60), np.arange(60), "random", 0)
    dls = loaders(faces, check_recipe(entries, "a test"), parts)
    seen = np.concatenate([np.asarray(points[:, 10]) for _, points in dls.train])
    assert len(np.unique(seen.round(5), axis=0)) == len(seen) == 48


def test_epochs_differ_and_seeds_repeat(faces: FaceTable) -> None:
    dls = loaders(faces, recipe_with())

    def epoch(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        return np.concatenate([np.asarray(points) for _, points in dls.train])

    assert np.array_equal(epoch(1), epoch(1), equal_nan=True)
    assert not np.array_equal(epoch(1), epoch(2), equal_nan=True)


def test_files_arrays_and_pictures_go_through_the_same_door(faces: FaceTable, tmp_path: Path) -> None:
    dls = loaders(faces, recipe_with())
    path = tmp_path / "face.png"
    Image.fromarray(faces.images[0, ..., 0]).save(path)
    array = np.repeat(faces.images[0], 3, 2)
    row = dls.test_dl([np.int64(0)]).one_batch()[0]
    for items in ([path], [str(path)], [array], [PILImage.create(path)]):
        (batch,) = dls.test_dl(items).one_batch()
        assert torch.allclose(batch, row, atol=1e-5), type(items[0])


def test_gray_faces_become_three_channels_where_the_body_wants_them(faces: FaceTable) -> None:
    parts = split(faces, "random", 0.25, 0)
    stats = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    dls = face_dataloaders(faces, parts, recipe_with(), *stats, Path("."), torch.device("cpu"))
    image, _ = dls.valid.decode(dls.valid.one_batch())
    assert image.shape[1] == 3
    assert np.abs(np.asarray(image[:, 0]) - np.asarray(image[:, 2])).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_normalised_batch_has_mean_zero_and_deviation_one(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(120, 30, (40, 64, 64, channels)).clip(0, 255).astype(np.uint8)
    table = FaceTable(images, np.zeros((40, 15, 2), np.float32), KAGGLE15, tuple("a" * 40), "random", "0")
    batch = loaders(table, recipe_with(input_size=64)).train.one_batch()[0]
    assert abs(float(batch.mean())) < 0.05
    assert abs(float(batch.std()) - 1) < 0.05


def test_schemes_are_told_apart_before_points_leave_the_frame() -> None:
    drawn = draw_faces(16, seed=5)
    points = drawn.points.copy()
    points[::2, 4:] = np.nan
    table = dataclasses.replace(drawn, points=points)
    batch = (torch.zeros(len(points), 1, 8, 8), TensorPoint(torch.from_numpy(points)))
    _, both = SplitSchemes().encodes(batch)
    complete, partial = np.asarray(both)[:, :15], np.asarray(both)[:, 15:]
    np.testing.assert_array_equal(complete[1::2], points[1::2])
    np.testing.assert_array_equal(partial[::2], points[::2])
    assert np.isnan(complete[::2]).all()
    assert np.isnan(partial[1::2]).all()
    dls = loaders(table, recipe_with(two_schemes=True, input_size=32))
    assert dls.train.one_batch()[1].shape[1:] == (30, 2)
    assert dls.valid.one_batch()[1].shape[1:] == (15, 2)


def test_two_schemes_where_there_is_one_are_refused() -> None:
    with pytest.raises(UserError, match="one way of labelling"):
        loaders(draw_faces(16, seed=5), recipe_with(two_schemes=True))
