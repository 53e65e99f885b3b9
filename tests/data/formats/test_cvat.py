"""XML of CVAT: skeletons, points, boxes, attributes, occlusion, edges and bad files."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.data.formats.cvat import FORMAT
from landmarks_fastai.errors import UserError

SVG = (
    '<line x1="1" y1="2" x2="3" y2="4" data-type="edge" data-node-from="1" data-node-to="3"/>'
    '<line data-node-from="3" data-node-to="1"/><line data-node-from="1" data-node-to="9"/>'
    '<circle r="1" data-node-id="1" data-label-name="left eye"/>'
    '<circle data-node-id="3" data-label-name="nose"/>'
)
LABELS = (
    f"<labels><label><name>face</name><type>skeleton</type><svg>{escape(SVG)}</svg></label>"
    "<label><name>left eye</name><type>points</type><parent>face</parent></label>"
    "<label><name>right eye</name><type>points</type><parent>face</parent></label>"
    "<label><name>nose</name><type>points</type><parent>face</parent></label></labels>"
)
SKELETON = (
    '<skeleton label="face" source="manual" z_order="0" group_id="4">'
    '<points label="nose" outside="0" occluded="1" points="0.50,0.50"/>'
    '<points label="left eye" outside="0" occluded="0" points="10.25,20.00">'
    '<attribute name="a">1</attribute></points>'
    '<points label="right eye" outside="1" occluded="0" points="5,5"/>'
    '<attribute name="age">30</attribute></skeleton>'
)


def points(label: str, coordinates: str, entries: str = "") -> str:
    return f'<points label="{label}" occluded="0" points="{coordinates}" {entries}/>'


def box(group: str = "", edges: str = 'xtl="1.5" ytl="2" xbr="30" ybr="25.25"') -> str:
    return f'<box label="face" occluded="0" {edges} {group}/>'


def write(folder: Path, *shapes: str, labels: str = LABELS, image: str = 'name="a.png"') -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("L", (40, 30)).save(folder / "images" / "a.png")
    path = folder / "annotations.xml"
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><job>{labels}</job></meta>"
        f'<image id="0" {image} width="40" height="30">{"".join(shapes)}</image></annotations>'
    )
    return path


def test_read_skeleton(tmp_path: Path) -> None:
    path = write(tmp_path, SKELETON, box('group_id="4"'))
    assert FORMAT.recognizes(path)
    assert FORMAT.recognizes(tmp_path)
    labels = FORMAT.read(tmp_path)
    assert labels.schema.names == ("left eye", "right eye", "nose")
    assert labels.schema.skeleton == (("left eye", "nose"),)
    assert labels.schema.flip_pairs == (("left eye", "right eye"),)
    np.testing.assert_allclose(labels.points[0, [0, 2]], [[9.75, 19.5], [0, 0]], atol=1e-6)
    assert labels.visibility is not None
    assert labels.visibility.tolist() == [[2, 0, 1]]
    assert labels.boxes is not None
    assert labels.boxes[0].tolist() == [1.5, 2, 30, 25.25]
    assert labels.columns == {"label": ("face",), "age": ("30",)}
    assert labels.names == ("annotations.xml, image a.png, skeleton 1",)
    assert labels.images[0].path == tmp_path / "images" / "a.png"
    assert labels.notes == ("1 attribute of a landmark is not used",)


def test_read_single_points_by_group(tmp_path: Path) -> None:
    shapes = [
        points(label, f"{x},5", f'group_id="{group}"')
        for label, x, group in (("eye", 1, 1), ("nose", 2, 1), ("eye", 3, 2))
    ]
    labels = FORMAT.read(
        write(tmp_path, *shapes, points("eye", "9,9"), points("nose", "8,8", 'group_id="0"'))
    )
    assert labels.names == tuple(
        f"annotations.xml, image a.png{group}" for group in (", group 1", ", group 2", "")
    )
    np.testing.assert_allclose(labels.points[:, 0], [[0.5, 4.5], [2.5, 4.5], [8.5, 8.5]])
    assert np.isnan(labels.points[1, 1]).all()
    assert labels.visibility is None
    assert labels.boxes is None
    assert labels.columns == {}


def test_read_points_with_several_coordinates_are_numbered(tmp_path: Path) -> None:
    labels = FORMAT.read(
        write(tmp_path, points("face", "1,2;3,4;5,6"), points("face", "2,2;3,3;4,4"), labels="")
    )
    assert labels.schema.names == ("0", "1", "2")
    np.testing.assert_allclose(labels.points[0], [[0.5, 1.5], [2.5, 3.5], [4.5, 5.5]])
    assert labels.columns == {"label": ("face", "face")}


def test_read_rotated_box_becomes_its_envelope(tmp_path: Path) -> None:
    rotated = box('group_id="4" rotation="270"', 'xtl="10" ytl="10" xbr="30" ybr="14"')
    labels = FORMAT.read(write(tmp_path, SKELETON, rotated))
    assert labels.boxes is not None
    np.testing.assert_allclose(labels.boxes[0], [18, 2, 22, 22])
    assert "1 rotated box is replaced by the upright box around it" in labels.notes


def test_read_notes_what_is_skipped(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        SKELETON,
        '<polygon label="x" points="1,2;3,4;5,6"/>',
        '<tag label="x"/>',
        box(),
        points("nose", "1,1", 'group_id="9" outside="1"'),
    )
    path.write_text(path.read_text().replace('width="40"', 'width="80"'))
    notes = FORMAT.read(path).notes
    for note in (
        "1 shape of type 'polygon' is skipped",
        "1 shape of type 'tag' is skipped",
        "1 box without landmarks is skipped",
        "1 object without labeled landmarks is skipped",
        "1 image is of another size than when labeled: check that the landmarks fit",
    ):
        assert note in notes


@pytest.mark.parametrize(
    "svg", ["", "<line", "text", "&lt;&lt;", escape('<!DOCTYPE a [<!ENTITY b "c">]><line/>')]
)
def test_read_broken_svg_gives_no_edges(tmp_path: Path, svg: str) -> None:
    path = write(tmp_path, SKELETON, labels=LABELS.replace(escape(SVG), escape(svg)))
    assert FORMAT.read(path).schema.skeleton == ()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (SKELETON.replace('label="nose"', 'label="left eye"'), "'left eye' occurs twice"),
        (SKELETON.replace("0.50,0.50", "x,1"), "x of 'nose' is 'x'"),
        (SKELETON.replace("0.50,0.50", "1"), "'nose' is not at an x and a y"),
        (SKELETON.replace('label="nose"', ""), "a point has no label"),
        (points("a", "1,2;3"), "point 2 is not at an x and a y"),
        (points("a", "1,2;nan,3"), "x of point 2 is 'nan'"),
        (points("", "1,2"), "a point has no label"),
        (box(edges='xtl="1" ytl="2" xbr="1" ybr="4"'), "it has no area"),
        (box(edges='xtl="1" ytl="2" xbr="3"'), "ybr is missing"),
    ],
)
def test_read_bad_shape_is_a_bad_row(tmp_path: Path, shape: str, message: str) -> None:
    labels = FORMAT.read(write(tmp_path, SKELETON, shape))
    assert len(labels) == len(labels.bad_rows) == 1
    assert labels.bad_rows[0].startswith("annotations.xml, image a.png, ") or "a.png: " in labels.bad_rows[0]
    assert message in labels.bad_rows[0]


def test_read_missing_image_or_name_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such image 'b\.png'"):
        FORMAT.read(write(tmp_path, SKELETON, image='name="b.png"'))
    with pytest.raises(UserError, match="'name' is missing"):
        FORMAT.read(write(tmp_path, SKELETON, image=""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations>", "not valid XML"),
        ("<dataset/>", "not an XML file of CVAT"),
        ("<annotations><version>1.1</version></annotations>", "no object with landmarks"),
        ("<annotations><version>1.1</version><track/></annotations>", "CVAT for video.*CVAT for images 1.1"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations/>', "document type"),
    ],
)
def test_read_bad_file_raises(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(text)
    FORMAT.recognizes(path)
    with pytest.raises(UserError, match=message):
        FORMAT.read(tmp_path)


def test_recognizes_other_files_is_false(tmp_path: Path) -> None:
    assert not FORMAT.recognizes(tmp_path)
    path = tmp_path / "annotations.xml"
    for text in ("<dataset><images/></dataset>", "<annotations><a/></annotations>", "{}", "<annotations/>"):
        path.write_text(text)
        assert not FORMAT.recognizes(tmp_path)
