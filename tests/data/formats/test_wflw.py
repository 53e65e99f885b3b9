"""Lists of WFLW: coordinates, boxes, attributes, image folders and bad lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.data.formats.labeled_objects import make_schema
from landmarks_fastai.data.formats.wflw import FORMAT
from landmarks_fastai.errors import UserError

NAME = "37--Soccer/37_Soccer_1.jpg"
POINTS = " ".join(f"{k + 0.5} {2 * k}" for k in range(98))


def line(
    points: str = POINTS, box: str = "10 20 110 220", flags: str = "0 1 0 0 1 0", name: str = NAME
) -> str:
    return " ".join(filter(None, (points, box, flags, name)))


def write(folder: Path, *lines: str, images: Path | None = None) -> Path:
    """Write a list at its place in the data set, and the image."""
    path = folder / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_test.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")
    image = (images or folder / "WFLW_images") / NAME
    image.parent.mkdir(parents=True)
    Image.new("L", (300, 300)).save(image)
    return path


def test_read_returns_points_boxes_and_attributes(tmp_path: Path) -> None:
    path = write(tmp_path, line(), "", line(flags="1 0 0 0 0 0"))
    assert FORMAT.recognizes(path)
    labels = FORMAT.read(path)
    np.testing.assert_allclose(labels.points[0], [[k + 0.5, 2 * k] for k in range(98)], atol=1e-6)
    assert labels.boxes is not None
    assert labels.boxes[0].tolist() == [10, 20, 110, 220]
    assert labels.columns["pose"] == ("0", "1")
    assert labels.columns["expression"] == ("1", "0")
    assert list(labels.columns) == ["pose", "expression", "illumination", "make_up", "occlusion", "blur"]
    assert labels.names == ("list_test.txt, line 1", "list_test.txt, line 3")
    assert [image.path for image in labels.images] == [tmp_path / "WFLW_images" / NAME]
    assert labels.schema == make_schema("wflw98", [str(k) for k in range(98)], path)
    assert labels.visibility is None


def test_read_list_without_box_and_attributes(tmp_path: Path) -> None:
    path = write(tmp_path, line(box="", flags=""))
    assert FORMAT.recognizes(path)
    labels = FORMAT.read(path)
    assert len(labels) == 1
    assert labels.boxes is None
    assert labels.columns == {}


def test_read_finds_images_beside_the_list_by_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, line(), images=tmp_path / "WFLW_annotations" / "list_98pt_rect_attr_train_test")
    monkeypatch.chdir(path.parent)
    assert len(FORMAT.read(Path(path.name))) == 1
    path = write(tmp_path / "other", line())
    monkeypatch.chdir(path.parent)
    assert len(FORMAT.read(Path(path.name))) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line() + " more", "208 fields instead of 207"),
        (line(points=POINTS.replace("3.5", "x")), "field 7 is 'x'"),
        (line(points=POINTS.replace("3.5", "nan")), "field 7 is 'nan'"),
        (line(box="1 2 3 1e99"), "field 200 is '1e99'"),
        (line(name="a/missing.jpg"), "no such image 'a/missing.jpg'"),
    ],
)
def test_read_bad_line_is_a_bad_row(tmp_path: Path, bad: str, message: str) -> None:
    labels = FORMAT.read(write(tmp_path, line(), bad))
    assert len(labels) == 1
    assert labels.bad_rows[0].startswith("list_test.txt, line 2: ")
    assert message in labels.bad_rows[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no object"),
        (b"\xff\xfe" * 3000, "not text"),
        (b"1 " * 30_000, "too long"),
        (b"1 2\n", "2 fields"),
    ],
)
def test_read_bad_file_raises(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path)
    path.write_bytes(content)
    assert not FORMAT.recognizes(path)
    with pytest.raises(UserError, match=message):
        FORMAT.read(path)


def test_read_missing_images_raises_with_their_number(tmp_path: Path) -> None:
    path = write(tmp_path, line(name="a.jpg"), line(name="b.jpg"))
    with pytest.raises(UserError, match=r"line 1: no such image 'a\.jpg'.*all 2 images"):
        FORMAT.read(path)


def test_recognizes_other_files_is_false(tmp_path: Path) -> None:
    assert not FORMAT.recognizes(tmp_path)
    assert not FORMAT.recognizes(tmp_path / "missing.txt")
    path = tmp_path / "a.txt"
    for text in ("1 " * 207, "image,a_x,a_y\n", line(points=POINTS.replace("3.5", "x"))):
        path.write_text(text)
        assert not FORMAT.recognizes(path)
