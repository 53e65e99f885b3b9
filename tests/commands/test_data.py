"""The command `data`: its checks, and the sheet of unchanged, mirrored and augmented samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.commands import data as command
from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.landmarks import Landmarks


def test_mirror_samples_moves_each_landmark_to_its_partner(dataset: LandmarkDataset) -> None:
    images = np.zeros((4, 96, 96, 1), np.uint8)
    points = np.round(dataset.points[:4])
    left, right = dataset.schema.indices(["left_eye_center", "right_eye_center"])
    for row, (x, y) in enumerate(points[:, left].astype(int)):
        images[row, y, x] = 255
    samples = replace(dataset.subset(np.arange(4)), images=images, points=points)
    mirrored, moved = command.mirror_samples(samples)
    for row, (x, y) in enumerate(moved[:, right].astype(int)):
        assert mirrored[row, y, x] == 255  # the bright pixel is now the right eye
    nose = dataset.schema.names.index("nose_tip")
    np.testing.assert_allclose(moved[:, nose], [95, 0] + points[:, nose] * [-1, 1])


@pytest.mark.parametrize("has_pairs", [True, False])
def test_draw_samples_shows_mirrored_row_if_there_are_flip_pairs(
    has_pairs: bool, dataset: LandmarkDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, object] = {}

    def record(images: list[np.ndarray], landmarks: Landmarks, **options: object) -> np.ndarray:
        shown.update(options, faces=len(images), landmarks=landmarks)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(command, "landmark_sheet", record)
    schema = dataset.schema if has_pairs else replace(dataset.schema, flip_pairs=())
    config = load_config("default", {}, ["augment.flip=0"])
    command.draw_samples(replace(dataset, schema=schema), config, tmp_path, count=3)
    captions = shown["captions"]
    assert isinstance(captions, list)
    assert captions[3:] == ["mirrored"] * (3 * has_pairs) + ["augmented"] * 9
    assert shown["faces"] == len(captions)


def test_describe_data_checks_labels_before_the_split(
    dataset: LandmarkDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalized = replace(dataset, points=dataset.points / dataset.size)
    monkeypatch.setattr(command, "load_dataset", lambda *_, **__: normalized)
    monkeypatch.setattr(command, "split_from_config", None)
    with pytest.raises(UserError, match="the coordinates look normalized"):
        command.describe_data(load_config("default", {}, []), tmp_path)
