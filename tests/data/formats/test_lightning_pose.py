"""Lightning Pose: reading its CSV, telling it from DeepLabCut, and round trips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.annotation_cases import annotation_cases, assert_same_annotations
from hypothesis import given, settings
from PIL import Image

from landmarks_fastai.data.formats import deeplabcut
from landmarks_fastai.data.formats.lightning_pose import read, recognizes, write
from landmarks_fastai.errors import UserError

LABELS = """scorer,lp,lp,lp,lp
bodyparts,paw,paw,nose,nose
coords,x,y,x,y
labeled-data/s1/img1.png,1,2,3,4
labeled-data/s1/img2.png,5,6,,
"""
PREDICTIONS = """scorer,lp,lp,lp,lp,lp,lp,set
bodyparts,paw,paw,paw,nose,nose,nose,
coords,x,y,likelihood,x,y,likelihood,
labeled-data/s1/img1.png,1,2,0.9,3,4,0.8,train
"""


def write_project(folder: Path, text: str, name: str = "CollectedData.csv") -> Path:
    """Write a CSV and the images of a project; return its path."""
    images = folder / "labeled-data" / "s1"
    images.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        Image.new("RGB", (20, 10)).save(images / f"img{number}.png")
    (folder / name).write_text(text)
    return folder / name


def test_labels(tmp_path: Path) -> None:
    path = write_project(tmp_path, LABELS)
    for source in (path, tmp_path):
        assert recognizes(source)
        assert not deeplabcut.recognizes(source)
        annotations = read(source)
        assert annotations.schema.names == ("paw", "nose")
        np.testing.assert_array_equal(annotations.points, [[[1, 2], [3, 4]], [[5, 6], [np.nan, np.nan]]])


def test_predictions_of_images_are_read_without_likelihood(tmp_path: Path) -> None:
    annotations = read(write_project(tmp_path, PREDICTIONS))
    assert annotations.points.tolist() == [[[1, 2], [3, 4]]]
    assert any("likelihood, set are ignored" in note for note in annotations.notes)


def test_table_of_deeplabcut_is_not_recognized(tmp_path: Path) -> None:
    path = write_project(tmp_path, LABELS)
    other = tmp_path / "labeled-data" / "s1" / "CollectedData_Ann.csv"
    path.rename(other)
    assert not recognizes(other)
    assert not recognizes(other.parent)
    assert deeplabcut.recognizes(other)


def test_predictions_of_a_video_raise(tmp_path: Path) -> None:
    lines = [*PREDICTIONS.splitlines()[:3], "0,1,2,0.9,3,4,0.8,", "1,1,2,0.9,3,4,0.8,"]
    with pytest.raises(UserError, match="frames of a video, not labeled images"):
        read(write_project(tmp_path, "\n".join(lines) + "\n"))


def test_several_views_raise(tmp_path: Path) -> None:
    write_project(tmp_path, LABELS, "top.csv")
    write_project(tmp_path, LABELS, "side.csv")
    with pytest.raises(UserError, match="several tables of labels, which are not combined"):
        read(tmp_path)


@settings(max_examples=20)
@given(annotations=annotation_cases(several=False))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, annotations) -> None:
    out = tmp_path_factory.mktemp("out") / "project"
    assert write(annotations, out) == []
    assert recognizes(out)
    assert not deeplabcut.recognizes(out)
    assert_same_annotations(read(out), annotations)


@settings(max_examples=5)
@given(annotations=annotation_cases(groups=True, boxes=True, visibility=True, columns=True))
def test_losses_are_listed(tmp_path_factory: pytest.TempPathFactory, annotations) -> None:
    lines = write(annotations, tmp_path_factory.mktemp("out") / "project")
    assert "boxes are not written" in lines
    assert any(line.startswith("columns are not written: pose") for line in lines)
    several = len(set(annotations.rows.tolist())) < len(annotations)
    assert any("one row per image" in line for line in lines) == several
