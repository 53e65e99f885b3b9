"""Reading Kaggle's files, zipped or not, and error messages for invalid files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.data.formats import kaggle, kaggle_archive
from landmarks_fastai.data.formats.kaggle import read_lookup, read_test, read_training
from landmarks_fastai.data.formats.kaggle_archive import verify_members
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.download import git_blob_sha1

LOOKUP = "RowId,ImageId,FeatureName,Location\n1,1,nose_tip_x,\n2,2,mouth_left_corner_y,\n"
GRAY = " ".join(["7"] * 9216)


def pixels(face: int) -> np.ndarray:
    """Return an image that differs for each face and contains every gray value."""
    return ((np.arange(9216) * (face + 1) + face) % 256).astype(np.uint8).reshape(96, 96, 1)


def training_csv(
    rows: int = 3, columns: tuple[str, ...] = (*kaggle.COLUMNS, "Image"), **cells: str
) -> list[str]:
    """Return the lines of a training.csv; `cells` replace cells of its second row (line 3)."""
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
def write(tmp_path):
    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


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
def test_read_training_gives_same_data_in_any_packing(write, name, content):
    path = write(name, content)
    dataset = read_training(path)
    assert dataset.schema == KAGGLE15
    assert dataset.images[:].dtype == np.uint8
    np.testing.assert_array_equal(dataset.images, np.stack([pixels(i) for i in range(3)]))
    expected = (np.arange(30).reshape(15, 2) + 0.25 + np.arange(3)[:, None, None]).astype(np.float32)
    expected[0, KAGGLE15.names.index("nose_tip")] = np.nan
    np.testing.assert_array_equal(dataset.points, expected)
    assert dataset.digest == read_training(write("plain.csv", TRAINING)).digest
    other = write("other.csv", text(training_csv(nose_tip_x="1", nose_tip_y="1")))
    assert dataset.digest != read_training(other).digest


def test_read_training_names_rows_by_line(write):
    assert read_training(write("training.csv", TRAINING)).names == tuple(
        f"training.csv line {i}" for i in (2, 3, 4)
    )
    blank = text([*training_csv(1), "", *training_csv(2)[2:]])
    assert read_training(write("own.csv", blank)).names == ("own.csv line 2", "own.csv line 4")
    assert read_training(write("own.zip", OUTER)).names[0] == "training.csv line 2"


def test_read_training_accepts_any_column_order(write):
    shuffled = ("Image", *reversed(kaggle.COLUMNS))
    dataset = read_training(write("training.csv", text(training_csv(columns=shuffled))))
    ordered = read_training(write("other.csv", TRAINING))
    np.testing.assert_array_equal(dataset.points, ordered.points)
    np.testing.assert_array_equal(dataset.images, ordered.images)


@pytest.mark.parametrize("name", ["training.csv", "training.zip", kaggle.ARCHIVE])
def test_read_training_reads_folder(write, tmp_path, name):
    contents = {"training.csv": TRAINING, "training.zip": zipped(training__csv=TRAINING)}
    path = write(name, contents.get(name, OUTER))
    dataset = read_training(tmp_path)
    assert len(dataset) == 3
    assert dataset.source == str(path)


def test_read_test_and_read_lookup_read_zip_and_folder(write, tmp_path):
    for path in (write(kaggle.ARCHIVE, OUTER), tmp_path):
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
INVALID_ROWS = {
    "too few pixels": ({"Image": GRAY[2:]}, r"line 3: 9,215 pixels, but 9,216"),
    "too many pixels": ({"Image": GRAY + " 7"}, r"line 3: 9,217 pixels, but 9,216"),
    "no pixels": ({"Image": ""}, r"line 3: 0 pixels, but 9,216"),
    "a letter": ({"Image": "x" + GRAY}, r"line 3: 'x' among the pixels"),
    "a fraction": ({"Image": "1." + GRAY}, r"line 3: '\.' among the pixels"),
    "negative": ({"Image": "-" + GRAY}, r"line 3: '-' among the pixels"),
    "too bright": (
        {"Image": "256" + GRAY[1:]},
        r"line 3: a pixel has the value 256; it must be from 0 to 255",
    ),
    "beyond 64 bits": ({"Image": "9" * 30 + GRAY[1:]}, r"line 3: a pixel has .* from 0 to 255"),
    "not a number": (
        {"nose_tip_x": "12,5".replace(",", ";")},
        r"line 3: nose_tip_x is '12;5'; enter a number",
    ),
    "infinite": ({"nose_tip_y": "inf"}, r"line 3: nose_tip_y is 'inf'; enter a number"),
    "only one coordinate": (
        {"nose_tip_y": ""},
        r"line 3: nose_tip_y is empty but nose_tip_x is not; fill in both or neither",
    ),
    "far to the right": ({"nose_tip_x": "144.5"}, r"line 3: nose_tip_x is 144\.5, far outside"),
    "far above": ({"nose_tip_y": "-48.5"}, r"line 3: nose_tip_y is -48\.5, far outside"),
    "an extra field": ({"nose_tip_y": "3,4"}, r"line 3: 32 fields, but the header has 31"),
}


@pytest.mark.parametrize(("cells", "message"), INVALID_ROWS.values(), ids=INVALID_ROWS)
def test_read_training_invalid_row_raises_one_line_message(write, cells, message):
    path = write("training.csv", text(training_csv(**cells)))
    with pytest.raises(UserError, match=message) as error:
        read_training(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    packed = write("kaggle.zip", zipped(training__csv=path.read_bytes()))
    with pytest.raises(UserError, match=rf"kaggle\.zip: training\.csv, {message}"):
        read_training(packed)


def test_read_training_accepts_landmark_slightly_outside_image(write):
    dataset = read_training(write("t.csv", text(training_csv(nose_tip_x="143.9", nose_tip_y="-47.9"))))
    assert dataset.points[1, KAGGLE15.names.index("nose_tip")].tolist() == pytest.approx([143.9, -47.9])


INVALID_FILES = {
    "an empty file": ("training.csv", b"", r"the file is empty"),
    "an empty zip file": ("training.zip", b"", r"the file is empty"),
    "blank": ("training.csv", b"\n\n", r"the file is empty"),
    "only a header": ("training.csv", text(training_csv(0)), r"no rows after the header"),
    "a missing column": (
        "training.csv",
        text([",".join(WITHOUT_NOSE)]),
        r"column 'nose_tip_x' is missing; did you mean 'nose_tipx'",
    ),
    "a duplicate column": (
        "training.csv",
        text(["Image," + training_csv(0)[0]]),
        r"duplicate column 'Image'",
    ),
    "no header": ("training.csv", text(training_csv()[1:2]), r"column 'left_eye_center_x' is missing"),
    "the test images": ("test.csv", TEST, r"test\.csv, which has no landmarks; name training\.csv"),
    "the zip of the test images": (
        "test.zip",
        zipped(test__csv=TEST),
        r"has no training\.csv; it contains test\.csv",
    ),
    "not text": ("training.csv", b"\xff\xfa\x00\x9f" * 9, r"not a CSV in UTF-8"),
    "not a zip": ("training.zip", TRAINING, r"not a zip"),
    "a truncated zip": ("kaggle.zip", OUTER[: len(OUTER) // 2], r"truncated or damaged"),
    "a truncated inner zip": ("kaggle.zip", zipped(training__zip=OUTER[:999]), r"truncated or damaged"),
    "a name that is not UTF-8": (
        "kaggle.zip",
        zipped(**{"é.csv": TRAINING}).replace("é".encode(), b"\xff\xfe"),
        r"not a zip, or truncated or damaged \('utf-8' codec",
    ),
    "an empty zip": ("kaggle.zip", zipped(), r"has no training\.csv; it contains nothing"),
    "a very long field": ("training.csv", TRAINING + b"1" * 200_000, r"line 5: .*field larger"),
}


@pytest.mark.parametrize(("name", "content", "message"), INVALID_FILES.values(), ids=INVALID_FILES)
def test_read_training_invalid_file_raises_one_line_message(write, name, content, message):
    path = write(name, content)
    with pytest.raises(UserError, match=message) as error:
        read_training(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(path))


def test_read_training_flipped_bit_in_zip_raises(write):
    damaged = bytearray(zipped(training__csv=TRAINING))
    damaged[len(damaged) // 2] ^= 16
    with pytest.raises(UserError, match=r"damaged"):
        read_training(write("kaggle.zip", bytes(damaged)))


def test_read_training_too_large_member_raises(write, monkeypatch):
    monkeypatch.setattr(kaggle_archive, "MAX_MEMBER_BYTES", len(TRAINING) - 1)
    path = write("training.zip", zipped(training__csv=TRAINING))
    with pytest.raises(UserError, match=r"training\.zip: training\.csv would unpack to .*, too large"):
        read_training(path)


@pytest.mark.parametrize(
    ("least", "ratio", "refused"), [(9000, 100, True), (9000, 2000, False), (1_000_000, 100, False)]
)
def test_read_training_member_that_unpacks_to_many_times_its_size_raises(
    write, monkeypatch, least, ratio, refused
):
    monkeypatch.setattr(kaggle_archive, "MIN_BOMB_BYTES", least)
    monkeypatch.setattr(kaggle_archive, "MAX_RATIO", ratio)
    path = write("training.zip", zipped(training__csv=b"a\n" * 500_000))
    message = r"would unpack to 1,000,000 bytes from .*, too large" if refused else "is missing"
    with pytest.raises(UserError, match=message):
        read_training(path)


def test_read_training_lzma_member_raises(write):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("training.csv", TRAINING)
    with pytest.raises(UserError, match=r"training\.csv is compressed by a method that is not read"):
        read_training(write("kaggle.zip", stream.getvalue()))


@pytest.mark.parametrize("text", ["9" * 30, "9" * 5000, str(2**63), "1.5", ""])
def test_read_test_id_that_is_no_integer_raises(write, text):
    path = write("test.csv", csv_with_ids(text))
    with pytest.raises(UserError, match=r"line 2: ImageId is '.*'; enter an integer") as error:
        read_test(path)
    assert len(str(error.value)) < len(str(path)) + 150


def test_read_test_largest_id_is_kept(write):
    ids, _ = read_test(write("test.csv", csv_with_ids(str(2**63 - 1))))
    assert ids.tolist() == [2**63 - 1]


def csv_with_ids(*ids: str) -> bytes:
    pixels = " ".join("7" * 9216)
    return "\n".join(["ImageId,Image", *(f"{each},{pixels}" for each in ids)]).encode()


def test_read_training_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read_training(tmp_path / "missing.zip")
    with pytest.raises(UserError, match=r"has none of training\.csv, training\.zip, facial"):
        read_training(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"ImageId,Image\n1,{GRAY}\n1,{GRAY}\n", r"line 3: ImageId 1 also occurs in line 2"),
        (f"ImageId,Image\none,{GRAY}\n", r"line 2: ImageId is 'one'; enter an integer"),
        (f"ImageID,Image\n1,{GRAY}\n", r"'ImageId' is missing; did you mean 'ImageID'"),
        ("ImageId,Image\n", r"no rows after the header"),
        (f"ImageId,Image\n1,{GRAY} 7\n", r"line 2: 9,217 pixels"),
    ],
)
def test_read_test_invalid_file_raises(write, content, message):
    with pytest.raises(UserError, match=message):
        read_test(write("test.csv", content.encode()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("RowId,ImageId\n1,1\n", r"'FeatureName' is missing"),
        ("RowId,ImageId,FeatureName\n1,1.5,nose_tip_x\n", r"line 2: ImageId is '1\.5'"),
        ("RowId,ImageId,FeatureName\n", r"no rows after the header"),
    ],
)
def test_read_lookup_invalid_file_raises(write, content, message):
    with pytest.raises(UserError, match=message):
        read_lookup(write("IdLookupTable.csv", content.encode()))


def test_verify_members_checks_digests(write):
    inner = zipped(training__csv=TRAINING)
    path = write("kaggle.zip", zipped(training__zip=inner))
    blob = git_blob_sha1(write("training.zip", inner))
    verify_members(path, {"training.zip": blob})
    with pytest.raises(UserError, match=f"training.zip has the digest {blob}, not {'0' * 40}"):
        verify_members(path, {"training.zip": "0" * 40})
    with pytest.raises(UserError, match=r"has no test\.zip"):
        verify_members(path, {"test.zip": blob})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([" ", "  "]))
def test_parse_pixels_returns_values(seed, gap):
    values = np.random.default_rng(seed).integers(0, 256, 9216).tolist()
    assert list(kaggle.parse_pixels(gap.join(map(str, values)), "training.csv, line 2")) == values


def test_read_training_reads_real_faces(kaggle_zip):
    dataset = read_training(kaggle_zip)
    assert dataset.images.shape == (2940, 96, 96, 1)
    assert dataset.complete.sum() == 2140
    partial = dataset.labeled[~dataset.complete]
    few = ("left_eye_center", "right_eye_center", "nose_tip", "mouth_center_bottom_lip")
    assert (partial == np.isin(KAGGLE15.names, few)).all()
    assert dataset.points[0, 0].tolist() == pytest.approx([65.2418, 35.0605], abs=1e-5)
    assert dataset.images[:][0, 0, :5, 0].tolist() == [188, 196, 207, 232, 243]
    ids, images = read_test(kaggle_zip)
    assert images.shape == (552, 96, 96, 1)
    assert set(read_lookup(kaggle_zip)["ImageId"]) == set(ids.tolist())
