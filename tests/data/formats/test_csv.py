"""Reading and writing a CSV of landmarks: layouts, columns, visibility, bad rows, round trip."""

from __future__ import annotations

import codecs
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from helpers.annotation_cases import annotation_cases, assert_same_annotations
from hypothesis import given, settings
from PIL import Image

from landmarks_fastai.data.formats import csv
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import IBUG68

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "csv_layouts"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
HEADER = "image,left_x,left_y,right_x,right_y,tip_x,tip_y\n"
GOOD = "a.png,40,10,20,12,30,25\n"
nan = np.nan


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a CSV and two images, one next to it and one in images/."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    Image.new("RGB", (30, 50)).save(tmp_path / "images" / "b.jpg")
    (tmp_path / "landmarks.csv").write_text(HEADER + GOOD + "b.jpg,20,20,8,20,,\n")
    return tmp_path


def read(folder, text=None, encoding="utf-8"):
    if text is not None:
        (folder / "landmarks.csv").write_bytes(text.encode(encoding))
    return csv.read(folder / "landmarks.csv")


def test_read_returns_labels_images_and_schema(folder):
    annotations = csv.read(folder)
    assert annotations.schema.names == ("left", "right", "tip")
    assert annotations.schema.flip_pairs == (("left", "right"),)
    assert [image.path for image in annotations.images] == [folder / "a.png", folder / "images" / "b.jpg"]
    assert annotations.names == ("a.png", "b.jpg")
    assert annotations.locations == tuple(f"{folder / 'landmarks.csv'}, line {i}" for i in (2, 3))
    np.testing.assert_array_equal(
        annotations.points, [[[40, 10], [20, 12], [30, 25]], [[20, 20], [8, 20], [nan, nan]]]
    )
    assert annotations.visibility is annotations.boxes is annotations.groups is None
    assert annotations.notes == annotations.bad_rows == ()


