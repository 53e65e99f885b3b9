"""Reading and writing YOLO pose: golden files, data.yaml, bad lines, hostile files, round trip."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import yaml
from helpers.annotation_cases import annotation_cases, assert_same_annotations
from hypothesis import given, settings
from PIL import Image

from landmarks_fastai.data.formats import yolo_pose
from landmarks_fastai.errors import UserError

nan = np.nan
CONFIG = {
    "train": "images/train",
    "val": "images/val",
    "names": {0: "face", 1: "mask"},
    "kpt_shape": [3, 3],
    "kpt_names": {0: ["left_eye", "right_eye", "nose"], 1: ["left_eye", "right_eye", "nose"]},
    "flip_idx": [1, 0, 2],
    "skeleton": [[0, 2], [1, 2]],
}
LINE = "0 0.5 0.5 0.5 0.25 0.25 0.5 2 0.75 0.5 1 0 0 0\n"


@pytest.fixture
def folder(tmp_path):
    """Return a data set with the images train/a.png (one object), train/b.png (none) and val/c.jpg (two)."""
    for name in ("train/a.png", "train/b.png", "val/c.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 40)).save(path)
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
    write_labels(tmp_path, LINE)
    (tmp_path / "labels" / "train" / "b.txt").touch()
    (tmp_path / "labels" / "val" / "c.txt").write_text("\n1 0.5 0.5 1 1 0 0 2 1 1 2 0.5 0.5 2\n" + LINE)
    write_config(tmp_path)
    return tmp_path


def write_config(folder, **changes):
    entries = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    (folder / "data.yaml").write_text(yaml.dump(entries, Dumper=NoAliases))


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


def write_labels(folder, text):
    (folder / "labels" / "train" / "a.txt").write_text(text)


def test_read_returns_landmarks_boxes_and_schema(folder):
    assert yolo_pose.recognizes(folder)
    assert yolo_pose.recognizes(folder / "data.yaml")
    annotations = yolo_pose.read(folder)
    assert annotations.schema.names == ("left_eye", "right_eye", "nose")
    assert annotations.schema.flip_pairs == (("left_eye", "right_eye"),)
    assert annotations.schema.skeleton == (("left_eye", "nose"), ("right_eye", "nose"))
    np.testing.assert_allclose(
        annotations.points,
        [
            [[19.5, 19.5], [59.5, 19.5], [nan, nan]],
            [[-0.5, -0.5], [79.5, 39.5], [39.5, 19.5]],
            [[19.5, 19.5], [59.5, 19.5], [nan, nan]],
        ],
    )
    np.testing.assert_array_equal(annotations.visibility, [[2, 1, 0], [2, 2, 2], [2, 1, 0]])
    np.testing.assert_allclose(annotations.boxes[:2], [[20, 15, 60, 25], [0, 0, 80, 40]])
    assert annotations.columns == {"split": ("train", "val", "val"), "class": ("face", "mask", "face")}
    assert annotations.names == (
        "labels/train/a.txt line 1",
        "labels/val/c.txt line 2",
        "labels/val/c.txt line 3",
    )
    assert annotations.notes == ("1 image without objects is left out",)
    assert not annotations.bad_rows
    assert [image.name for image in annotations.images] == ["a.png", "c.jpg"]


def test_read_two_values_a_landmark_has_no_visibility(folder):
    write_config(folder, kpt_shape=[3, 2], val=None)
    write_labels(folder, "0 0.5 0.5 0.5 0.25 0.25 0.5 0.75 0.5 0 0\n")
    annotations = yolo_pose.read(folder)
    assert annotations.visibility is None
    np.testing.assert_allclose(annotations.points, [[[19.5, 19.5], [59.5, 19.5], [nan, nan]]])
    assert "1 landmark is at (0, 0) or below taken as unlabeled" in annotations.notes


def test_read_without_names_numbers_landmarks(folder):
    write_config(folder, kpt_names=None, names=None, nc=2)
    annotations = yolo_pose.read(folder)
    assert annotations.schema.names == ("keypoint_0", "keypoint_1", "keypoint_2")
    assert annotations.schema.flip_pairs == (("keypoint_0", "keypoint_1"),)
    assert annotations.columns["class"] == ("0", "1", "0")
    assert annotations.notes[0] == (
        "data.yaml has no kpt_names: the landmarks are named keypoint_0 to keypoint_2"
    )


def test_read_sleap_names_and_class_list(folder):
    write_config(folder, kpt_names=None, node_names=["a", "b", "c"], names=["x", "y"], flip_idx=None)
    annotations = yolo_pose.read(folder)
    assert annotations.schema.names == ("a", "b", "c")
    assert annotations.schema.flip_pairs == ()
    assert annotations.columns["class"] == ("x", "y", "x")


def test_read_splits_as_lists_text_files_and_roboflow_paths(folder, tmp_path):
    (folder / "val.txt").write_text("./images/val/c.jpg\nimages/val/missing.jpg\n\n")
    write_config(folder, path=str(folder), train=["../images/train", "images/train/b.png"], val="val.txt")
    annotations = yolo_pose.read(folder / "data.yaml")
    assert annotations.columns["split"] == ("train", "val", "val")
    (message,) = annotations.bad_rows
    assert message.startswith(f"{folder / 'val.txt'}, line 2: no such image 'images/val/missing.jpg'")


def test_read_missing_or_repeated_split_is_noted(folder):
    write_config(folder, val="images/train", test="images/test")
    annotations = yolo_pose.read(folder)
    assert annotations.columns["split"] == ("train",)
    assert annotations.notes[:2] == (
        "the split val is left out: its images are those of another split",
        "no such folder or file, left out: test (images/test)",
    )


def test_read_labels_beside_images_without_images_folder(tmp_path):
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(LINE)
    write_config(tmp_path, train=".", val=None)
    assert len(yolo_pose.read(tmp_path)) == 1


BAD_LINES = {
    "too few values": ("0 0.5 0.5 0.5 0.25\n", "5 values, but 14 are needed"),
    "no number": (LINE.replace("0.75", "x" * 99), "'xxx.*is not a number"),
    "NaN": (LINE.replace("0.75", "nan"), "nan is not normalized"),
    "pixels": (LINE.replace("0.75", "60"), "60 is not normalized"),
    "visibility 3": (LINE.replace("0.5 1", "0.5 3"), "visibility of 'right_eye' is 3"),
    "unknown class": ("7" + LINE[1:], "no class 7"),
    "broken class": ("0.5" + LINE[1:], "the class is 0.5"),
    "infinite class": ("inf" + LINE[1:], "the class is inf"),
}


@pytest.mark.parametrize(("line", "words"), BAD_LINES.values(), ids=BAD_LINES)
def test_read_unusable_line_is_left_out_with_one_line_message(folder, line, words):
    write_labels(folder, LINE + line)
    annotations = yolo_pose.read(folder)
    assert len(annotations) == 3
    (message,) = annotations.bad_rows
    assert re.search(words, message)
    assert message.startswith(f"{folder / 'labels' / 'train' / 'a.txt'}, line 2: ")
    assert "\n" not in message


def test_read_broken_label_file_or_image_is_a_bad_row(folder):
    (folder / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "images" / "val" / "c.jpg").write_bytes(b"no image")
    annotations = yolo_pose.read(folder)
    assert len(annotations) == 0
    assert "not text in UTF-8" in annotations.bad_rows[0]
    assert "not an image" in annotations.bad_rows[1]


def test_read_counts_objects_without_landmarks_and_empty_boxes(folder):
    write_labels(folder, "0 .5 .5 .5 .5 0 0 0 0 0 0 0 0 0\n0 .5 .5 0 .5 .1 .1 2 .2 .2 0 0 0 0\n")
    annotations = yolo_pose.read(folder)
    np.testing.assert_array_equal(annotations.boxes[0], [nan] * 4)
    assert set(annotations.notes) >= {
        "1 object without labeled landmarks is skipped",
        "1 landmark with visibility 0 and coordinates is read as unlabeled",
        "1 empty box is left out",
    }


BAD_CONFIGS = {
    "kpt_shape as text": ({"kpt_shape": "17, 3"}, "'kpt_shape' must be"),
    "too many values": ({"kpt_shape": [3, 4]}, "2 or 3 values"),
    "too many landmarks": ({"kpt_shape": [10**9, 3]}, "from 1 to 2,000"),
    "too few names": ({"kpt_names": ["a"]}, "list of the 3 landmark names"),
    "duplicate name": ({"kpt_names": ["a", "b", "a"]}, "'a' occurs twice"),
    "names by class differ": ({"kpt_names": {0: ["a", "b", "c"], 1: ["a", "b", "d"]}}, "different kpt_names"),
    "short flip_idx": ({"flip_idx": [0, 1]}, "each index from 0 to 2 once"),
    "nested flip_idx": ({"flip_idx": [0, 1, [2]]}, "each index from 0 to 2 once"),
    "cyclic flip_idx": ({"flip_idx": [1, 2, 0]}, "exchange pairs"),
    "text class index": ({"names": {"a": "face"}}, "indices of the classes"),
    "number as split": ({"train": 5}, "'train' must be a folder"),
    "no split exists": ({"train": "x" * 9999, "val": "../y\0"}, "no images; no such folder"),
    "no split": ({"train": None, "val": None}, "none of train, val and test"),
}


@pytest.mark.parametrize(("changes", "words"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_read_unusable_config_raises_one_line_message(folder, changes, words):
    write_config(folder, **changes)
    with pytest.raises(UserError, match=words) as error:
        yolo_pose.read(folder)
    assert str(error.value).startswith(str(folder / "data.yaml"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_read_other_paths_raise(folder):
    with pytest.raises(UserError, match="no such file or folder"):
        yolo_pose.read(folder / "missing")
    with pytest.raises(UserError, match=r"no data\.yaml"):
        yolo_pose.read(folder / "images")
    (folder / "other.yml").write_text("kpt_shape: [1, 2]")
    with pytest.raises(UserError, match=r"several YOLO data sets \(data.yaml, other.yml\)"):
        yolo_pose.read(folder)
    (folder / "data.yaml").write_text("[]")
    with pytest.raises(UserError, match="must be a YAML mapping"):
        yolo_pose.read(folder / "data.yaml")


def test_recognizes_rejects_other_files(folder):
    assert not yolo_pose.recognizes(folder / "images")
    assert not yolo_pose.recognizes(folder / "images" / "train" / "a.png")
    assert not yolo_pose.recognizes(folder / "missing")
    (folder / "data.yaml").write_text("train: x\nnames: [a]\n")
    assert not yolo_pose.recognizes(folder)


@settings(max_examples=30)
@given(annotations=annotation_cases(visibility=True, boxes=True))
def test_write_then_read_gives_same_annotations(annotations):
    with TemporaryDirectory() as folder:
        lines = yolo_pose.FORMAT.write(annotations, Path(folder))
        assert yolo_pose.recognizes(Path(folder))
        found = yolo_pose.read(Path(folder))
        copied = [image.path.read_bytes() for image in found.images]
    assert lines[0] == "no row is in the split val, which training needs: it refers to train"
    assert_same_annotations(found, annotations, columns=False)
    assert copied == [image.path.read_bytes() for image in annotations.images]


@settings(max_examples=15)
@given(annotations=annotation_cases(visibility=True, boxes=True, groups=True, columns=True))
def test_write_keeps_splits_and_classes(annotations):
    n = len(annotations)
    splits = tuple("train" if row % 2 == 0 else "val" for row in annotations.rows.tolist())
    classes = tuple("no" if i % 3 else "é: 1" for i in range(n))
    annotations = replace(annotations, columns={"split": splits, "class": classes, "pose": ("x",) * n})
    with TemporaryDirectory() as folder:
        lines = yolo_pose.FORMAT.write(annotations, Path(folder))
        found = yolo_pose.read(Path(folder))
    order = np.argsort([split == "val" for split in splits], kind="stable")
    expected = annotations.subset(order)
    assert found.columns == {name: expected.columns[name] for name in ("split", "class")}
    assert_same_annotations(found, expected, columns=False, groups=False)
    assert {"groups are not written", "columns are not written: pose"} <= set(lines)


def test_write_reports_landmarks_outside_and_clipped_boxes(folder):
    annotations = yolo_pose.read(folder)
    points = annotations.points.copy()
    points[0, 0] = 90, 10
    points[1] = 300
    boxes = annotations.boxes.copy()
    boxes[2] = -5, 10, 50, 45
    boxes[0] = nan
    changed = replace(annotations, points=points, boxes=boxes, visibility=None)
    lines = yolo_pose.FORMAT.write(changed, folder / "out")
    assert set(lines) >= {
        "4 landmarks outside the image: written as unlabeled",
        "1 row without labeled landmarks left out",
        "1 row without a box: the box of the landmarks is written",
        "1 box clipped to the image",
        "visibility is not recorded: all labeled landmarks are written as visible",
    }
    found = yolo_pose.read(folder / "out")
    np.testing.assert_allclose(found.boxes, [[59.5, 19.5, 60.5, 20.5], [0, 10, 50, 40]], atol=1e-3)
    np.testing.assert_allclose(found.points[0], [[nan, nan], [59.5, 19.5], [nan, nan]], atol=1e-3)
    with pytest.raises(UserError, match="no row has a labeled landmark inside"):
        yolo_pose.FORMAT.write(replace(changed, points=np.full_like(points, -9)), folder / "none")


def test_write_images_of_equal_names_are_kept_apart(folder):
    (folder / "images" / "train" / "sub").mkdir()
    (folder / "labels" / "train" / "sub").mkdir()
    Image.new("RGB", (40, 40)).save(folder / "images" / "train" / "sub" / "a.jpg")
    (folder / "labels" / "train" / "sub" / "a.txt").write_text(LINE)
    annotations = yolo_pose.read(folder)
    yolo_pose.FORMAT.write(annotations, folder / "out")
    found = yolo_pose.read(folder / "out")
    np.testing.assert_allclose(found.points, annotations.points, atol=1e-3)
    assert [image.name for image in found.images] == ["a.png", "a_2.jpg", "c.jpg"]
