"""The conversion of labels between formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from landmarks_fastai.cli import run

HEADER = "image,group,left_eye_x,left_eye_y,right_eye_x,right_eye_y,box_x0,box_y0,box_x1,box_y1,pose\n"


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a CSV of two rows on one image, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30)).save("a.png")
    path = Path("labels.csv")
    path.write_text(HEADER + "a.png,Ann,20,10,10,10,1,2,30,25,left\na.png,Ben,22,11,,,1,2,30,25,\n")
    return path


def test_convert_writes_coco_with_boxes_groups_and_flip_pairs(
    labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", str(labels), "coco.json", "--format", "coco"]) == 0
    output = capsys.readouterr().out
    assert "labels.csv: CSV with the columns image, NAME_x and NAME_y, 2 rows on 1 image" in output
    assert output.endswith("coco.json: COCO keypoints JSON, 2 rows on 1 images\n")
    coco = json.loads(Path("coco.json").read_text())
    (first, second) = coco["annotations"]
    assert first["keypoints"] == [20, 10, 2, 10, 10, 2]
    assert second["keypoints"] == [22, 11, 2, 0, 0, 0]
    assert first["bbox"] == [1, 2, 29, 23]
    assert (first["group"], second["group"]) == ("Ann", "Ben")


def test_convert_says_what_a_format_cannot_hold(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(labels), "faces", "--format", "pts"]) == 0
    output = capsys.readouterr().out
    for word in ("names", "boxes", "groups", "columns"):
        assert word in output
    assert sorted(path.suffix for path in Path("faces").iterdir()) == [".png", ".png", ".pts", ".pts"]


def test_convert_of_bad_rows_lists_or_skips_them(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels.write_text(labels.read_text() + "b.png,Cat,1,1,1,1,,,,,\nc.png,Cat,1,1,1,1,,,,,\n")
    assert run(["convert", "labels.csv", "coco.json", "--format", "coco"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert "2 of 4 rows cannot be used" in error[0]
    assert len(error) == 3
    assert not Path("coco.json").exists()
    assert run(["convert", "labels.csv", "coco.json", "--format", "coco", "--skip-bad"]) == 0
    assert "skipped (--skip-bad): " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv", "x.json", "--format", "coco"], "missing.csv: no such file or folder"),
        (["labels.csv", "labels.csv", "--format", "csv"], "labels.csv: already exists"),
        (["labels.csv", "x", "--format", "kaggle"], "--format kaggle: no such format"),
        (["a.png", "x.json", "--format", "coco"], "a.png: not a data set of a known format"),
    ],
)
def test_convert_refuses_with_one_line(
    labels: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["convert", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
