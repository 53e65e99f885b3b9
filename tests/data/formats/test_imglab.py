"""XML of imglab: parts, boxes, what is skipped, EXIF orientation and bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from landmarks_fastai.data.formats.imglab import FORMAT
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.images import read_image

PARTS = "<part name='00' x='12' y='21'/><part name='02' x='14' y='23'/><part name='01' x='13.5' y='22'/>"
BOX = f"<box top='20' left='10' width='30' height='25'><label>cat</label>{PARTS}</box>"
PROLOG = "<?xml version='1.0' encoding='ISO-8859-1'?>\n<?xml-stylesheet type='text/xsl' href='a.xsl'?>\n"


def write(folder: Path, *boxes: str, attributes: str = "file='a.jpg'", exif: int = 1) -> Path:
    path = folder / "faces.xml"
    path.write_text(
        f"{PROLOG}<dataset><name>x</name><comment>y</comment><images><image {attributes}>"
        f"{''.join(boxes)}</image></images></dataset>"
    )
    orientation = Image.Exif()
    orientation[ExifTags.Base.Orientation] = exif
    Image.new("L", (60, 50)).save(folder / "a.jpg", exif=orientation)
    return path


def test_read_returns_parts_boxes_and_labels(tmp_path: Path) -> None:
    path = write(tmp_path, BOX, BOX.replace("cat", "dog"))
    assert FORMAT.recognizes(path)
    labels = FORMAT.read(path)
    assert labels.schema.names == ("00", "01", "02")
    np.testing.assert_allclose(labels.points[0], [[12, 21], [13.5, 22], [14, 23]], atol=1e-6)
    assert labels.boxes is not None
    assert labels.boxes[0].tolist() == [10, 20, 40, 45]
    assert labels.columns == {"label": ("cat", "dog")}
    assert labels.names == ("faces.xml, image 1, box 1", "faces.xml, image 1, box 2")
    assert labels.notes == labels.bad_rows == ()
    assert labels.visibility is None


def test_read_missing_part_is_unlabeled(tmp_path: Path) -> None:
    labels = FORMAT.read(write(tmp_path, BOX, BOX.replace("<part name='01' x='13.5' y='22'/>", "")))
    assert np.isnan(labels.points).all(-1).tolist() == [[False] * 3, [False, True, False]]


def test_read_skips_boxes_and_says_so(tmp_path: Path) -> None:
    ignored = BOX.replace("<box ", "<box ignore='1' ")
    rich = BOX.replace("<box ", "<box ignore='0' gender='male' difficult='0' ")
    labels = FORMAT.read(write(tmp_path, rich, ignored, ignored, BOX.replace(PARTS, "")))
    assert len(labels) == 1
    assert labels.notes == (
        "1 value of 'gender' is not used",
        "2 boxes with ignore='1' are skipped",
        "1 box without parts is skipped",
    )


@pytest.mark.parametrize("orientation", range(2, 9))
def test_read_converts_labels_of_rotated_images(tmp_path: Path, orientation: int) -> None:
    # a box and the part in its top-left pixel, found again in the pixels of the upright image
    part = "<box top='3' left='5' width='1' height='2'><part name='p' x='5' y='3'/></box>"
    path = write(tmp_path, part, attributes="file='a.png'")
    pixels = np.zeros((9, 11), np.uint8)
    pixels[3, 5], pixels[4, 5] = 200, 100
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    labels = FORMAT.read(path)

    upright = read_image(tmp_path / "a.png")[..., 0]
    x, y = labels.points[0, 0].astype(int)
    assert upright[y, x] == 200
    assert labels.boxes is not None
    x0, y0, x1, y1 = labels.boxes[0].astype(int)
    assert sorted(upright[y0:y1, x0:x1].ravel().tolist()) == [100, 200]
    assert labels.notes == (
        "1 image is rotated by EXIF, which dlib ignores: their labels are converted to the upright image",
    )


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (BOX.replace("x='12'", "x='a'"), "x of the part '00' is 'a'"),
        (BOX.replace(" y='21'", ""), "y of the part '00' is missing"),
        (BOX.replace("name='00'", ""), "a part has no name"),
        (BOX.replace("name='00'", "name='01'"), "'01' occurs twice"),
        (BOX.replace("width='30'", "width='0'"), "the box is 0 × 25 px"),
        (BOX.replace("left='10'", ""), "left is missing"),
        (BOX.replace("left='10'", "left='1e400'"), "left is '1e400'"),
    ],
)
def test_read_bad_box_is_a_bad_row(tmp_path: Path, box: str, message: str) -> None:
    labels = FORMAT.read(write(tmp_path, BOX, box))
    assert len(labels) == 1
    assert labels.bad_rows[0].startswith("faces.xml, image 1, box 2: ")
    assert message in labels.bad_rows[0]


def test_read_missing_image_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"faces\.xml, image 1, box 1: no such image 'b\.jpg'"):
        FORMAT.read(write(tmp_path, BOX, attributes="file='b.jpg'"))
    with pytest.raises(UserError, match="image 1: the attribute 'file' is missing"):
        FORMAT.read(write(tmp_path, BOX, attributes=""))


def test_read_damaged_image_is_left_to_the_decoder(tmp_path: Path) -> None:
    path = write(tmp_path, BOX)
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert len(FORMAT.read(path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<dataset>", "not valid XML"),
        ("<annotations/>", "no <images>"),
        ("<dataset/>", "no <images>"),
        ("<dataset><images/></dataset>", "no object with landmarks"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><dataset/>', "document type"),
    ],
)
def test_read_bad_file_raises(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    FORMAT.recognizes(path)
    with pytest.raises(UserError, match=message):
        FORMAT.read(path)


def test_recognizes_other_files_is_false(tmp_path: Path) -> None:
    assert not FORMAT.recognizes(tmp_path)
    path = tmp_path / "a.xml"
    for text in ("<annotations><images/></annotations>", "<dataset><a/></dataset>", "{}"):
        path.write_text(text)
        assert not FORMAT.recognizes(path)
