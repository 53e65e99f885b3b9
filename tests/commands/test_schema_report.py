"""Notes about the schema of a data set, and schema templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from landmarks_fastai.cli import run
from landmarks_fastai.commands.schema_report import schema_notes, write_schema_template
from landmarks_fastai.config.options import DataConfig, StandardAugment
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import IBUG68, KAGGLE15
from landmarks_fastai.schemas.files import read_schema
from landmarks_fastai.schemas.matching import infer_schema

PARTIAL = ["left_eye", "right_eye", "leftMouth", "nose"]


def write_csv(folder: Path, names: list[str], rows: int = 4) -> Path:
    """Write a CSV with gray images and landmarks on a diagonal."""
    lines = [",".join(["image", *(f"{name}_{axis}" for name in names for axis in "xy")])]
    for row in range(rows):
        Image.new("L", (64, 64), 10 * row).save(folder / f"{row}.png")
        values = [f"{4 + 2 * i + row + 0.5 * (axis == 'y')}" for i in range(len(names)) for axis in "xy"]
        lines.append(",".join([f"{row}.png", *values]))
    path = folder / "labels.csv"
    path.write_text("\n".join(lines))
    return path


def test_schema_notes_name_built_in_schema_or_eyes() -> None:
    assert schema_notes(KAGGLE15, StandardAugment()) == ["schema: kaggle15"]
    schema = infer_schema("mine", ["LEye", "REye", "nose"])
    assert schema_notes(schema, StandardAugment()) == ["eyes: LEye ↔ REye"]


def test_schema_notes_warn_of_what_stops_training() -> None:
    (eyes, warning) = schema_notes(infer_schema("mine", PARTIAL), StandardAugment())
    assert eyes == "eyes: left_eye ↔ right_eye"
    assert warning.startswith("warning: augment.flip: the landmark 'leftMouth' says left or right")


def test_write_schema_template_of_csv_leads_to_a_usable_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, template = write_csv(tmp_path, PARTIAL), tmp_path / "mine.yaml"
    assert run(["data", "--data", str(csv), "--schema-template", str(template)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"4 landmarks, 1 flip pair: {template}"
    assert read_schema(template) == infer_schema("labels", PARTIAL)
    corrected = template.read_text().replace("midline: []", "midline: [leftMouth]\n")
    template.write_text(corrected.replace("names: [left_eye, right_eye", "names: [right_eye, left_eye"))
    config = DataConfig(source=str(csv), landmark_schema=str(template))
    dataset = load_dataset(config, cache=tmp_path / "cache")
    plain = load_dataset(str(csv), cache=tmp_path / "cache")
    assert dataset.schema.midline == ("leftMouth",)
    assert dataset.schema.names == ("right_eye", "left_eye", "leftMouth", "nose")
    assert (dataset.points == plain.points[:, [1, 0, 2, 3]]).all()
    assert dataset.digest != plain.digest


def test_write_schema_template_of_kaggle_needs_no_download(tmp_path: Path) -> None:
    assert write_schema_template(DataConfig(source="kaggle"), tmp_path / "s.yaml") == KAGGLE15
    assert read_schema(tmp_path / "s.yaml") == KAGGLE15


def test_write_schema_template_of_given_schema(tmp_path: Path) -> None:
    csv = write_csv(tmp_path, [f"p{i}" for i in range(1, 69)])
    data = DataConfig(source=str(csv), landmark_schema="ibug68")
    assert write_schema_template(data, tmp_path / "s.yaml") == IBUG68


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("s.json", "kaggle", "the file is YAML; name it \\*\\.yaml"),
        ("old.yaml", "kaggle", "already exists; choose another name, or remove it"),
        ("s.yaml", "nowhere", "^nowhere: no such file or folder"),
    ],
)
def test_write_schema_template_refuses(name: str, source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("")
    with pytest.raises(UserError, match=message):
        write_schema_template(DataConfig(source=source), tmp_path / name)


def test_train_on_landmark_without_partner_fails_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = write_csv(tmp_path, PARTIAL, rows=6)
    arguments = ["train", "--config", "quick", "--data", str(csv), "--out", str(tmp_path / "run")]
    assert run(arguments) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("error: augment.flip: the landmark 'leftMouth' says left or right, but has no partner")
    )
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("order", [1, -1])
def test_load_dataset_does_not_depend_on_the_order_of_columns(order: int, tmp_path: Path) -> None:
    names = list(KAGGLE15.names)
    straight, other = tmp_path / "a", tmp_path / "b"
    straight.mkdir()
    other.mkdir()
    expected = load_dataset(str(write_csv(straight, names)), cache=tmp_path / "cache")
    shuffled = write_csv(other, names)
    lines = [line.split(",") for line in shuffled.read_text().splitlines()]
    columns = [0, *range(1, len(lines[0]))[::order]]
    shuffled.write_text("\n".join(",".join(line[i] for i in columns) for line in lines))
    dataset = load_dataset(str(shuffled), cache=tmp_path / "cache")
    assert dataset.schema == KAGGLE15
    assert (dataset.points == expected.points).all()
