"""Finding the images of a label file: spellings of their paths, missing images, references to them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.formats.image_files import (
    ImageFiles,
    image_reference,
    label_extent,
    without_frames,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema

SCHEMA = LandmarkSchema("two", ("a", "b"))


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "images/b.png", "images/sub/c.png", "café.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def make_annotations(images, rows, **values):
    n = len(rows)
    points = np.arange(4.0 * n).reshape(n, 2, 2)
    names = tuple(f"row {i}" for i in range(n))
    arguments = {"points": points, "names": names, "source": "labels.json"} | values
    return Annotations(schema=SCHEMA, images=tuple(images), rows=np.array(rows, np.int64), **arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a.png"),
        (" a.png ", "a.png"),
        ("b.png", "images/b.png"),
        ("images/b.png", "images/b.png"),
        ("images\\sub\\c.png", "images/sub/c.png"),
        ("sub\\c.png", "images/sub/c.png"),
        (unicodedata.normalize("NFD", "café.png"), "café.png"),
        ("/home/me/b.png", "images/b.png"),
        ("C:\\data\\a.png", "a.png"),
        ("faces/a.png", "a.png"),
        ("faces\\images\\sub\\c.png", "images/sub/c.png"),
        (unicodedata.normalize("NFD", "/home/café.png"), "café.png"),
        ("missing.png", None),
        ("faces/missing.png", None),
        ("faces/", None),
        ("images", None),
        ("", None),
        ("x" * 5000, None),
        ("a\0.png", None),
    ],
)
def test_image_files_find_accepts_spellings(folder, name, expected):
    found = ImageFiles([folder, folder / "images"]).find(name)
    assert found == (None if expected is None else folder / expected)


def test_image_files_lists_each_image_once(folder):
    files = ImageFiles([folder, folder / "images"])
    names = ["a.png", "b.png", "./a.png", "images/b.png", "a.png"]
    assert [files.add(name, "row") for name in names] == [0, 1, 0, 1, 0]
    assert [source.path for source in files.sources()] == [folder / "a.png", folder / "images" / "b.png"]
    assert files.notes() == []
    files.add("/elsewhere/b.png", "row")
    assert files.notes() == [
        "1 path of an image does not exist; a file of the same name beside the labels is used"
    ]
    assert files.missing(files.add("another/b.png", "row")) is not None


def test_image_files_drop_missing_turns_rows_into_bad_rows(folder):
    files = ImageFiles([folder, folder / "images"])
    rows = [
        files.add(name, f"line {i}") for i, name in enumerate(["x.png", "a.png", "y.png", "b.png", "x.png"])
    ]
    assert files.missing(rows[1]) is None
    assert files.missing(rows[4]).startswith("line 0: no such image 'x.png'; put it into ")
    kept = files.drop_missing(make_annotations(files.sources(), rows, bad_rows=("first",)))
    assert [kept.images[row].name for row in kept.rows] == ["a.png", "b.png"]
    assert kept.names == ("row 1", "row 3")
    np.testing.assert_array_equal(kept.points[:, 0, 0], [4, 12])
    assert [message.split(";")[0] for message in kept.bad_rows] == [
        "first",
        "row 0: no such image 'x.png'",
        "row 2: no such image 'y.png'",
        "row 4: no such image 'x.png'",
    ]


def test_image_files_drop_missing_raises_if_all_images_are_missing(folder):
    files = ImageFiles([folder])
    rows = [files.add(name, "row") for name in ("x.png", "y.png")]
    with pytest.raises(UserError, match=r"line 2: no such image 'x.png'; put it into .* \(all 2 images"):
        files.drop_missing(make_annotations(files.sources(), rows, locations=("line 2", "line 3")))


def test_image_reference_is_relative_with_slashes(tmp_path):
    assert image_reference(tmp_path / "images" / "a.png", tmp_path / "labels") == "../images/a.png"


def test_without_frames_leaves_out_rows_on_frames():
    images = (ImageSource(Path("a.mp4"), 3), ImageSource(Path("a.png")), ImageSource(Path("b.png")))
    kept, lines = without_frames(make_annotations(images, [2, 0, 1]))
    assert [kept.images[row].name for row in kept.rows] == ["b.png", "a.png"]
    assert lines == ["1 row on frames of videos is left out: the format holds image files only"]
    same = make_annotations(images, [1, 2])
    assert without_frames(make_annotations(images[1:], [0]))[1] == []
    assert len(without_frames(same)[0].images) == 2
    with pytest.raises(UserError, match="all rows are on frames"):
        without_frames(make_annotations(images[:1], [0, 0]))


def test_label_extent_is_box_or_pixels_of_landmarks():
    points = np.array([[[1, 2], [5, 3]], [[np.nan] * 2] * 2, [[1, 1], [2, 2]]], float)
    boxes = np.array([[np.nan] * 4, [np.nan] * 4, [0, 0, 9, 9]])
    images = (ImageSource(Path("a.png")),)
    extent, count = label_extent(make_annotations(images, [0, 0, 0], points=points, boxes=boxes))
    np.testing.assert_array_equal(extent, [[1, 2, 6, 4], [np.nan] * 4, [0, 0, 9, 9]])
    assert count == 1
