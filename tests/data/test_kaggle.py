"""Kaggle's files in all their wrappings, what is wrong with them told by line, and the cache of tables."""

from __future__ import annotations

import io
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.data import kaggle
from landmarks_fastai.data.cache import remember
from landmarks_fastai.data.download import git_blob
from landmarks_fastai.data.kaggle import check_members, read_lookup, read_test, read_training
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import KAGGLE15

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LOOKUP = "RowId,ImageId,FeatureName,Location\n1,1,nose_tip_x,\n2,2,mouth_left_corner_y,\n"
GREY = " ".join(["7"] * 9216)


def pixels(face: int) -> np.ndarray:
    """Give another picture for each face, with every gray value somewhere."""
    return ((np.arange(9216) * (face + 1) + face) % 256).astype(np.uint8).reshape(96, 96, 1)


def training_csv(
    rows: int = 3, columns: tuple[str, ...] = (*kaggle.COLUMNS, "Image"), **cells: str
) -> list[str]:
    """Return the lines of a training.csv; `cells` stand in its second row (line 3) instead."""
    lines = [",".join(columns)]
    for face in range(rows):
        field = {name: str(face + i + 0.25) for i, name in enumerate(kaggle.COLUMNS)}
        field["Image"] = " ".join(map(str, pixels(face).ravel()))
        if face == 0:
            field["nose_tip_x"] = field["nose_tip_y"] = ""
        if face == 1:
            field |= cells
        lines.append(",".join(field[name] for name in columns))
    return lines


def text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


TRAINING = text(training_csv())
TEST = text(["ImageId,Image", *(f"{9 - i}," + " ".join(map(str, pixels(i).ravel())) for i in range(2))])
OUTER = zipped(
    training__zip=zipped(training__csv=TRAINING),
    test__zip=zipped(test__csv=TEST),
    IdLookupTable__csv=LOOKUP.encode(),
)


@pytest.fixture
def place(tmp_path):
    def put(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return put


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("training.csv", TRAINING),
        ("training.csv", TRAINING.replace(b"\n", b"\r\n")),
        ("training.csv", b"\xef\xbb\xbf" + TRAINING.replace(b"\n", b"\n\n")),
        ("training.zip", zipped(training__csv=TRAINING)),
        ("kaggle.zip", OUTER),
        ("kaggle.zip", zipped(**{"faces/training.zip": zipped(training__csv=TRAINING)})),
    ],
    ids=["csv", "crlf", "bom and blank lines", "inner zip", "outer zip", "zip with a folder"],
)
def test_the_faces_are_the_same_in_every_wrapping(place, name, content):
    path = place(name, content)
    table = read_training(path)
    assert table.schema == KAGGLE15
    assert table.images.dtype == np.uint8
    np.testing.assert_array_equal(table.images, np.stack([pixels(i) for i in range(3)]))
    expected = (np.arange(30).reshape(15, 2) + 0.25 + np.arange(3)[:, None, None]).astype(np.float32)
    expected[0, KAGGLE15.points.index("nose_tip")] = np.nan
    np.testing.assert_array_equal(table.points, expected)
    assert table.digest == read_training(place("plain.csv", TRAINING)).digest
    other = place("other.csv", text(training_csv(nose_tip_x="1", nose_tip_y="1")))
    assert table.digest != read_training(other).digest


def test_a_row_is_called_by_its_own_line(place):
    assert read_training(place("training.csv", TRAINING)).names == tuple(
        f"training.csv line {i}" for i in (2, 3, 4)
    )
    blank = text([*training_csv(1), "", *training_csv(2)[2:]])
    assert read_training(place("own.csv", blank)).names == ("own.csv line 2", "own.csv line 4")
    assert read_training(place("own.zip", OUTER)).names[0] == "training.csv line 2"


