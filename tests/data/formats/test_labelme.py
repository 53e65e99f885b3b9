"""JSON of LabelMe: points, groups, rectangles, occlusion, what is skipped, bad files and a round trip."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.formats.labelme import FORMAT
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema


def shape(label: Any, points: Any, group: Any = None, kind: Any = "point", **entries: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **entries}


def write(folder: Path, *shapes: Any, name: str = "a", **entries: Any) -> Path:
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 30)).save(path.with_suffix(".png"))
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{path.stem}.png"}
    sizes = {"imageData": None, "imageHeight": 30, "imageWidth": 40}
    path.write_text(json.dumps({**content, **sizes, **entries}))
    return path


EYE, NOSE = shape("eye", [[10.5, 20]]), shape("nose", [[0.5, 0.5]])


def test_read_subtracts_half_a_pixel(tmp_path: Path) -> None:
    path = write(tmp_path, EYE, NOSE)
    assert FORMAT.recognizes(path)
    assert FORMAT.recognizes(tmp_path)
    labels = FORMAT.read(path)
    assert labels.schema.names == ("eye", "nose")
    np.testing.assert_allclose(labels.points[0], [[10, 19.5], [0, 0]], atol=1e-6)
    assert labels.names == ("a.json",)
    assert labels.images[0].path == tmp_path / "a.png"
    assert labels.visibility is None
    assert labels.boxes is None
    assert labels.notes == labels.bad_rows == ()


def test_read_groups_are_objects_and_rectangles_their_boxes(tmp_path: Path) -> None:
    labels = FORMAT.read(
        write(
            tmp_path,
            {**EYE, "group_id": 1},
            {**EYE, "group_id": 2},
            {**NOSE, "group_id": 2},
            shape("face", [[30, 25], [5, 2]], 2, "rectangle"),
            shape("face", [[1, 2], [3, 4]], 3, "rectangle"),
        )
    )
    assert labels.names == ("a.json, group 1", "a.json, group 2")
    assert labels.boxes is not None
    assert np.isnan(labels.boxes[0]).all()
    assert labels.boxes[1].tolist() == [5, 2, 30, 25]
    assert labels.columns == {"label": ("", "face")}
    assert np.isnan(labels.points[0, 1]).all()
    assert labels.notes == ("1 rectangle without points is skipped",)


@pytest.mark.parametrize("entries", [{"flags": {"occluded": True}}, {"description": "Occluded"}])
def test_read_flag_or_description_marks_occlusion(tmp_path: Path, entries: dict[str, Any]) -> None:
    labels = FORMAT.read(write(tmp_path, {**EYE, **entries}, NOSE))
    assert labels.visibility is not None
    assert labels.visibility.tolist() == [[1, 2]]


def test_read_notes_other_shapes_and_sizes(tmp_path: Path) -> None:
    polygon = shape("x", [[1, 2], [3, 4], [5, 6]], None, "polygon")
    box = shape("face", [[5, 2], [30, 25]], None, "rectangle")
    write(tmp_path, EYE, polygon, polygon, box, box, imageWidth=80)
    write(tmp_path, name="b")
    (tmp_path / "classes.json").write_text("{}")
    assert FORMAT.read(tmp_path).notes == (
        "2 shapes of type 'polygon' are skipped",
        "2 rectangles are not used as boxes, because each box needs a group_id of its own",
        "1 image without shapes is skipped",
        "1 JSON file without shapes is skipped",
        "1 image is of another size than when labeled: check that the landmarks fit",
    )


def test_read_folders_below_with_images_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, EYE, name="1/a")
    write(tmp_path, EYE, name="2/a", imagePath="..\\2\\a.png")
    labels = FORMAT.read(tmp_path)
    assert labels.names == ("1/a.json", "2/a.json")
    assert labels.rows.tolist() == [0, 1]
    assert [image.path.resolve() for image in labels.images] == [tmp_path / "1/a.png", tmp_path / "2/a.png"]


def test_read_image_of_another_computer(tmp_path: Path) -> None:
    labels = FORMAT.read(write(tmp_path, EYE, imagePath="C:\\data\\a.png"))
    assert labels.images[0].path == tmp_path / "a.png"
    assert len(labels.notes) == 1


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([EYE, EYE], "'eye' occurs twice in one object; remove one of them, or group"),
        ([shape("eye", [[1, "a"]])], "y of 'eye' is 'a'"),
        ([shape("eye", [[1, None]])], "y of 'eye' is missing"),
        ([shape("eye", [[1e300, 1]])], "x of 'eye' is 1e+300"),
        ([shape("eye", [[1]])], "'eye' is not at an x and a y"),
        ([shape("eye", [])], "'eye' is not at an x and a y"),
        ([shape("eye", None)], "shape 1 has no list 'points'"),
        ([EYE, 5], "shape 2 has no list 'points'"),
        ([shape(None, [[1, 2]])], "shape 1 has no label"),
        ([shape("eye", [[1, 2]], [1])], "the group_id of shape 1"),
        ([EYE, shape("x", [[1, 2]], None, "rectangle")], "a rectangle has 1 points"),
        ([EYE, shape("x", [[1, 2], [1, 4]], None, "rectangle")], "a rectangle has no area"),
    ],
)
def test_read_bad_shape_is_a_bad_row(tmp_path: Path, shapes: list[Any], message: str) -> None:
    write(tmp_path, EYE)
    path = write(tmp_path, *shapes, name="bad")
    labels = FORMAT.read(tmp_path)
    assert labels.names == ("a.json",)
    assert len(labels.bad_rows) == 1
    assert message in labels.bad_rows[0]
    assert "bad.json" in labels.bad_rows[0]
    with pytest.raises(UserError, match=r"bad\.json"):
        FORMAT.read(path)


def test_read_missing_image_is_a_bad_row(tmp_path: Path) -> None:
    write(tmp_path, EYE)
    write(tmp_path, EYE, name="b", imagePath="c.png")
    write(tmp_path, EYE, name="d", imagePath="e.png", imageData="iVBO")
    write(tmp_path, EYE, name="f", imagePath=None)
    labels = FORMAT.read(tmp_path)
    assert labels.names == ("a.json",)
    text = "\n".join(labels.bad_rows)
    assert "b.json: no such image 'c.png'" in text
    assert "d.json: no such image 'e.png', only its copy in 'imageData'" in text
    assert "f.json: 'imagePath' is missing" in text


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"shapes": 5}', "[" * 100_000, "9" * 10_000])
def test_read_bad_file_raises(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    FORMAT.recognizes(path)
    with pytest.raises(UserError, match=r"a\.json"):
        FORMAT.read(path)
    with pytest.raises(UserError):
        FORMAT.read(tmp_path)


def test_read_folder_without_files_raises(tmp_path: Path) -> None:
    assert not FORMAT.recognizes(tmp_path)
    with pytest.raises(UserError, match=r"no \.json files"):
        FORMAT.read(tmp_path)


def test_recognizes_reads_only_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"x": "' + "y" * 50_000_000 + '", "shapes": [], "imagePath": ""}')
    start = time.perf_counter()
    assert not FORMAT.recognizes(path)
    assert time.perf_counter() - start < 0.1
    path.write_text(json.dumps({"annotations": [], "images": [], "categories": []}))
    assert not FORMAT.recognizes(path)


SCHEMA = LandmarkSchema("x", ("eye", "nose"))
COORDINATE = st.floats(0, 40)
LABEL = st.tuples(COORDINATE, COORDINATE, st.sampled_from([0, 1, 2]))


def make(folder: Path, labels: list[list[tuple[float, float, int]]], boxes: bool = True) -> Annotations:
    images = [folder / "in" / name / "face.png" for name in "ab"]
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 30), 7).save(image)
    values = np.array(labels, float)
    values[values[..., 2] == 0, :2] = np.nan
    n = len(values)
    return Annotations(
        schema=SCHEMA,
        images=tuple(map(ImageSource, images)),
        rows=np.sort(np.arange(n) % 2),
        points=values[..., :2],
        visibility=values[..., 2].astype(np.uint8),
        boxes=np.tile([1.5, 2, 30, 25.25], (n, 1)) if boxes else None,
        names=tuple(map(str, range(n))),
        source="x",
    )


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(LABEL, LABEL).filter(lambda pair: any(each[2] for each in pair)), min_size=1, max_size=5
    ),
    st.booleans(),
)
def test_write_then_read_returns_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], boxes: bool
) -> None:
    folder = tmp_path_factory.mktemp("labelme")
    # the first row labels all landmarks, so that their order is the same
    written = make(folder, [[(1, 2, 2), (3, 4, 1)], *values], boxes)
    assert FORMAT.write(written, folder / "out") == []
    labels = FORMAT.read(folder / "out")
    np.testing.assert_allclose(labels.points, written.points, atol=1e-6)
    assert labels.visibility is not None
    assert written.visibility is not None
    assert (labels.visibility == written.visibility).all()
    assert labels.rows.tolist() == written.rows.tolist()
    assert labels.schema.names == SCHEMA.names
    assert labels.notes == labels.bad_rows == ()
    assert labels.columns == {}
    if written.boxes is None:
        assert labels.boxes is None
    else:
        np.testing.assert_allclose(labels.boxes, written.boxes)


def test_write_reports_what_is_lost(tmp_path: Path) -> None:
    labels = make(tmp_path, [[(1, 2, 2), (0, 0, 0)], [(0, 0, 0), (0, 0, 0)]], boxes=False)
    rich = replace(labels, groups=("a", "b"), columns={"label": ("x", ""), "age": ("1", "2")})
    assert FORMAT.write(rich, tmp_path / "out") == [
        "1 row without labeled landmarks: skipped when read again",
        "landmarks that no row labels are not written: nose",
        "groups are not written",
        "columns are not written: age",
        "1 label of rows without a box: not written",
    ]


def test_write_keeps_labels_of_boxes(tmp_path: Path) -> None:
    labels = replace(make(tmp_path, [[(1, 2, 2), (3, 4, 2)]]), columns={"label": ("face",)})
    assert FORMAT.write(labels, tmp_path / "out") == []
    assert FORMAT.read(tmp_path / "out").columns == {"label": ("face",)}


def test_read_half_of_a_surrogate_pair_can_be_printed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not valid Unicode"):
        FORMAT.read(write(tmp_path, {**EYE, "label": "\ud800"}))
    box = shape("\ud800", [[1, 2], [3, 4]], "\ud800", "rectangle")
    group = {**EYE, "group_id": "\ud800"}
    labels = FORMAT.read(write(tmp_path, group, box, NOSE, EYE, EYE))
    assert labels.columns == {"label": ("?",)}
    for text in (*labels.names, *labels.bad_rows, *labels.notes):
        text.encode()


def test_write_is_read_by_labelme(tmp_path: Path) -> None:
    label_file = pytest.importorskip("labelme.label_file", reason="labelme 5 is not installed")
    FORMAT.write(make(tmp_path, [[(1, 2, 2), (3, 4, 1)]]), tmp_path / "out")
    content = label_file.LabelFile(str(tmp_path / "out" / "face.json"))
    assert [each["label"] for each in content.shapes] == ["box", "eye", "nose"]
    assert content.shapes[1]["points"] == [[1.5, 2.5]]