LAYOUTS = {
    "commas": "image,a_x,a_y\na.png,1.5,-2.25\n",
    "semicolons": "image;a_x;a_y\na.png;1.5;-2.25\n",
    "tabs": "image\ta_x\ta_y\na.png\t1.5\t-2.25\n",
    "semicolons and decimal commas": "image;a_x;a_y\na.png;1,5;-2,25\n",
    "quoted decimal commas": 'image,a_x,a_y\na.png,"1,5","-2,25"\n',
    "Excel's separator line": "sep=;\r\nimage;a_x;a_y\r\na.png;1,5;-2,25\r\n",
    "spaces": " image , a_x , a_y \n a.png , 1.5 , -2.25 \n",
    "trailing separators": "image,a_x,a_y\na.png,1.5,-2.25,,\n",
    "blank lines": "image,a_x,a_y\n\na.png,1.5,-2.25\n\n",
    "exponents": "image,a_x,a_y\na.png,15e-1,-.225E1\n",
    "old line breaks": "image,a_x,a_y\ra.png,1.5,-2.25\r",
    "another order": "a_y,image,a_x\n-2.25,a.png,1.5\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_read_accepts_layouts(folder, text, encoding):
    annotations = read(folder, text, encoding)
    assert csv.recognizes(folder)
    assert annotations.names == ("a.png",)
    np.testing.assert_array_equal(annotations.points, [[[1.5, -2.25]]])
    assert not annotations.bad_rows


def test_read_utf16_big_endian(folder):
    text = LAYOUTS["semicolons"].encode("utf-16-be")
    (folder / "landmarks.csv").write_bytes(codecs.BOM_UTF16_BE + text)
    assert len(csv.read(folder)) == 1


def test_read_counts_decimal_commas_and_rejects_mixed_ones(folder):
    annotations = read(folder, "image;a_x;a_y\na.png;1,5;2\nb.jpg;3;4,5\n")
    assert annotations.notes == ("2 decimal commas are read as decimal points",)
    np.testing.assert_array_equal(annotations.points[:, 0], [[1.5, 2], [3, 4.5]])
    with pytest.raises(UserError, match="line 3: a_x has a decimal comma, but a decimal point in row 2"):
        read(folder, "image;a_x;a_y\na.png;1.5;2\nb.jpg;3,5;4\n")


@pytest.mark.parametrize("cell", ["", " ", "NaN", "nan", "NA", "n/a", "null", "None"])
def test_read_empty_cells_are_unlabeled(folder, cell):
    annotations = read(folder, f"image,a_x,a_y,b_x,b_y\na.png,1,2,{cell},{cell}\n")
    np.testing.assert_array_equal(annotations.points, [[[1, 2], [nan, nan]]])


def test_read_visibility_groups_boxes_and_columns(folder):
    header = "image,a_x,a_y,a_visibility,b_x,b_y,b_visibility,group,box_x0,box_y0,box_x1,box_y1,pose,\n"
    rows = [
        "a.png,1,2,2,3,4,1, Ann ,0,0,9.5,8,left,",
        "a.png,1,2,visible,3,4,Hidden,Ben,,,,,,",
        "b.jpg,,,0,0,0,0,Ann,1,1,2,2,up,",
        "b.jpg,1,2,,3,4,2.0,Ann,1,1,2,2,up,",
    ]
    annotations = read(folder, header + "\n".join(rows) + "\n")
    assert not annotations.bad_rows
    np.testing.assert_array_equal(annotations.visibility, [[2, 1], [2, 1], [0, 0], [2, 2]])
    np.testing.assert_array_equal(annotations.points[2], [[nan, nan], [nan, nan]])
    np.testing.assert_array_equal(annotations.boxes[:2], [[0, 0, 9.5, 8], [nan] * 4])
    assert annotations.groups == ("Ann", "Ben", "Ann", "Ann")
    assert annotations.columns == {"pose": ("left", "", "up", "up")}
    assert annotations.names[:2] == ("a.png (landmarks.csv line 2)", "a.png (landmarks.csv line 3)")
    assert set(annotations.notes) == {
        "1 column without a name is ignored",
        "1 landmark at (0, 0) with visibility 0 is read as unlabeled",
        "1 landmark without visibility is taken as visible",
        "other columns, kept for slices of an evaluation: pose",
    }


def test_read_schema_file_determines_order(folder):
    schema = LandmarkSchema("custom", ("tip", "right", "left"), (("right", "left"),), (("tip", "left"),))
    (folder / "schema.json").write_text(json.dumps(schema.to_dict()))
    annotations = read(folder)
    assert annotations.schema == schema
    np.testing.assert_array_equal(annotations.points[0], [[30, 25], [20, 12], [40, 10]])
    (folder / "schema.json").write_text(
        json.dumps(LandmarkSchema("custom", ("left", "right", "top")).to_dict())
    )
    with pytest.raises(
        UserError, match=r"landmarks\.csv: has the landmark 'tip', which .*schema\.json does not have"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["landmarks.csv", "empty"]),
        (HEADER, ["landmarks.csv", "no rows"]),
        ("image\na.png\n", ["landmarks.csv", "no columns of landmarks"]),
        ("picture,a_x,a_y\na.png,1,2\n", ["landmarks.csv", "'image'"]),
        ("image,a_x,a_y,a_x\na.png,1,2,3\n", ["duplicate column 'a_x'"]),
        ("image,a_x,a_y,b_x\na.png,1,2,3\n", ["'b_x'", "'b_y'"]),
        ("image,a_x,a_y,b_y\na.png,1,2,3\n", ["'b_y'", "'b_x'"]),
        ("image,a_x,a_y,box_x0\na.png,1,2,3\n", ["'box_x0'", "'box_y0'"]),
        ("image," + "x" * 5000 + "_x\n", ["needs a column"]),
        (HEADER + "missing.png,1,2,3,4,5,6\n", ["line 2", "missing.png", "put it into"]),
        ("image,a_x,a_y\n" + "x.png,1,2\ny.png,1,2\n", ["line 2", "x.png", "all 2 images are missing"]),
        ("image,a_x,a_y\n" + '"' + "x" * 200_000, ["line 2", "field"]),
        ("Image,a_x,a_y\n" + "0 " * 9216 + ",1,2\n", ["Kaggle", "pixels"]),
        ("\0\0\0\n", ["landmarks.csv", "'image'" if sys.version_info >= (3, 11) else "line contains NUL"]),
    ],
)
def test_read_unusable_file_raises_one_line_message(folder, text, parts):
    with pytest.raises(UserError) as error:
        read(folder, text)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    for part in parts:
        assert part in message


V_HEADER = "image,a_x,a_y,a_visibility,group,box_x0,box_y0,box_x1,box_y1\n"


@pytest.mark.parametrize(
    ("header", "row", "parts"),
    [
        (HEADER, "missing.png,1,2,3,4,5,6", ["no such image 'missing.png'", "images"]),
        (HEADER, "x" * 5000 + ",1,2,3,4,5,6", ["xxx"]),
        (HEADER, ",1,2,3,4,5,6", ["'image' is empty"]),
        (HEADER, "a.png,1,2,3,4,five,6", ["tip_x is 'five'", "enter a number"]),
        (HEADER, "a.png,1,2,3,4,inf,6", ["tip_x is 'inf'"]),
        (HEADER, "a.png,1,2,3,4,1e30,6", ["tip_x is '1e30'"]),
        (HEADER, "a.png,1,2,3,4,1_0,6", ["tip_x is '1_0'"]),
        (HEADER, "a.png,1,2,3,4," + "9" * 5000 + ",6", ["tip_x is '999"]),
        (HEADER, "a.png,1,,3,4,5,6", ["left_y is empty but left_x is not"]),
        (HEADER, "a.png,1,2", ["3 fields, but the header has 7"]),
        (HEADER, "a.png,1,2,3,4,5,6,7", ["8 fields"]),
        (V_HEADER, "a.png,1,2,0,A,,,,", ["a_visibility is 0", "enter 1 (hidden) or 2"]),
        (V_HEADER, "a.png,,,2,A,,,,", ["labeled, but a_x and a_y are empty", "or enter 0"]),
        (V_HEADER, "a.png,1,2,3,A,,,,", ["a_visibility is '3'"]),
        (V_HEADER, "a.png,1,2,maybe,A,,,,", ["a_visibility is 'maybe'"]),
        (V_HEADER, "a.png,1,2,2,,,,,", ["'group' is empty"]),
        (V_HEADER, "a.png,1,2,2,A,1,2,3,", ["fill in all four or none"]),
        (V_HEADER, "a.png,1,2,2,A,5,2,3,9", ["box is empty"]),
    ],
)
def test_read_unusable_row_is_left_out_with_one_line_message(folder, header, row, parts):
    good = GOOD if header == HEADER else "a.png,1,2,2,A,,,,\n"
    annotations = read(folder, f"{header}{good}{row}\n{good}")
    assert len(annotations) == 2
    (message,) = annotations.bad_rows
    assert message.startswith(f"{folder / 'landmarks.csv'}, line 3: ")
    assert "\n" not in message
    assert len(message) < 600
    for part in parts:
        assert part in message