def test_columns_are_taken_by_name(place):
    shuffled = ("Image", *reversed(kaggle.COLUMNS))
    table = read_training(place("training.csv", text(training_csv(columns=shuffled))))
    as_kaggle_has_them = read_training(place("other.csv", TRAINING))
    np.testing.assert_array_equal(table.points, as_kaggle_has_them.points)
    np.testing.assert_array_equal(table.images, as_kaggle_has_them.images)


@pytest.mark.parametrize("name", ["training.csv", "training.zip", kaggle.ARCHIVE])
def test_a_folder_may_hold_any_of_them(place, tmp_path, name):
    contents = {"training.csv": TRAINING, "training.zip": zipped(training__csv=TRAINING)}
    path = place(name, contents.get(name, OUTER))
    table = read_training(tmp_path)
    assert len(table) == 3
    assert table.source == str(path)


def test_the_test_faces_and_the_lookup_table(place, tmp_path):
    for path in (place(kaggle.ARCHIVE, OUTER), tmp_path):
        ids, images = read_test(path)
        assert ids.dtype == np.int64
        assert ids.tolist() == [9, 8]
        np.testing.assert_array_equal(images, np.stack([pixels(0), pixels(1)]))
        lookup = read_lookup(path)
        assert lookup.to_dict("list") == {
            "RowId": [1, 2],
            "ImageId": [1, 2],
            "FeatureName": ["nose_tip_x", "mouth_left_corner_y"],
        }
        assert lookup.dtypes.iloc[:2].tolist() == [np.int64, np.int64]


WITHOUT_NOSE = ["nose_tipx" if name == "nose_tip_x" else name for name in training_csv()[0].split(",")]
BAD_ROWS = {
    "too few pixels": ({"Image": GREY[2:]}, r"line 3: 9,215 pixels where 9,216"),
    "too many pixels": ({"Image": GREY + " 7"}, r"line 3: 9,217 pixels where 9,216"),
    "no pixels": ({"Image": ""}, r"line 3: 0 pixels where 9,216"),
    "a letter": ({"Image": "x" + GREY}, r"line 3: 'x' stands among the pixels"),
    "a fraction": ({"Image": "1." + GREY}, r"line 3: '\.' stands among the pixels"),
    "negative": ({"Image": "-" + GREY}, r"line 3: '-' stands among the pixels"),
    "too bright": ({"Image": "256" + GREY[1:]}, r"line 3: a pixel has the value 256; .* 0 to 255"),
    "absurd": ({"Image": "9" * 30 + GREY[1:]}, r"line 3: a pixel has .* 0 to 255"),
    "no number": ({"nose_tip_x": "12,5".replace(",", ";")}, r"line 3: nose_tip_x is '12;5'; write a number"),
    "infinite": ({"nose_tip_y": "inf"}, r"line 3: nose_tip_y is 'inf'; write a number"),
    "half a label": ({"nose_tip_y": ""}, r"line 3: nose_tip_x has a value and nose_tip_y has none"),
    "far right": ({"nose_tip_x": "144.5"}, r"line 3: nose_tip_x is 144\.5, far outside"),
    "far above": ({"nose_tip_y": "-48.5"}, r"line 3: nose_tip_y is -48\.5, far outside"),
    "a field more": ({"nose_tip_y": "3,4"}, r"line 3: 32 fields where the header has 31"),
}


