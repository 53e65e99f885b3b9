"""Boxes read from a CSV and from COCO JSON, and assigned to images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from landmarks_fastai.data.box_files import assign_boxes, read_boxes
from landmarks_fastai.errors import UserError

HEADER = "image,x0,y0,x1,y1\n"


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def write_coco(folder: Path, content: Any) -> Path:
    return write(folder, "boxes.json", json.dumps(content))


# --- reading -------------------------------------------------------------------------------------


def test_csv_gives_edges_and_ignores_other_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path, "b.csv", "score,y1,x1,y0,x0, image\n0.9,40,30.5,20,10,a/b.png\n0.1,4,3,2,-1,c.png\n"
    )
    file = read_boxes(path)
    assert [(box.image, box.edges) for box in file.boxes] == [
        ("a/b.png", (10.0, 20.0, 30.5, 40.0)),
        ("c.png", (-1.0, 2.0, 3.0, 4.0)),
    ]
    assert file.boxes[1].location == f"{path}, line 3"


def test_csv_of_labels_gives_boxes_of_rows_that_have_one(tmp_path: Path) -> None:
    header = "image,nose_x,nose_y,box_x0,box_y0,box_x1,box_y1"
    path = write(tmp_path, "b.csv", f"{header}\na.png,1,2,3,4,5,6\nb.png,1,2,,,,\n")
    assert [(box.image, box.edges) for box in read_boxes(path).boxes] == [("a.png", (3, 4, 5, 6))]


def test_coco_annotations_give_edges_and_leave_out_groups(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 5, "file_name": "x/a.png"}, {"id": "b", "file_name": "b.png"}],
        "annotations": [
            {"image_id": 5, "bbox": [10, 20, 30, 40.5]},
            {"image_id": "b", "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": "b", "bbox": [1, 2, 3, 4], "iscrowd": 0},
        ],
    }
    file = read_boxes(write_coco(tmp_path, content))
    assert [(box.image, box.edges) for box in file.boxes] == [
        ("x/a.png", (10, 20, 40, 60.5)),
        ("b.png", (1, 2, 4, 6)),
    ]
    assert file.notes == (f"{file.path}: 1 group of objects left out (iscrowd)",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,1,2,three,4", "x1 is 'three'; enter a number of pixels"),
        ("a.png,1,2,,4", "x1 is ''; enter a number"),
        ("a.png,1,2,inf,4", "x1 is 'inf'; enter a number"),
        ("a.png,5,2,5,4", r"the box \(5, 2, 5, 4\) is empty; x0 must be less than x1"),
        (",1,2,3,4", "'image' is empty"),
        ("a.png,1,2,3", "4 fields, but the header has 5"),
    ],
)
def test_bad_csv_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, "b.csv", f"{HEADER}a.png,0,0,9,9\n{row}\n")
    with pytest.raises(UserError, match=rf"b\.csv, line 3: .*{message}"):
        read_boxes(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 2, "bbox": [1, 2, 3, 4]}, "image_id is '2', which is not in 'images'"),
        ({"image_id": 1, "bbox": [1, 2, 3]}, r"bbox must be \[left, top, width, height\]"),
        ({"image_id": 1, "bbox": [1, 2, -3, 4]}, "is empty"),
        ({"image_id": 1, "bbox": [1, 2, None, 4]}, "x1 is 'nan'"),
        ("text", "is not an object"),
    ],
)
def test_bad_coco_annotation_is_named(tmp_path: Path, entry: Any, message: str) -> None:
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [entry]}
    with pytest.raises(UserError, match=rf"boxes\.json, annotation 1: .*{message}"):
        read_boxes(write_coco(tmp_path, content))


def test_all_bad_rows_are_reported_together(tmp_path: Path) -> None:
    rows = [f"a.png,{index},0,0,9" for index in range(30)]
    path = write(tmp_path, "b.csv", HEADER + "\n".join(["a.png,0,0,9,9", *rows]))
    with pytest.raises(UserError, match=r"30 of 31 boxes cannot be used") as error:
        read_boxes(path)
    assert len(error.value.details) == 21
    assert error.value.details[0].startswith(f"{path}, line 3: ")
    assert error.value.details[-1] == "and 10 more"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", "image,x0,y0,x1\n", "the column 'y1' is missing"),
        ("b.csv", HEADER, "contains no boxes"),
        ("b.csv", "", "the file is empty"),
        ("b.json", "{}", "not COCO"),
        ("b.json", '{"images": []}', "not COCO"),
        ("b.json", '{"images": [{"id": 1}], "annotations": []}', "image 1: has no file_name"),
        ("b.json", "3", "not COCO"),
        ("b.json", "[", "not JSON"),
    ],
)
def test_unusable_file_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_boxes(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["b.csv", "b.json"])
def test_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_boxes(tmp_path / name)


# --- assigning -----------------------------------------------------------------------------------


def assign(folder: Path, names: list[str], images: list[str]) -> tuple[dict[str, int], list[str]]:
    """Return the number of boxes of each image, and the notes."""
    path = write(folder, "b.csv", HEADER + "".join(f"{name},0,0,9,9\n" for name in names))
    assigned, notes = assign_boxes(read_boxes(path), [folder / image for image in images])
    return {str(image.relative_to(folder)): len(boxes) for image, boxes in assigned.items()}, notes


def test_boxes_belong_to_image_by_end_of_its_path(tmp_path: Path) -> None:
    images = ["one/a.png", "two/a.png", "two/b.png", "c\u0301.png"]
    names = ["one/a.png", "b.png", "two\\a.png", "a/../two/b.png", "\u0107.png"]
    counts, notes = assign(tmp_path, names, images)
    assert counts == {"one/a.png": 1, "two/a.png": 1, "two/b.png": 2, "c\u0301.png": 1}
    assert not notes


def test_name_that_fits_several_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b\.csv, line 2: 2 images are named a\.png; add their folder"):
        assign(tmp_path, ["a.png"], ["one/a.png", "two/a.png"])


def test_name_relative_to_box_file_is_preferred(tmp_path: Path) -> None:
    counts, _ = assign(tmp_path, ["a.png"], ["a.png", "two/a.png"])
    assert counts == {"a.png": 1, "two/a.png": 0}


def test_images_without_boxes_and_boxes_without_images_are_noted(tmp_path: Path) -> None:
    names = ["a.png", "a.png", "z.png", "y.png", "x/a.png"]
    counts, notes = assign(tmp_path, names, ["a.png", "b.png"])
    assert counts == {"a.png": 2, "b.png": 0}
    assert notes == [
        f"{tmp_path / 'b.csv'}: no boxes for 1 image, searched without: {tmp_path / 'b.png'}",
        f"{tmp_path / 'b.csv'}: has boxes of 3 other images that are not predicted: x/a.png, y.png, z.png",
    ]


def test_coco_detections_name_images_by_id(tmp_path: Path) -> None:
    detections = [
        {"image_id": 139, "bbox": [0, 0, 5, 5]},
        {"image_id": "cup", "bbox": [0, 0, 5, 5]},
        {"image_id": 0, "bbox": [0, 0, 5, 5]},
    ]
    images = [tmp_path / name for name in ("000000000139.jpg", "cup.png", "000.png", "13900.png")]
    assigned, _ = assign_boxes(read_boxes(write_coco(tmp_path, detections)), images)
    assert [len(assigned[image]) for image in images] == [1, 1, 1, 0]
