"""Folders of .pts files: shift by one pixel, unlabeled landmarks, bad files and a round trip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.formats.pts import FORMAT
from landmarks_fastai.errors import UserError
from landmarks_fastai.schemas import KAGGLE15, schema_from_names

FACE = "version: 1\nn_points:  3\n{\n1.0 1.0\n10.5 20.25\n-3.5 7\n}\n"


def add(folder: Path, name: str, text: str = FACE, image: str | None = ".png") -> Path:
    path = folder / f"{name}.pts"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if image:
        Image.new("L", (40, 30)).save(path.with_suffix(image))
    return path


def test_read_subtracts_one_and_finds_images(tmp_path: Path) -> None:
    add(tmp_path, "indoor_10", image=".jpg")
    add(tmp_path, "indoor_2")
    add(tmp_path, "outdoor/a", FACE.replace("10.5 20.25", "5 6"))
    assert FORMAT.recognizes(tmp_path)
    labels = FORMAT.read(tmp_path)
    assert labels.names == ("indoor_2.pts", "indoor_10.pts", "outdoor/a.pts")
    assert [image.name for image in labels.images] == ["indoor_2.png", "indoor_10.jpg", "a.png"]
    np.testing.assert_allclose(labels.points[0], [[0, 0], [9.5, 19.25], [-4.5, 6]], atol=1e-6)
    np.testing.assert_allclose(labels.points[2, 1], [4, 5], atol=1e-6)
    assert labels.schema.names == ("0", "1", "2")
    assert labels.visibility is None
    assert labels.boxes is None
    assert labels.notes == labels.bad_rows == ()


def test_read_one_file(tmp_path: Path) -> None:
    path = add(tmp_path, "a")
    add(tmp_path, "b")
    assert FORMAT.recognizes(path)
    assert FORMAT.read(path).names == ("a.pts",)


def test_read_unlabeled_landmarks_are_nan_and_noted(tmp_path: Path) -> None:
    text = "version: 1\nn_points: 5\n{\nnan NaN\n-1 -1\n0 0.0\n-1 5\n0 3\n}"
    labels = FORMAT.read(add(tmp_path, "a", text))
    assert np.isnan(labels.points[0, :3]).all()
    np.testing.assert_allclose(labels.points[0, 3:], [[-2, 4], [-1, 2]])
    assert labels.notes == ("2 landmarks at -1 -1 or 0 0 are taken as unlabeled",)


def test_read_68_landmarks_have_the_built_in_schema(tmp_path: Path) -> None:
    text = "version: 1\nn_points: 68\n{\n" + "\n".join(f"{k + 1} {k + 2}" for k in range(68)) + "\n}\n"
    labels = FORMAT.read(add(tmp_path, "a", text))
    assert labels.schema.name == "ibug68"
    assert labels.points[0, 67].tolist() == [67, 68]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no lines of coordinates"),
        ("version: 1\nn_points: 3\n{\n1 1\n", "no lines of coordinates"),
        ("version: 1\nn_points: 3\n}\n1 1\n{", "no lines of coordinates"),
        (
            "version: 1\nn_points: 3\n{\n1 1\n}\n",
            "n_points is '3', but the number of lines of coordinates is 1;",
        ),
        ("version: 1\n{\n}\n", "0 landmarks"),
        ("version: 1\nn_points: 1\n{\n1 2 3\n}\n", "line 4: 3 fields"),
        ("version: 1\nn_points: 1\n{\n1 x\n}\n", "line 4: y is 'x'"),
        ("version: 1\nn_points: 1\n{\nnan 1\n}\n", "line 4: x is 'nan'"),
        ("version: 1\nn_points: 1\n{\n1e999 1\n}\n", "line 4: x is '1e999'"),
        ("version: 1\n{\n" + "1 1\n" * 2001 + "}\n", "2,001 landmarks"),
        ("version: 1\n" * 200_000, "larger than 1 MiB"),
    ],
)
def test_read_broken_file_is_a_bad_row(tmp_path: Path, text: str, message: str) -> None:
    add(tmp_path, "good")
    path = add(tmp_path, "bad", text)
    labels = FORMAT.read(tmp_path)
    assert labels.names == ("good.pts",)
    assert len(labels.bad_rows) == 1
    assert "bad.pts" in labels.bad_rows[0]
    with pytest.raises(UserError, match=message) as error:
        FORMAT.read(path)
    assert str(error.value) == labels.bad_rows[0]


def test_read_binary_file_is_a_bad_row(tmp_path: Path) -> None:
    add(tmp_path, "a").write_bytes(b"version\xff\xfe\0")
    with pytest.raises(UserError, match="not a text file"):
        FORMAT.read(tmp_path)


def test_read_other_number_of_landmarks_is_a_bad_row(tmp_path: Path) -> None:
    for name in ("a", "b"):
        add(tmp_path, name)
    add(tmp_path, "c", "version: 1\nn_points: 1\n{\n1 2\n}\n")
    labels = FORMAT.read(tmp_path)
    assert len(labels) == 2
    assert "c.pts: 1 landmark, but most files have 3" in labels.bad_rows[0]


def test_read_missing_image_is_a_bad_row(tmp_path: Path) -> None:
    add(tmp_path, "a")
    add(tmp_path, "b", image=None)
    labels = FORMAT.read(tmp_path)
    assert labels.names == ("a.pts",)
    assert "b.pts: no image b with a suffix" in labels.bad_rows[0]


def test_read_folder_without_files_raises(tmp_path: Path) -> None:
    assert not FORMAT.recognizes(tmp_path)
    with pytest.raises(UserError, match=r"no \.pts files"):
        FORMAT.read(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        FORMAT.read(tmp_path / "a.pts")


def test_read_file_without_labels_is_skipped(tmp_path: Path) -> None:
    add(tmp_path, "a")
    add(tmp_path, "b", "version: 1\nn_points: 3\n{\n-1 -1\n-1 -1\n-1 -1\n}\n")
    labels = FORMAT.read(tmp_path)
    assert labels.names == ("a.pts",)
    assert "1 file without labeled landmarks is skipped" in labels.notes


def test_recognizes_other_content_is_false(tmp_path: Path) -> None:
    for name, text in (("a.pts", "MPEG"), ("a.txt", FACE), (".hidden.pts", FACE)):
        (tmp_path / name).write_text(text)
    assert not FORMAT.recognizes(tmp_path)
    assert not FORMAT.recognizes(tmp_path / "a.txt")


def annotations(folder: Path, points: np.ndarray, rows: list[int]) -> Annotations:
    """Return rows on two images of the same name in different folders."""
    images = [folder / "in" / name / "face.png" for name in "ab"]
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 30), 7).save(image)
    return Annotations(
        schema=schema_from_names("x", [str(k) for k in range(points.shape[1])]),
        images=tuple(map(ImageSource, images)),
        rows=np.array(rows, np.int64),
        points=points,
        names=tuple(map(str, range(len(rows)))),
        source="x",
    )


COORDINATE = st.floats(-50, 5000) | st.sampled_from([-2.0, -1.0, 0.0])
POINT = st.tuples(COORDINATE, COORDINATE) | st.just((np.nan, np.nan))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.tuples(COORDINATE, COORDINATE), POINT, POINT), min_size=1, max_size=4))
def test_write_then_read_returns_the_same_points(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[tuple[float, float], ...]]
) -> None:
    folder = tmp_path_factory.mktemp("pts")
    points = np.array(values, float)
    FORMAT.write(annotations(folder, points, [i % 2 for i in range(len(points))]), folder / "out")
    labels = FORMAT.read(folder / "out")
    assert labels.names == ("face.pts", *(f"face_{i + 1}.pts" for i in range(1, len(points))))
    np.testing.assert_allclose(labels.points, points, atol=1e-3)


def test_write_reports_what_is_lost(tmp_path: Path) -> None:
    labels = annotations(tmp_path, np.ones((3, 3, 2)), [0, 1, 0])
    assert FORMAT.write(labels, tmp_path / "out") == [
        "1 further row of an image: each has a copy of the image, NAME_2"
    ]
    rich = replace(
        labels,
        schema=KAGGLE15,
        points=np.full((3, 15, 2), np.nan),
        visibility=np.ones((3, 15), np.uint8),
        boxes=np.zeros((3, 4)),
        groups=("a", "b", "c"),
        columns={"age": ("1", "2", "3")},
    )
    losses = " ".join(FORMAT.write(rich, tmp_path / "rich"))
    for what in (
        "3 rows without",
        "names",
        "visibility is",
        "boxes are",
        "groups are",
        "columns are not written: age",
    ):
        assert what in losses
    assert "-1 -1\n-1 -1" in (tmp_path / "rich" / "face.pts").read_text()


def test_write_into_the_folder_of_the_images_keeps_them(tmp_path: Path) -> None:
    labels = annotations(tmp_path, np.ones((1, 3, 2)), [0])
    before = labels.images[0].path.read_bytes()
    FORMAT.write(labels, labels.images[0].path.parent)
    assert labels.images[0].path.read_bytes() == before
    assert len(FORMAT.read(labels.images[0].path.parent)) == 1