def test_read_several_blocks_and_bad_rows_keep_their_lines(folder, monkeypatch):
    monkeypatch.setattr(csv, "BLOCK_ROWS", 3)
    rows = "".join(f"a.png,{i},0,1,1,2,2\n" if i % 4 else "a.png,x,0,1,1,2,2\n" for i in range(10))
    annotations = read(folder, HEADER + rows)
    assert annotations.points[:, 0, 0].tolist() == [1, 2, 3, 5, 6, 7, 9]
    assert annotations.names[-1] == "a.png (landmarks.csv line 11)"
    assert [message.split(": ")[0][-6:] for message in annotations.bad_rows] == ["line 2", "line 6", "ine 10"]


def test_read_too_many_rows_raises(folder, monkeypatch):
    monkeypatch.setattr("landmarks_fastai.data.formats.tables.MAX_ROWS", 1)
    with pytest.raises(UserError, match="more than 1 rows"):
        read(folder)


def test_read_missing_file_or_folder_without_csv_raises(folder):
    with pytest.raises(UserError, match="no such file or folder"):
        csv.read(folder / "missing")
    with pytest.raises(UserError, match=r"no landmarks\.csv"):
        csv.read(folder / "images")


def test_recognizes_by_content(folder):
    assert csv.recognizes(folder)
    assert not csv.recognizes(folder / "images")
    assert not csv.recognizes(folder / "a.png")
    assert not csv.recognizes(folder / "missing.csv")
    (folder / "landmarks.csv").write_text("left_eye_x,Image\n1," + "0 " * 9216 + "\n")
    assert not csv.recognizes(folder)


@settings(max_examples=40)
@given(annotations=annotation_cases(visibility=True, boxes=True, groups=True, columns=True, empty_rows=True))
def test_write_then_read_gives_same_annotations(annotations):
    check_round_trip(annotations)


@settings(max_examples=20)
@given(annotations=annotation_cases(empty_rows=True))
def test_write_then_read_without_optional_columns_gives_same_annotations(annotations):
    check_round_trip(annotations)


def check_round_trip(annotations):
    with TemporaryDirectory() as folder:
        out = Path(folder) / "sub" / "labels.csv"
        assert csv.write(annotations, out) == []
        found = csv.read(out)
    assert_same_annotations(found, annotations)
    assert found.schema == annotations.schema


@given(annotations=annotation_cases())
@settings(max_examples=1)
def test_write_reports_columns_with_another_meaning_and_refuses_other_schema(annotations):
    values = ("x",) * len(annotations)
    names = ("image", "group", "box_x0", "extra_x", "left_eye_visibility", " a ", "fine")
    object.__setattr__(annotations, "columns", dict.fromkeys(names, values))
    with TemporaryDirectory() as folder:
        out = Path(folder) / "labels.csv"
        (line,) = csv.write(annotations, out)
        assert "image, group, box_x0, extra_x, left_eye_visibility" in line
        assert csv.read(out).columns == {"fine": values}
        (Path(folder) / "schema.json").write_text('{"name": "other", "names": ["b"]}')
        with pytest.raises(UserError, match="another schema"):
            csv.write(annotations, out)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs shared/cases")
@pytest.mark.parametrize("name", ["Image.csv", "semi.csv", "backslash.csv", "nfd"])
def test_read_shared_layouts(name):
    annotations = csv.read(CASES / name)
    assert csv.recognizes(CASES / name)
    assert not annotations.bad_rows
    np.testing.assert_allclose(annotations.points[0, 0], [170.659, 115.489])


@pytest.mark.skipif(not (SHARED / "faces68").is_dir(), reason="needs shared/data/faces68")
def test_read_shared_faces68():
    annotations = csv.read(SHARED / "faces68")
    assert annotations.schema == IBUG68
    assert not np.isnan(annotations.points).any()
