"""The data that a model is evaluated on: the settings of its training, and rows of its protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.models import make_header
from PIL import Image

from landmarks_fastai.commands.evaluation_data import load_model_data, select_unseen
from landmarks_fastai.config.options import DataConfig, TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.training_images import format_ids
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.files import write_json

NAMES = ("left_eye", "right_eye", "chin")
OWN = LandmarkSchema(
    name="own",
    names=("chin", "right_eye", "left_eye"),
    flip_pairs=(("left_eye", "right_eye"),),
    normalizer=(("chin",), ("left_eye",)),
)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Return the path of labels of three pictures, of which the first lacks a landmark."""
    picture = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    lines = ["image," + ",".join(f"{name}_{axis}" for name in NAMES for axis in "xy")]
    for number in range(3):
        Image.fromarray(picture + np.uint8(number)).save(tmp_path / f"{number}.png")
        chin = "," if number == 0 else "50,60"
        lines.append(f"{number}.png,60,{30 + number},40,30,{chin}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "labels.csv"


def header_of(**data: object) -> ModelHeader:
    """Return the header of a model with the schema `OWN`, trained with the given data options."""
    config = TrainConfig.model_validate({"data": {"source": "training.csv", **data}})
    return make_header(64, OWN, config=config.model_dump())


def test_other_data_is_loaded_with_the_settings_of_the_training(labels: Path) -> None:
    header = header_of(image_size=48, crop="image", landmark_schema="gone.yaml", complete_only=True)
    dataset = load_model_data(header, str(labels))
    assert dataset.size == 48
    assert dataset.sides is not None
    assert set(dataset.sides.tolist()) == {80.0}  # the crop of the whole image
    assert dataset.schema == OWN
    # the left eye, the third landmark of OWN, is at (60, 31) of the second picture; the crop begins at x = 10
    scale = 48 / 80
    np.testing.assert_allclose(
        dataset.points[0, 2], [(60.5 - 10) * scale - 0.5, 31.5 * scale - 0.5], atol=1e-4
    )
    assert len(dataset) == 2
    assert dataset.notes[-1] == (
        "1 row with an unlabeled landmark left out, as in the training (data.complete_only)"
    )


def test_settings_given_for_other_data_have_precedence(labels: Path) -> None:
    header = header_of(image_size=48, crop="image", complete_only=True)
    data = DataConfig(source=str(labels), image_size=40, crop="landmarks", complete_only=False)
    dataset = load_model_data(header, data)
    assert dataset.size == 40
    assert dataset.sides is not None
    assert 80.0 not in dataset.sides.tolist()
    assert len(dataset) == 3


def test_settings_of_the_data_set_itself_are_not_used_for_other_data(labels: Path, tmp_path: Path) -> None:
    header = header_of(limit=2, corrections=str(tmp_path / "gone.csv"), format="coco", skip_bad=True)
    dataset = load_model_data(header, str(labels))
    assert len(dataset) == 3
    assert dataset.size == 128
    assert dataset.schema.names == NAMES  # the training did not set a schema either


def test_option_given_for_the_data_of_the_training_keeps_its_other_settings(labels: Path) -> None:
    header = header_of(source=str(labels), image_size=48, limit=2, complete_only=True)
    for data in (None, str(labels), DataConfig(source=str(labels), skip_bad=True)):
        dataset = load_model_data(header, data)
        assert (len(dataset), dataset.size) == (2, 48)
        assert dataset.complete.all()


def test_rows_are_kept_if_none_is_complete(labels: Path) -> None:
    text = labels.read_text().replace("50,60", ",")
    labels.write_text(text)
    assert len(load_model_data(header_of(complete_only=True), str(labels))) == 3


def test_with_schema_of_other_landmarks_changes_nothing(dataset: LandmarkDataset) -> None:
    assert dataset.with_schema(OWN) is dataset


@pytest.mark.parametrize("two_protocols", [False, True])
def test_incomplete_rows_are_left_out_if_they_follow_another_protocol(
    dataset: LandmarkDataset, tmp_path: Path, two_protocols: bool
) -> None:
    config = TrainConfig.model_validate({"model": {"two_protocols": two_protocols}}).model_dump()
    headers = [make_header(64, OWN, config=config)]
    rows, notes = select_unseen(dataset, [tmp_path / "model.safetensors"], headers)
    expected = np.flatnonzero(dataset.complete) if two_protocols else np.arange(60)
    np.testing.assert_array_equal(rows, expected)
    left_out = [note for note in notes if "protocol" in note]
    assert left_out == (
        [
            "9 incomplete rows left out: the other annotation protocol (model.two_protocols; --rows all"
            " evaluates every row)"
        ]
        if two_protocols
        else []
    )
    if two_protocols:
        points = dataset.points.copy()
        points[:, 0] = np.nan
        other = replace(dataset, points=points)
        rows, notes = select_unseen(other, [tmp_path / "model.safetensors"], headers)
        assert len(rows) == 60
        assert notes[-1].startswith("no row is complete")


def test_initial_weights_of_every_model_are_named(dataset: LandmarkDataset, tmp_path: Path) -> None:
    ids = format_ids(dataset.images.ids)
    write_json(tmp_path / "data.json", {"images": ids, "split": {"train": [0], "valid": [*range(1, 60)]}})
    names = [None, "resnet18", "runs/other", "resnet18"]
    headers = [make_header(64, OWN, config={"model": {"init_from": name}}) for name in names]
    rows, notes = select_unseen(dataset, [tmp_path / "model.safetensors"], headers)
    assert len(rows) == 59
    assert notes[1:] == [
        f"the initial weights, {name}, may have been trained on some of these rows"
        for name in ("resnet18", "runs/other")
    ]