@pytest.mark.parametrize(("cells", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_file_line_and_column(place, cells, message):
    path = place("training.csv", text(training_csv(**cells)))
    with pytest.raises(UserError, match=message) as told:
        read_training(path)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)
    inside = place("kaggle.zip", zipped(training__csv=path.read_bytes()))
    with pytest.raises(UserError, match=rf"kaggle\.zip: training\.csv {message}"):
        read_training(inside)


def test_a_point_a_little_outside_is_believed(place):
    table = read_training(place("t.csv", text(training_csv(nose_tip_x="143.9", nose_tip_y="-47.9"))))
    assert table.points[1, KAGGLE15.points.index("nose_tip")].tolist() == pytest.approx([143.9, -47.9])


BAD_FILES = {
    "nothing": ("training.csv", b"", r"the file is empty"),
    "an empty zip file": ("training.zip", b"", r"the file is empty"),
    "blank": ("training.csv", b"\n\n", r"the file is empty"),
    "only a header": ("training.csv", text(training_csv(0)), r"no rows"),
    "a missing column": (
        "training.csv",
        text([",".join(WITHOUT_NOSE)]),
        r"column 'nose_tip_x' is missing; did you mean 'nose_tipx'",
    ),
    "a doubled column": ("training.csv", text(["Image," + training_csv(0)[0]]), r"'Image' stands twice"),
    "no header": ("training.csv", text(training_csv()[1:2]), r"column 'left_eye_center_x' is missing"),
    "the test faces": ("test.csv", TEST, r"test\.csv, which has no points; give training\.csv"),
    "the test faces' zip": ("test.zip", zipped(test__csv=TEST), r"has no training\.csv; it holds test\.csv"),
    "bytes": ("training.csv", b"\xff\xfe\x00\x9f" * 9, r"not a CSV in UTF-8"),
    "no zip": ("training.zip", TRAINING, r"not a zip"),
    "a zip cut off": ("kaggle.zip", OUTER[: len(OUTER) // 2], r"cut off or damaged"),
    "an inner zip cut off": ("kaggle.zip", zipped(training__zip=OUTER[:999]), r"cut off or damaged"),
    "an empty zip": ("kaggle.zip", zipped(), r"has no training\.csv; it holds nothing"),
    "an endless field": ("training.csv", TRAINING + b"1" * 200_000, r"line 5: .*field larger"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_told_in_one_line(place, name, content, message):
    path = place(name, content)
    with pytest.raises(UserError, match=message) as told:
        read_training(path)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500 + len(str(path))


def test_a_flipped_bit_in_a_zip_is_noticed(place):
    damaged = bytearray(zipped(training__csv=TRAINING))
    damaged[len(damaged) // 2] ^= 16
    with pytest.raises(UserError, match=r"damaged"):
        read_training(place("kaggle.zip", bytes(damaged)))


def test_a_member_that_would_fill_the_memory_is_refused(place, monkeypatch):
    monkeypatch.setattr(kaggle, "LARGEST", len(TRAINING) - 1)
    path = place("training.zip", zipped(training__csv=TRAINING))
    with pytest.raises(UserError, match=r"training\.zip: training\.csv would unpack to .*; refused"):
        read_training(path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read_training(tmp_path / "nothing.zip")
    with pytest.raises(UserError, match=r"has none of training\.csv, training\.zip, facial"):
        read_training(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"ImageId,Image\n1,{GREY}\n1,{GREY}\n", r"line 3: ImageId 1 stands in line 2 too"),
        (f"ImageId,Image\none,{GREY}\n", r"line 2: ImageId is 'one'; write a whole number"),
        (f"ImageID,Image\n1,{GREY}\n", r"'ImageId' is missing; did you mean 'ImageID'"),
        ("ImageId,Image\n", r"no rows"),
        (f"ImageId,Image\n1,{GREY} 7\n", r"line 2: 9,217 pixels"),
    ],
)
def test_bad_test_faces(place, content, message):
    with pytest.raises(UserError, match=message):
        read_test(place("test.csv", content.encode()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("RowId,ImageId\n1,1\n", r"'FeatureName' is missing"),
        ("RowId,ImageId,FeatureName\n1,1.5,nose_tip_x\n", r"line 2: ImageId is '1\.5'"),
        ("RowId,ImageId,FeatureName\n", r"no rows"),
    ],
)
def test_a_bad_lookup_table(place, content, message):
    with pytest.raises(UserError, match=message):
        read_lookup(place("IdLookupTable.csv", content.encode()))


def test_the_members_of_the_download_are_verified(place):
    inner = zipped(training__csv=TRAINING)
    path = place("kaggle.zip", zipped(training__zip=inner))
    blob = git_blob(place("training.zip", inner))
    check_members(path, {"training.zip": blob})
    with pytest.raises(UserError, match=f"training.zip has the digest {blob}, not {'0' * 40}"):
        check_members(path, {"training.zip": "0" * 40})
    with pytest.raises(UserError, match=r"has no test\.zip"):
        check_members(path, {"test.zip": blob})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([" ", "  "]))
def test_every_gray_value_comes_through(seed, gap):
    values = np.random.default_rng(seed).integers(0, 256, 9216).tolist()
    assert list(kaggle._pixels(gap.join(map(str, values)), "here")) == values


# --- the cache ---------------------------------------------------------------------------------------


def test_a_table_is_made_once(place, tmp_path):
    table = replace(read_training(place("training.csv", TRAINING)), groups=np.array([4, 4, 2]))
    made: list[int] = []

    def make():
        made.append(1)
        return table

    for key in [("a",), ("a",), ("b",), ("a",)]:
        kept = remember(tmp_path, "kaggle", key, make)
        np.testing.assert_array_equal(kept.images, table.images)
        np.testing.assert_array_equal(kept.points, table.points)
        np.testing.assert_array_equal(kept.groups, table.groups)
        about = (kept.schema, kept.names, kept.source, kept.digest)
        assert about == (table.schema, table.names, table.source, table.digest)
    assert len(made) == 2
    assert len(list((tmp_path / "parsed").iterdir())) == 2


def test_a_damaged_cache_is_made_anew(place, tmp_path):
    """Cut off at many places, and a bit flipped at many more: never an error, never another table."""
    table = read_training(place("training.csv", TRAINING)).rows(np.array([1]))
    remember(tmp_path, "kaggle", ("a",), lambda: table)
    (path,) = (tmp_path / "parsed").glob("kaggle-*.npz")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    ends = np.r_[0:200:2, len(whole) - 1200 : len(whole) : 5, rng.integers(0, len(whole), 50)]
    for place_of_damage in ends:
        flipped = bytearray(whole)
        flipped[place_of_damage] ^= 1 << int(rng.integers(8))
        for content in [bytes(flipped), whole[:place_of_damage]]:
            path.write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                kept = remember(tmp_path, "kaggle", ("a",), lambda: table)
            np.testing.assert_array_equal(kept.images, table.images)
            np.testing.assert_array_equal(kept.points, table.points)
            assert (kept.names, kept.source) == (table.names, table.source)


def test_a_cache_that_can_t_be_written_costs_nothing_but_time(place, tmp_path):
    table = read_training(place("training.csv", TRAINING))
    in_the_way = place("parsed", b"")
    assert remember(in_the_way, "kaggle", ("a",), lambda: table) is table


# --- the shared data -----------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / kaggle.ARCHIVE).is_file(), reason="the shared data is not here")
def test_the_shared_zip():
    table = read_training(SHARED / kaggle.ARCHIVE)
    assert table.images.shape == (2940, 96, 96, 1)
    assert table.complete.sum() == 2140
    partial = table.labelled[~table.complete]
    few = ("left_eye_center", "right_eye_center", "nose_tip", "mouth_center_bottom_lip")
    assert (partial == np.isin(KAGGLE15.points, few)).all()
    assert table.points[0, 0].tolist() == pytest.approx([65.2418, 35.0605], abs=1e-5)
    assert table.images[0, 0, :5, 0].tolist() == [188, 196, 207, 232, 243]
    ids, images = read_test(SHARED / kaggle.ARCHIVE)
    assert images.shape == (552, 96, 96, 1)
    assert set(read_lookup(SHARED / kaggle.ARCHIVE)["ImageId"]) == set(ids.tolist())
