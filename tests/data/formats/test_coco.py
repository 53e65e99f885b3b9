"""Reading and writing COCO keypoints: categories, skipped annotations, hostile files, round trip."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from helpers.annotation_cases import annotation_cases, assert_same_annotations
from hypothesis import given, settings
from PIL import Image

from landmarks_fastai.data.annotations import ImageSource
from landmarks_fastai.data.formats import coco
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import COCO17

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "csv_layouts"
nan = np.nan

CATEGORY = {
    "id": 1,
    "name": "face",
    "keypoints": ["left_eye", "right_eye", "nose"],
    "skeleton": [[1, 3], [2, 3]],
}
IMAGES = [
    {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
    {"id": 9, "file_name": "b.jpg", "width": 30, "height": 50},
]
FIRST = {
    "id": 17,
    "image_id": 7,
    "category_id": 1,
    "keypoints": [10.5, 12, 2, 20, 12.25, 1, 0, 0, 0],
    "bbox": [5, 6, 20, 30.5],
    "iscrowd": 0,
}
SECOND = {"id": 18, "image_id": 9, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 2, 5, 6, 2]}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    Image.new("RGB", (30, 50)).save(tmp_path / "images" / "b.jpg")
    return tmp_path


def write(folder, annotations=(FIRST, SECOND), categories=(CATEGORY,), images=IMAGES, name="labels.json"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    content = {"images": images, "annotations": list(annotations), "categories": list(categories)}
    path.write_text(json.dumps(content))
    return path


def test_read_returns_landmarks_boxes_and_schema(folder):
    path = write(folder)
    assert coco.recognizes(path)
    assert coco.recognizes(folder)
    annotations = coco.read(folder)
    assert annotations.schema.names == ("left_eye", "right_eye", "nose")
    assert annotations.schema.flip_pairs == (("left_eye", "right_eye"),)
    assert annotations.schema.skeleton == (("left_eye", "nose"), ("right_eye", "nose"))
    np.testing.assert_array_equal(
        annotations.points, [[[10.5, 12], [20, 12.25], [nan, nan]], [[1, 2], [3, 4], [5, 6]]]
    )
    np.testing.assert_array_equal(annotations.visibility, [[2, 1, 0], [2, 2, 2]])
    np.testing.assert_array_equal(annotations.boxes, [[5, 6, 25, 36.5], [nan] * 4])
    assert annotations.names == ("labels.json annotation 17", "labels.json annotation 18")
    assert annotations.locations == (f"{path}, annotation 17", f"{path}, annotation 18")
    assert [image.path for image in annotations.images] == [folder / "a.png", folder / "images" / "b.jpg"]
    assert annotations.notes == annotations.bad_rows == ()
    assert annotations.groups is None


def test_read_counts_what_it_skips(folder):
    others = [
        FIRST | {"id": 1, "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]},
        FIRST | {"id": 3, "keypoints": []},
        FIRST | {"id": 4, "keypoints": [0] * 9},
        FIRST | {"id": 5, "category_id": 2},
        FIRST | {"id": 6, "bbox": [1, 1, 0, 5], "keypoints": [1, 1, 2, 2, 2, 0, 0, 0, 0]},
    ]
    path = write(
        folder, others, [CATEGORY, {"id": 2, "name": "car"}], [*IMAGES, {"id": 10, "file_name": "c"}]
    )
    annotations = coco.read(path)
    assert annotations.names == ("labels.json annotation 6",)
    assert annotations.boxes is None
    np.testing.assert_array_equal(annotations.visibility, [[2, 0, 0]])
    assert set(annotations.notes) == {
        "1 category without keypoints skipped",
        "2 images without labeled landmarks left out",
        "1 crowd annotation is skipped",
        "2 annotations without keypoints are skipped",
        "1 annotation without labeled landmarks is skipped",
        "1 annotation of another category is skipped",
        "1 landmark with visibility 0 and coordinates is read as unlabeled",
        "1 empty box is left out",
    }


def test_read_missing_ids_are_accepted(folder):
    annotations = coco.read(
        write(
            folder,
            [
                {"image_id": 7, "keypoints": FIRST["keypoints"]},
                {"image_id": 9, "keypoints": FIRST["keypoints"]},
            ],
            [{"keypoints": CATEGORY["keypoints"]}],
        )
    )
    assert annotations.names == ("labels.json annotations[0]", "labels.json annotations[1]")
    assert annotations.schema.name == "labels"


def test_read_repeated_annotation_ids_give_different_names(folder):
    annotations = coco.read(write(folder, [FIRST, FIRST]))
    assert annotations.names == ("labels.json annotation 17", "labels.json annotations[1]")


def test_read_categories_with_same_keypoints_are_merged(folder):
    dog = CATEGORY | {"id": 2, "name": "dog"}
    annotations = coco.read(write(folder, [FIRST, SECOND | {"category_id": 2}], [CATEGORY, dog]))
    assert annotations.columns == {"category": ("face", "dog")}


def test_read_categories_with_different_keypoints_need_to_be_unambiguous(folder):
    hand = {"id": 2, "name": "hand", "keypoints": ["thumb"]}
    assert coco.read(write(folder, [FIRST], [hand, CATEGORY])).schema.name == "face"
    second = {"image_id": 7, "category_id": 2, "keypoints": [1, 2, 2]}
    with pytest.raises(UserError, match="'hand' and 'face' have different landmarks"):
        coco.read(write(folder, [FIRST, second], [hand, CATEGORY]))


def test_read_skeleton_from_zero_is_noted(folder):
    annotations = coco.read(
        write(folder, categories=[CATEGORY | {"skeleton": [[0, 2], [1, 2], [1, 9], "x"]}])
    )
    assert annotations.schema.skeleton == (("left_eye", "nose"), ("right_eye", "nose"))
    assert annotations.notes == (
        "the skeleton is read with indices from 0, not from 1 as in COCO, because it contains 0",
        "2 edges of the skeleton left out: not a pair of landmark indices",
    )


def test_read_flip_map_group_and_attributes(folder):
    category = CATEGORY | {"keypoint_flip_map": [["left_eye", "nose"]]}
    first = FIRST | {"group": "Ann", "attributes": {"pose": "left", "age": 3, "tags": []}}
    annotations = coco.read(write(folder, [first, SECOND | {"attributes": {"pose": None}}], [category]))
    assert annotations.schema.flip_pairs == (("left_eye", "nose"),)
    assert annotations.groups == ("Ann", "labels.json annotation 18")
    assert annotations.columns == {"pose": ("left", ""), "age": ("3", "")}
    assert set(annotations.notes) == {
        "1 attribute that is a list is ignored",
        "1 annotation without 'group' is in groups of their own",
    }


def test_read_built_in_names_have_built_in_schema_in_any_order(folder):
    names = list(reversed(COCO17.names))
    keypoints = [value for i in range(17) for value in (i, i + 1, 2)]
    annotation = FIRST | {"keypoints": keypoints}
    annotations = coco.read(write(folder, [annotation], [CATEGORY | {"keypoints": names, "skeleton": []}]))
    assert annotations.schema == COCO17
    np.testing.assert_array_equal(annotations.points[0, :, 0], np.arange(17)[::-1])


@pytest.mark.parametrize(
    "layout",
    ["val2017/c.png", "images/c.png", "images/val2017/c.png", "val/c.png", "annotations/c.png", "c.png"],
)
def test_read_finds_images_of_documented_layouts(folder, layout):
    image = folder / layout
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(image)
    images = [{"id": 7, "file_name": "c.png"}]
    write(folder, [FIRST], images=images, name="annotations/person_keypoints_val2017.json")
    assert [each.path for each in coco.read(folder).images] == [image.absolute()]


def test_read_notes_images_of_another_size(folder):
    images = [IMAGES[0] | {"width": 40, "height": 60}, IMAGES[1]]
    assert coco.read(write(folder, images=images)).notes == (
        "1 image is of another size than when labeled: check that the landmarks fit",
    )


def test_read_folder_with_several_files_raises(folder):
    write(folder)
    write(folder, name="more.json")
    assert coco.recognizes(folder)
    with pytest.raises(UserError, match=r"several COCO files \(labels.json, more.json\)"):
        coco.read(folder)
    with pytest.raises(UserError, match="no COCO file"):
        coco.read(folder / "images")
    with pytest.raises(UserError, match="no such file"):
        coco.read(folder / "missing.json")


def test_recognizes_rejects_other_files(folder):
    assert not coco.recognizes(folder)
    for name, content in (("a.json", "[]"), ("b.json", '{"images": []}'), ("c.json", ""), ("d.txt", "x")):
        (folder / name).write_text(content)
        assert not coco.recognizes(folder / name)
    assert not coco.recognizes(folder)
    assert not coco.recognizes(folder / "missing")


BAD = {
    "not an object": (5, "must be a JSON object"),
    "too few keypoints": (FIRST | {"keypoints": [1, 2, 2]}, "must be 9 numbers.*not 3 values"),
    "text among keypoints": (FIRST | {"keypoints": ["1", 2, 2] * 3}, "must be 9 numbers"),
    "nested keypoints": (FIRST | {"keypoints": [[1, 2, 2]] * 9}, "must be 9 numbers"),
    "keypoints that are text": (FIRST | {"keypoints": "x" * 500}, "must be 9 numbers"),
    "huge integer": (FIRST | {"keypoints": [10**400, 2, 2] * 3}, "must be 9 numbers"),
    "NaN": (FIRST | {"keypoints": [nan, 2, 2] * 3}, "'left_eye' is at nan, 2"),
    "far away": (FIRST | {"keypoints": [1e9, 2, 2] * 3}, "'left_eye' is at 1e"),
    "visibility 3": (FIRST | {"keypoints": [1, 2, 3] * 3}, "visibility of 'left_eye' is 3"),
    "bad box": (FIRST | {"bbox": [1, 2, "x", 4]}, "'bbox' must be"),
    "unknown image": (FIRST | {"image_id": 1}, "image_id 1 is not among"),
    "list as image id": (FIRST | {"image_id": [7]}, "must be a whole number"),
    "unknown category": (FIRST | {"category_id": 5}, "category_id 5 is not among"),
    "image without name": (FIRST | {"image_id": 11}, "image 11 has no 'file_name'"),
    "missing image": (FIRST | {"image_id": 12}, "no such image 'x.png'; put it into"),
}


@pytest.mark.parametrize(("entry", "words"), BAD.values(), ids=BAD)
def test_read_unusable_annotation_is_left_out_with_one_line_message(folder, entry, words):
    path = write(folder, [SECOND, entry], images=[*IMAGES, {"id": 11}, {"id": 12, "file_name": "x.png"}])
    annotations = coco.read(path)
    assert annotations.names == ("labels.json annotation 18",)
    (message,) = annotations.bad_rows
    assert message.startswith(f"{path}, annotation")
    assert message == message.splitlines()[0]
    assert len(message) < 400
    assert re.search(words, message)


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png", "\ud800" * 3000])
def test_read_image_name_that_no_file_can_have_is_left_out(folder, name):
    images = [*IMAGES, {"id": 12, "file_name": name, "width": 60, "height": 40}]
    annotations = coco.read(write(folder, [SECOND, FIRST | {"image_id": 12}], images=images))
    assert annotations.names == ("labels.json annotation 18",)
    assert re.search("annotation 17: no such image", annotations.bad_rows[0])


UNUSABLE = {
    "a list": ("[]", "not a COCO file"),
    "no annotations": ('{"images": [], "categories": []}', "'annotations'"),
    "no categories with keypoints": (
        '{"images": [], "annotations": [], "categories": [{}]}',
        "no category has",
    ),
    "category that is text": ('{"images": [], "annotations": [], "categories": ["a"]}', r"categories\[0\]"),
    "keypoints that are a number": (
        '{"images": [], "annotations": [], "categories": [{"keypoints": 4}]}',
        "must be the list",
    ),
    "duplicate landmark": (
        '{"images": [], "annotations": [], "categories": [{"keypoints": ["a", "a"]}]}',
        "'a' occurs twice",
    ),
    "duplicate category": (
        '{"images": [], "annotations": [], "categories": [{"id": 1}, {"id": 1}]}',
        "id 1 occurs twice",
    ),
    "duplicate image": (
        '{"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": [{"keypoints": ["a"]}]}',
        "id 1 occurs twice",
    ),
    "no rows": (
        '{"images": [{"id": 1}], "annotations": [], "categories": [{"keypoints": ["a"]}]}',
        "no annotation with labeled landmarks",
    ),
    "bad flip map": (
        '{"images": [], "annotations": [], "categories": [{"keypoints": ["a"], "keypoint_flip_map": 4}]}',
        "list of pairs",
    ),
    "unknown name in flip map": (
        json.dumps(
            {"images": [], "annotations": [], "categories": [CATEGORY | {"keypoint_flip_map": ["ab"]}]}
        ),
        "'a' is not one of",
    ),
    "too many landmarks": (
        json.dumps({"images": [], "annotations": [], "categories": [{"keypoints": list(range(3000))}]}),
        "3,000 different landmark names",
    ),
    "deeply nested": ('{"images":' * 9999, "nested too deeply"),
}


@pytest.mark.parametrize(("text", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_read_unusable_file_raises_one_line_message(folder, text, words):
    path = folder / "labels.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        coco.read(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@settings(max_examples=40)
@given(annotations=annotation_cases(visibility=True, boxes=True, groups=True, columns=True))
def test_write_then_read_gives_same_annotations(annotations):
    with TemporaryDirectory() as folder:
        out = Path(folder) / "labels.json"
        assert coco.write(annotations, out) == []
        assert coco.recognizes(out)
        assert_same_annotations(coco.read(out), annotations)


@settings(max_examples=10)
@given(annotations=annotation_cases(empty_rows=True))
def test_write_reports_what_it_cannot_hold(annotations):
    frames = replace(annotations, images=(*annotations.images, ImageSource(Path("a.mp4"), 1)))
    empty = int(np.isnan(annotations.points).all(axis=(1, 2)).sum())
    with TemporaryDirectory() as folder:
        lines = coco.write(frames, Path(folder) / "labels.json")
        content = json.loads((Path(folder) / "labels.json").read_text())
    assert "visibility is not recorded: all labeled landmarks are written as visible" in lines
    assert any("without a box" in line for line in lines) == (empty < len(annotations))
    assert any("without labeled landmarks" in line for line in lines) == (empty > 0)
    flags = np.array([each["keypoints"][2::3] for each in content["annotations"]])
    np.testing.assert_array_equal(flags, np.where(np.isnan(annotations.points[:, :, 0]), 0, 2))


@settings(max_examples=10)
@given(annotations=annotation_cases(visibility=True, boxes=True))
def test_write_is_read_by_pycocotools(annotations):
    pycocotools = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    with TemporaryDirectory() as folder:
        out = Path(folder) / "labels.json"
        coco.write(annotations, out)
        reader = pycocotools.COCO(str(out))
        found = reader.loadAnns(sorted(reader.getAnnIds(iscrowd=False)))
        names = [reader.loadImgs(each["image_id"])[0]["file_name"] for each in found]
    keypoints = np.array([each["keypoints"] for each in found]).reshape(len(annotations), -1, 3)
    np.testing.assert_allclose(keypoints[:, :, :2], np.nan_to_num(annotations.points), atol=1e-3)
    np.testing.assert_array_equal(keypoints[:, :, 2], annotations.visibility)
    assert [Path(name).name for name in names] == [annotations.images[row].name for row in annotations.rows]


@pytest.mark.skipif(not CASES.is_dir(), reason="needs shared/cases")
def test_read_shared_layout():
    annotations = coco.read(CASES / "coco.json")
    np.testing.assert_array_equal(annotations.points, [[[1, 2], [nan, nan]]])
