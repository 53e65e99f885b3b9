"""Reading and writing Parquet: column types, limits, damaged files, round trip."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from helpers.annotation_cases import annotation_cases, assert_same_annotations
from hypothesis import given, settings
from PIL import Image

from landmarks_fastai.data.formats import parquet
from landmarks_fastai.errors import UserError

pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
pd = pytest.importorskip("pandas", reason="needs pandas")
nan = np.nan


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    Image.new("RGB", (30, 50)).save(tmp_path / "images" / "b.jpg")
    return tmp_path


def write(folder, **columns):
    path = folder / "landmarks.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_read_returns_columns_of_any_plain_type(folder):
    path = write(
        folder,
        image=pa.array(["a.png", "b.jpg", "a.png"]).dictionary_encode(),
        a_x=pa.array([1, 2, None], pa.int32()),
        a_y=pa.array([1.5, 2.5, nan], pa.float32()),
        a_visibility=pa.array([2, 1, 0], pa.uint8()),
        b_x=pa.array(["3", "4,5", ""]),
        b_y=pa.array([3.0, 4.0, None]),
        group=pa.array([7, 8, 7]),
        pose=pa.array([True, False, None]),
    )
    assert parquet.recognizes(path)
    assert parquet.recognizes(folder)
    annotations = parquet.read(folder)
    np.testing.assert_array_equal(
        annotations.points, [[[1, 1.5], [3, 3]], [[2, 2.5], [4.5, 4]], [[nan, nan], [nan, nan]]]
    )
    np.testing.assert_array_equal(annotations.visibility, [[2, 2], [1, 2], [0, 0]])
    assert annotations.groups == ("7", "8", "7")
    assert annotations.columns == {"pose": ("True", "False", "")}
    assert annotations.names == (
        "a.png (landmarks.parquet row 1)",
        "b.jpg",
        "a.png (landmarks.parquet row 3)",
    )
    assert annotations.notes[0] == "1 landmark without a visibility column: taken as visible"


def test_read_bad_rows_name_their_row(folder):
    path = write(folder, image=["a.png", "c.png", "a.png"], a_x=[1.0, 2, 3], a_y=[1.0, 2, np.inf])
    annotations = parquet.read(path)
    assert len(annotations) == 1
    assert annotations.bad_rows[0].startswith(f"{path}, row 3: a_y is 'inf'; enter a number")
    assert annotations.bad_rows[1].startswith(f"{path}, row 2: no such image 'c.png'")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": ["a.png"], "a_x": [[1.0]], "a_y": [1.0]}, "'a_x' has the type list.*leave it out"),
        ({"image": [b"\x89PNG"], "a_x": [1.0], "a_y": [1.0]}, "'image' has the type binary.*file names"),
        ({"image": ["a.png"], "a_x": [1.0], "a_y": [1.0], "b": [{"c": 1}]}, "'b' has the type struct"),
        ({"image": ["a.png"], "a_x": [1.0]}, "'a_x' needs a column 'a_y'"),
        ({"file": ["a.png"], "a_x": [1.0], "a_y": [1.0]}, "'image' is missing"),
        (
            {
                "image": pa.array([], pa.string()),
                "a_x": pa.array([], pa.float64()),
                "a_y": pa.array([], pa.float64()),
            },
            "no rows",
        ),
    ],
)
def test_read_unusable_columns_raise_one_line_message(folder, columns, words):
    path = write(folder, **columns)
    with pytest.raises(UserError, match=words) as error:
        parquet.read(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_read_duplicate_column_raises(folder):
    table = pa.Table.from_arrays(
        [pa.array(["a.png"]), pa.array([1.0]), pa.array([2.0])], ["image", "a_x", "a_x"]
    )
    pq.write_table(table, folder / "landmarks.parquet")
    with pytest.raises(UserError, match="duplicate column 'a_x'"):
        parquet.read(folder)


@pytest.mark.parametrize("limit", ["MAX_ROWS", "MAX_CELLS", "MAX_UNPACKED"])
def test_read_too_large_file_raises(folder, monkeypatch, limit):
    path = write(folder, image=["a.png"] * 9, a_x=[1.0] * 9, a_y=[1.0] * 9)
    monkeypatch.setattr(parquet, limit, 8)
    with pytest.raises(UserError, match="split it"):
        parquet.read(path)


@pytest.mark.parametrize("cut", [4, 20, 300, -10])
def test_read_damaged_file_raises_one_line_message(folder, cut):
    path = write(folder, image=["a.png"] * 9, a_x=[1.0] * 9, a_y=[1.0] * 9)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="copy it again") as error:
        parquet.read(path)
    assert "\n" not in str(error.value)


def test_read_changed_bytes_never_raise_another_exception(folder):
    path = write(folder, image=["a.png"] * 9, a_x=[1.0] * 9, a_y=[1.0] * 9)
    content = path.read_bytes()
    for position in range(4, len(content) - 8, 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            parquet.read(path)
        except UserError:
            continue


def test_read_missing_file_or_library_raises(folder, monkeypatch):
    with pytest.raises(UserError, match="no such file"):
        parquet.read(folder)
    path = write(folder, image=["a.png"], a_x=[1.0], a_y=[1.0])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert parquet.recognizes(path)
    with pytest.raises(UserError, match=r"pip install 'landmarks-fastai\[parquet\]'"):
        parquet.read(path)


def test_recognizes_rejects_other_files(folder):
    assert not parquet.recognizes(folder)
    assert not parquet.recognizes(folder / "a.png")
    assert not parquet.recognizes(folder / "missing")


@settings(max_examples=30)
@given(annotations=annotation_cases(visibility=True, boxes=True, groups=True, columns=True, empty_rows=True))
def test_write_then_read_gives_same_annotations(annotations):
    with TemporaryDirectory() as folder:
        out = Path(folder) / "labels.parquet"
        assert parquet.write(annotations, out) == []
        assert_same_annotations(parquet.read(out), annotations, atol=0)
        table = pd.read_parquet(out)
    np.testing.assert_array_equal(table["left_eye_x"], annotations.points[:, 0, 0])


@settings(max_examples=10)
@given(annotations=annotation_cases(empty_rows=True))
def test_write_then_read_without_optional_columns_gives_same_annotations(annotations):
    with TemporaryDirectory() as folder:
        out = Path(folder) / "labels.parquet"
        assert parquet.write(annotations, out) == []
        assert_same_annotations(parquet.read(out), annotations, atol=0)
