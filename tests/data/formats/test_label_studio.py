"""JSON of Label Studio: percents, grouping, selection of annotations, images, bad files and a round trip."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.formats.label_studio import FORMAT
from landmarks_fastai.data.formats.label_studio_images import file_names
from landmarks_fastai.data.formats.label_studio_writing import write_label_studio
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema


def keypoint(key: str, label: str, x: Any, y: Any, **entries: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]}
    return {"id": key, "type": "keypointlabels", "value": value, **entries}


def rectangle(key: str, x: Any, y: Any, width: Any, height: Any, rotation: Any = 0) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return {"id": key, "type": "rectanglelabels", "value": value | {"rectanglelabels": ["face"]}}


def relation(first: str, second: str) -> dict[str, Any]:
    return {"type": "relation", "from_id": first, "to_id": second, "direction": "right"}


def task(*items: Any, image: str = "a.png", **entries: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": list(items)}], **entries}


def write(folder: Path, *tasks: Any) -> Path:
    Image.new("L", (200, 100)).save(folder / "a.png")
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


EYE, NOSE = keypoint("e", "eye", 10, 20), keypoint("n", "nose", 0.25, 0.5)


def test_read_scales_percents_and_subtracts_half_a_pixel(tmp_path: Path) -> None:
    path = write(tmp_path, task(EYE, NOSE))
    assert FORMAT.recognizes(path)
    labels = FORMAT.read(path)
    assert labels.schema.names == ("eye", "nose")
    np.testing.assert_allclose(labels.points[0], [[19.5, 19.5], [0, 0]], atol=1e-6)
    assert labels.names == ("export.json, task 7",)
    assert labels.visibility is None
    assert labels.boxes is None
    assert labels.notes == labels.bad_rows == ()


def test_read_scales_by_the_upright_image_on_disk(tmp_path: Path) -> None:
    path = write(tmp_path, task({**EYE, "original_width": 100, "original_height": 200}))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("L", (200, 100)).save(tmp_path / "a.png", exif=exif)
    labels = FORMAT.read(path)
    np.testing.assert_allclose(labels.points[0, 0], [9.5, 39.5])
    assert labels.notes == ()
    Image.new("L", (300, 100)).save(tmp_path / "a.png")
    assert "of another size" in FORMAT.read(path).notes[0]


def test_read_groups_by_parent_then_relation_then_rectangle(tmp_path: Path) -> None:
    boxes = rectangle("b1", 0, 0, 20, 50), rectangle("b2", 50, 0, 20, 50), rectangle("b3", 0, 60, 20, 20)
    points = (
        keypoint("1", "eye", 90, 90, parentID="b1"),
        keypoint("2", "eye", 91, 90),
        keypoint("3", "nose", 5, 70),
        keypoint("4", "eye", 6, 70),
    )
    labels = FORMAT.read(write(tmp_path, task(*boxes, *points, relation("2", "b2"))))
    assert labels.names == tuple(f"export.json, task 7, object {i}" for i in (1, 2, 3))
    assert labels.boxes is not None
    np.testing.assert_allclose(labels.boxes, [[0, 0, 40, 50], [100, 0, 140, 50], [0, 60, 40, 80]])
    assert labels.columns == {"label": ("face",) * 3}
    np.testing.assert_allclose(labels.points[2], [[11.5, 69.5], [9.5, 69.5]])
    assert labels.notes == (
        "2 keypoints are assigned to the only rectangle around each, for lack of a parent or relation",
    )


def test_read_rotated_rectangle_becomes_its_envelope(tmp_path: Path) -> None:
    box = rectangle("b", 50, 50, 20, 10, 90)  # 40 × 10 px at (100, 50), clockwise around that corner
    labels = FORMAT.read(write(tmp_path, task(box, keypoint("e", "eye", 48, 60))))
    assert labels.boxes is not None
    np.testing.assert_allclose(labels.boxes[0], [90, 50, 100, 90], atol=1e-6)
    assert "1 rotated rectangle is replaced by the upright rectangle around it" in labels.notes


def test_read_selects_the_last_annotation_that_is_not_cancelled(tmp_path: Path) -> None:
    results = [{"result": [keypoint("e", "eye", x, 50)]} for x in (10, 20, 30)]
    results[2]["was_cancelled"] = True  # type: ignore[assignment]
    first = {"id": 1, "data": {"image": "a.png"}, "annotations": results, "predictions": results}
    second = {**first, "annotations": [], "predictions": results[:2]}
    third = {**first, "annotations": [], "predictions": []}
    labels = FORMAT.read(write(tmp_path, first, second, third))
    np.testing.assert_allclose(labels.points[:, 0, 0], [39.5, 39.5])
    assert labels.notes == (
        "1 cancelled annotation is skipped",
        "1 annotation that is not the last of its task is skipped",
        "1 task is read from a prediction, because there is no annotation",
        "1 task without labels is skipped",
    )


def test_read_occluded_choice_and_separate_labels(tmp_path: Path) -> None:
    choice = {"id": "e", "type": "choices", "value": {"choices": ["occluded"]}}
    plain = {"id": "m", "type": "keypoint", "value": {"x": 1, "y": 2}}
    label = {"id": "m", "type": "labels", "value": {"labels": ["mouth"]}}
    polygon = {"id": "p", "type": "polygonlabels", "value": {}}
    broken = {"id": "q", "type": ["keypoint"], "value": []}
    labels = FORMAT.read(
        write(tmp_path, task(EYE, choice, plain, label, polygon, broken, rectangle("b", 0, 0, 50, 50)))
    )
    assert labels.schema.names == ("eye", "mouth")
    assert labels.visibility is not None
    assert labels.visibility.tolist() == [[1, 2]]
    assert "1 region of type 'polygonlabels' is skipped" in labels.notes


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("/data/upload/3/0123abcd-face%201.png", "0123abcd-face 1.png"),
        ("/data/upload/3/0123abcd-face%201.png", "face 1.png"),
        ("/data/local-files/?d=set%2Fsub/b.png", "sub/b.png"),
        ("/data/local-files/?d=set/sub/b.png", "images/b.png"),
        ("https://example.com/x/b.png?token=1&y=2", "b.png"),
        ("s3://bucket/x/b.png", "b.png"),
        ("sub\\b.png", "sub/b.png"),
        ("C:\\data\\b.png", "b.png"),
        ("50%20.png", "50%20.png"),
    ],
)
def test_read_finds_image(tmp_path: Path, reference: str, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (4, 4)).save(path)
    labels = FORMAT.read(write(tmp_path, task(EYE, image=reference)))
    assert labels.images[0].path == path


def test_file_names_of_hostile_references_do_not_raise() -> None:
    for reference in (
        "",
        "http://[",
        "/data/local-files/?d=",
        "/data/local-files/?d=" + "a/" * 50_000,
        "\0",
        "//",
    ):
        assert len(file_names(reference)) < 50


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (5, "task 2: not a JSON object"),
        (task(EYE, EYE), "the region ID 'e' occurs twice"),
        (task(EYE, keypoint("x", "eye", 1, 1)), "'eye' occurs twice"),
        (task(keypoint("e", "eye", "x", 1)), "x (percent) is 'x'"),
        (task(keypoint("e", "eye", 1, None)), "y (percent) is missing"),
        (task(keypoint("e", "", 1, 1)), "a keypoint has no label"),
        (task({**EYE, "image_rotation": 90}), "rotated by 90°"),
        (task(rectangle("b", 50, 50, 10, 10), EYE), "no rectangle is around the keypoint 'eye'"),
        (task(*(rectangle(k, 0, 0, 50, 50) for k in "ab"), EYE), "2 rectangles are around"),
        (task(*(rectangle(k, 0, 0, 9, 9) for k in "ab"), EYE, relation("a", "e"), relation("b", "e")),
         "2 rectangles are connected"),
        (task(rectangle("a", 0, 0, 0, 9), EYE), "no area"),
        (task(rectangle("a", 0, 0, 9, 9, "x"), EYE), "rotation is 'x'"),
        (task(7), "an entry of 'result'"),
        (task(EYE, image="b.png"), "no such image 'b.png'"),
        ({"id": 7, "annotations": [{"result": [EYE]}]}, "no image in 'data'"),
        ({"id": 7, "annotations": [{"result": 5}]}, "'result' is not a list"),
    ],
)  # fmt: skip
def test_read_bad_task_is_a_bad_row(tmp_path: Path, bad: Any, message: str) -> None:
    labels = FORMAT.read(write(tmp_path, task(EYE), bad))
    assert len(labels) == len(labels.bad_rows) == 1
    assert message in labels.bad_rows[0]
    assert labels.bad_rows[0].startswith("export.json, task ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("[", "not JSON"),
        ("[]", "no tasks with 'annotations'"),
        ('{"a": 1}', "no tasks with 'annotations'"),
        ('[{"annotation_id": 1, "annotator": 1, "image": "a.png"}]', "JSON-MIN .* export as JSON instead"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_read_bad_file_raises(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    FORMAT.recognizes(path)
    with pytest.raises(UserError, match=message):
        FORMAT.read(path)


def test_recognizes_reads_only_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"x": "' + "y" * 50_000_000 + '", "annotations": [{"result": []}]}]')
    start = time.perf_counter()
    assert not FORMAT.recognizes(path)
    assert time.perf_counter() - start < 0.1
    path.write_text('[{"annotation_id": 1, "annotator": 2}]')
    assert FORMAT.recognizes(path)
    path.write_text('{"shapes": [], "imagePath": ""}')
    assert not FORMAT.recognizes(path)
    assert not FORMAT.recognizes(tmp_path)


COORDINATE = st.floats(0, 40)
LABEL = st.tuples(COORDINATE, COORDINATE, st.sampled_from([0, 1, 2]))


def make(folder: Path, labels: list[Any], boxes: bool = True) -> Annotations:
    for name in "ab":
        Image.new("L", (40, 30), 7).save(folder / f"{name} 1.png")
    values = np.array(labels, float)
    values[values[..., 2] == 0, :2] = np.nan
    n = len(values)
    return Annotations(
        schema=LandmarkSchema("x", ("eye", "nose")),
        images=tuple(ImageSource(folder / f"{name} 1.png") for name in "ab"),
        rows=np.sort(np.arange(n) % 2),
        points=values[..., :2],
        visibility=values[..., 2].astype(np.uint8),
        boxes=np.tile([1.5, 2, 30, 25.25], (n, 1)) if boxes else None,
        names=tuple(map(str, range(n))),
        source="x",
    )


@settings(max_examples=25)
@given(st.lists(st.tuples(LABEL, LABEL), max_size=4), st.booleans(), st.booleans(), st.booleans())
def test_write_then_read_returns_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[Any],
    boxes: bool,
    as_predictions: bool,
    moved: bool,
) -> None:
    folder = tmp_path_factory.mktemp("label-studio")
    # without boxes, two landmarks are needed that a relation joins
    least = 1 if boxes else 2
    values = [pair for pair in values if sum(each[2] > 0 for each in pair) >= least]
    written = make(folder, [[(1, 2, 2), (3, 4, 1)], *values], boxes)
    out = (folder / "out" if moved else folder) / "tasks.json"
    assert write_label_studio(written, out, as_predictions=as_predictions) == []
    labels = FORMAT.read(out)
    np.testing.assert_allclose(labels.points, written.points, atol=1e-6)
    assert labels.visibility is not None
    assert written.visibility is not None
    assert (labels.visibility == written.visibility).all()
    assert labels.rows.tolist() == written.rows.tolist()
    assert labels.bad_rows == ()
    if written.boxes is None:
        assert labels.boxes is None
    else:
        np.testing.assert_allclose(labels.boxes, written.boxes)


def test_write_interface_names_landmarks_and_boxes(tmp_path: Path) -> None:
    labels = replace(make(tmp_path, [[(1, 2, 2), (3, 4, 1)]]), columns={"label": ("<face>",)})
    assert write_label_studio(labels, tmp_path / "tasks.json") == []
    view = ElementTree.parse(tmp_path / "tasks.interface.xml").getroot()
    assert [each.get("value") for each in view.iter("Label")] == ["<face>", "eye", "nose"]
    assert "DOCUMENT_ROOT" in (tmp_path / "tasks.interface.xml").read_text()
    content = json.loads((tmp_path / "tasks.json").read_text())
    assert content[0]["data"]["image"] == "/data/local-files/?d=a%201.png"
    assert FORMAT.read(tmp_path / "tasks.json").columns == {"label": ("<face>",)}


def test_write_reports_what_is_lost(tmp_path: Path) -> None:
    labels = make(tmp_path, [[(1, 2, 2), (0, 0, 0)], [(0, 0, 0), (0, 0, 0)]], boxes=False)
    rich = replace(labels, groups=("a", "b"), columns={"label": ("x", ""), "age": ("1", "2")})
    assert write_label_studio(rich, tmp_path / "tasks.json") == [
        "1 row without labeled landmarks: skipped when read again",
        "landmarks that no row labels are not written: nose",
        "groups are not written",
        "columns are not written: age",
        "visibility is not written, because no landmark is occluded",
        "1 label of rows without a box: not written",
    ]
