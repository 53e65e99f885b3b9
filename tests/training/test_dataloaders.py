"""DataLoaders: points are exact in batches and after decoding, and every epoch has the right rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.vision.all import PILImage, TensorImage, TensorPoint
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import Split, split_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop, extract_crop
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.training.dataloaders import (
    IMAGENET_STATISTICS,
    build_dataloaders,
    pixel_statistics,
    protocol_notes,
    scored_rows,
)


def make_config(**model: object) -> TrainConfig:
    """Return a config without augmentation, for inputs of 96 px unless `model` sets another size."""
    model = {"input_size": 96, **model}
    return validate_config({"model": model, "augment": "none", "training": {"batch_size": 8}}, "test")


def make_dataloaders(
    dataset: LandmarkDataset, config: TrainConfig, split: Split | None = None
) -> DataLoaders:
    """Build the loaders with the statistics of the data set and, if none is given, a random split."""
    return build_dataloaders(
        dataset,
        split or split_dataset(dataset, "random", 0.25, 0),
        config,
        pixel_statistics(dataset.images, dataset.channels),
        path=Path("."),
        device=torch.device("cpu"),
    )


def split_at(train: int, rows: int) -> Split:
    """Return the split with the first `train` rows for training and the others for validation."""
    return Split(np.arange(train), np.arange(train, rows), np.arange(rows), "random", 0)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**20),
    size=st.sampled_from([64, 96, 97]),
    input_size=st.sampled_from([48, 64, 96, 128]),
    channels=st.sampled_from([1, 3]),
    augment=st.sampled_from(["none", "standard", "original"]),
)
def test_decode_returns_points_of_batch_exactly(seed, size, input_size, channels, augment) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (12, size, size, channels), dtype=np.uint8)
    points = rng.uniform(-0.5, size - 0.5, (12, 15, 2)).astype(np.float32)
    points[rng.random((12, 15)) < 0.2] = np.nan
    dataset = LandmarkDataset(images, points, KAGGLE15, tuple(map(str, range(12))), "random", "0")
    config = validate_config(
        {"model": {"input_size": input_size}, "augment": augment, "training": {"batch_size": 9}}, "test"
    )
    dls = make_dataloaders(dataset, config, split_at(9, 12))
    # validation rows are not augmented: their points decode to pixels of the source
    batch = dls.valid.one_batch()
    assert isinstance(batch[0], TensorImage)
    assert isinstance(batch[1], TensorPoint)
    assert batch[0].shape == (3, channels, input_size, input_size)
    _, decoded = dls.valid.decode(batch)
    source = (np.asarray(decoded) + 0.5) * size / input_size - 0.5
    np.testing.assert_allclose(source, points[9:], atol=0.01)
    # training rows: the decoded points, normalized again, are those of the batch, and NaN stays NaN
    torch.manual_seed(seed)
    batch = dls.train.one_batch()
    _, decoded = dls.train.decode(batch)
    normalized = (torch.as_tensor(np.asarray(decoded)) + 0.5) * 2 / input_size - 1
    np.testing.assert_allclose(normalized, np.asarray(batch[1]), atol=1e-5)
    labeled = np.asarray(batch[1])[~np.isnan(np.asarray(batch[1]))]
    assert np.abs(labeled).max(initial=0) <= 1 + 1e-6


def test_validation_images_equal_crops_of_predictor(dataset: LandmarkDataset) -> None:
    dls = make_dataloaders(dataset, make_config(input_size=64))
    split = split_dataset(dataset, "random", 0.25, 0)
    image, _ = dls.valid.decode(dls.valid.one_batch())
    valid = dataset.images[split.valid]
    crops = np.stack([extract_crop(image, Crop(0, 0, dataset.size), 64, 1) for image in valid])
    pixels = np.asarray(image, dtype=np.float32).transpose(0, 2, 3, 1)
    assert np.abs(pixels - crops).max() <= 1.01  # Pillow rounds to integers, torch does not


def test_epoch_uses_each_row_multiplier_times(dataset: LandmarkDataset) -> None:
    config = validate_config(
        {"data": {"multiplier": 3}, "augment": "none", "training": {"batch_size": 10}}, "test"
    )
    dls = make_dataloaders(dataset, config, split_at(40, 60))
    assert dls.train.n == 120
    assert len(dls.train) == 12
    assert dls.valid.n == 20
    nose_tips = torch.cat([points[:, 10] for _, points in dls.train])
    values, counts = np.unique(np.asarray(nose_tips).round(5), axis=0, return_counts=True)
    assert len(values) == 40
    assert set(counts) == {3}
    # predictions on the training set use each row once
    assert dls.train.new(shuffle=False, drop_last=False).n == 40


def test_worker_processes_share_the_rows_of_an_epoch(dataset: LandmarkDataset) -> None:
    config = validate_config({"augment": "none", "training": {"batch_size": 8, "workers": 2}}, "test")
    dls = make_dataloaders(dataset, config, split_at(48, 60))
    nose_tips = np.concatenate([np.asarray(points[:, 10]) for _, points in dls.train])
    assert len(np.unique(nose_tips.round(5), axis=0)) == len(nose_tips) == 48


def test_epoch_order_depends_on_torch_seed_only(dataset: LandmarkDataset) -> None:
    dls = make_dataloaders(dataset, make_config())

    def epoch(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        return np.concatenate([np.asarray(points) for _, points in dls.train])

    assert np.array_equal(epoch(1), epoch(1), equal_nan=True)
    assert not np.array_equal(epoch(1), epoch(2), equal_nan=True)


def test_test_dl_accepts_rows_files_arrays_and_pil_images(dataset: LandmarkDataset, tmp_path: Path) -> None:
    dls = make_dataloaders(dataset, make_config())
    path = tmp_path / "face.png"
    Image.fromarray(dataset.images[:][0, ..., 0]).save(path)
    array = np.repeat(dataset.images[0], 3, 2)
    row = dls.test_dl([np.int64(0)]).one_batch()[0]
    for items in ([path], [str(path)], [array], [PILImage.create(path)]):
        (batch,) = dls.test_dl(items).one_batch()
        assert torch.allclose(batch, row, atol=1e-5), type(items[0])


def test_gray_images_are_repeated_for_three_channels(dataset: LandmarkDataset) -> None:
    split = split_dataset(dataset, "random", 0.25, 0)
    dls = build_dataloaders(
        dataset, split, make_config(), IMAGENET_STATISTICS, path=Path("."), device=torch.device("cpu")
    )
    image, _ = dls.valid.decode(dls.valid.one_batch())
    assert image.shape[1] == 3
    assert np.abs(np.asarray(image[:, 0]) - np.asarray(image[:, 2])).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_normalized_batch_has_mean_0_and_deviation_1(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(120, 30, (40, 64, 64, channels)).clip(0, 255).astype(np.uint8)
    dataset = LandmarkDataset(
        images, np.zeros((40, 15, 2), np.float32), KAGGLE15, tuple("a" * 40), "random", "0"
    )
    batch = make_dataloaders(dataset, make_config(input_size=64)).train.one_batch()[0]
    assert abs(float(batch.mean())) < 0.05
    assert abs(float(batch.std()) - 1) < 0.05


def test_two_protocols_double_the_labels_of_training_batches_only() -> None:
    complete = draw_synthetic_faces(16, seed=5)
    points = complete.points.copy()
    points[::2, 4:] = np.nan
    dls = make_dataloaders(replace(complete, points=points), make_config(two_protocols=True, input_size=32))
    assert dls.train.one_batch()[1].shape[1:] == (30, 2)
    assert dls.valid.one_batch()[1].shape[1:] == (15, 2)


def test_two_protocols_with_only_complete_rows_raise() -> None:
    with pytest.raises(UserError, match=r"^model\.two_protocols: .*only one annotation protocol"):
        make_dataloaders(draw_synthetic_faces(16, seed=5), make_config(two_protocols=True))


def test_two_protocols_validate_the_complete_rows_only() -> None:
    complete = draw_synthetic_faces(16, seed=5)
    points = complete.points.copy()
    points[::2, 4:] = np.nan
    dataset, config = replace(complete, points=points), make_config(two_protocols=True, input_size=32)
    split = split_at(10, 16)
    dls = make_dataloaders(dataset, config, split)
    (batch,) = list(dls.valid)
    np.testing.assert_array_equal(scored_rows(dataset, split, True), [11, 13, 15])
    np.testing.assert_array_equal(scored_rows(dataset, split, False), split.valid)
    _, decoded = dls.valid.decode(batch)
    np.testing.assert_allclose((np.asarray(decoded) + 0.5) * 3 - 0.5, points[[11, 13, 15]], atol=0.01)
    assert dls.train.n == 10
    assert protocol_notes(dataset, split, False) == ()
    assert protocol_notes(dataset, split, True) == (
        "model.two_protocols: 3 of the 6 validation rows are incomplete, so they follow the other annotation"
        " protocol and are not scored",
    )


def test_two_protocols_without_complete_validation_row_raise() -> None:
    complete = draw_synthetic_faces(16, seed=5)
    points = complete.points.copy()
    points[8:, 4:] = np.nan
    with pytest.raises(UserError, match=r"^model\.two_protocols: none of the 6 validation rows is complete"):
        make_dataloaders(replace(complete, points=points), make_config(two_protocols=True), split_at(10, 16))
