"""Annotations in the order of a schema: any order of columns, numbers that must fit, and given schemas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.schema_matching import MAX_ASYMMETRY, asymmetry, with_schema
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import AFLW21, IBUG68, KAGGLE15, MTCNN5, schema_from_names
from landmarks_fastai.schemas.matching import infer_schema

MEANS = json.loads((Path(__file__).parents[1] / "schemas" / "mean_faces.json").read_text("utf-8"))
FACE68 = 40 * np.array(MEANS["ibug68"]) + 60


def make_annotations(schema: LandmarkSchema, points: np.ndarray, visible: bool = True) -> Annotations:
    n = len(points)
    flags = np.arange(n * len(schema)).reshape(n, -1) % 2 + 1
    return Annotations(
        schema=schema,
        images=(ImageSource(Path("a.png")),),
        rows=np.zeros(n, np.int64),
        points=points,
        names=tuple(f"row {i}" for i in range(n)),
        source="labels.csv",
        visibility=flags.astype(np.uint8) if visible else None,
        notes=("read",),
    )


def noisy_faces(count: int = 20, landmarks: int = 68) -> np.ndarray:
    rng = np.random.default_rng(0)
    return FACE68[None, :landmarks] + rng.normal(0, 2, (count, landmarks, 2))


@settings(max_examples=20)
@given(order=st.permutations(range(15)))
def test_with_schema_gives_the_same_for_every_order_of_columns(order: list[int]) -> None:
    points = np.random.default_rng(0).uniform(0, 90, (4, 15, 2))
    straight = make_annotations(KAGGLE15, points)
    assert straight.visibility is not None
    shuffled = replace(
        straight,
        schema=infer_schema("labels", [KAGGLE15.names[i] for i in order]),
        points=points[:, order],
        visibility=straight.visibility[:, order],
    )
    result = with_schema(shuffled)
    assert result.schema is KAGGLE15
    np.testing.assert_array_equal(result.points, points)
    np.testing.assert_array_equal(result.visibility, straight.visibility)
    assert result.notes == ("read",)


def test_with_schema_keeps_annotations_of_built_in_and_of_other_names() -> None:
    built_in = make_annotations(IBUG68, noisy_faces())
    assert with_schema(built_in) is built_in
    other = make_annotations(infer_schema("tool", ["tip", "end"]), np.zeros((1, 2, 2)))
    assert with_schema(other) is other


def test_with_schema_recognizes_numbers_from_1_in_any_order() -> None:
    order = np.random.default_rng(1).permutation(68)
    points = noisy_faces()
    names = [f"p{i + 1}" for i in order]
    result = with_schema(make_annotations(infer_schema("faces", names), points[:, order], visible=False))
    assert result.schema is IBUG68
    np.testing.assert_array_equal(result.points, points)
    assert result.visibility is None
    (_, note) = result.notes
    assert note == (
        "the 68 landmarks p1 … p68 are taken for those of ibug68, 0 … 67; if they are not, use --schema"
    )


def test_with_schema_rejects_numbers_of_another_shape() -> None:
    hand = np.random.default_rng(2).uniform(0, 100, (1, 21, 2)) + np.zeros((10, 1, 1))
    own = infer_schema("hands", [str(i) for i in range(21)])
    result = with_schema(make_annotations(own, hand))
    assert result.schema == own
    assert result.notes[1:] == (
        "the 21 landmarks are numbered, but are not symmetric like those of aflw21: if they have flip pairs,"
        " name them in a file for --schema",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"flip_pairs": (("left_eye_center", "right_eye_center"),)},
        {"eyes": (("nose_tip",), ("right_eye_center",))},
        {"normalizer": (("nose_tip",), ("mouth_center_bottom_lip",))},
        {"midline": ("nose_tip",)},
        {"skeleton": (("nose_tip", "mouth_center_top_lip"),)},
    ],
)
def test_with_schema_keeps_what_a_schema_file_says(changes: dict[str, object]) -> None:
    own = replace(infer_schema("mine", KAGGLE15.names[::-1]), **changes)  # type: ignore[arg-type]
    annotations = make_annotations(own, np.zeros((1, 15, 2)))
    assert with_schema(annotations) is annotations


def test_with_schema_of_numbers_keeps_flip_pairs_that_differ_and_accepts_equal_ones() -> None:
    own = LandmarkSchema("yolo", tuple(map(str, range(68))), flip_pairs=(("0", "1"),))
    annotations = make_annotations(own, noisy_faces())
    assert with_schema(annotations) is annotations
    same = replace(own, flip_pairs=tuple((b, a) for a, b in IBUG68.flip_pairs))
    assert with_schema(replace(annotations, schema=same)).schema is IBUG68


def test_with_schema_given_reorders_to_it() -> None:
    schema = LandmarkSchema("mine", ("nose", "a", "b"), flip_pairs=(("a", "b"),))
    points = np.arange(6.0).reshape(1, 3, 2)
    annotations = make_annotations(infer_schema("x", ["a", "b", "nose"]), points)
    result = with_schema(annotations, schema)
    assert result.schema is schema
    np.testing.assert_array_equal(result.points, points[:, [2, 0, 1]])
    assert annotations.visibility is not None
    np.testing.assert_array_equal(result.visibility, annotations.visibility[:, [2, 0, 1]])


def test_with_schema_given_built_in_takes_as_many_numbers_without_asking() -> None:
    points = np.random.default_rng(0).uniform(0, 9, (2, 21, 2))
    result = with_schema(
        make_annotations(infer_schema("x", [f"kp{21 - i}" for i in range(21)]), points), AFLW21
    )
    assert result.schema is AFLW21
    np.testing.assert_array_equal(result.points, points[:, ::-1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["left_eye", "right_eye", "nose", "mouth_left", "x"],
            "schema mtcnn5 has the landmark 'mouth_right'",
        ),
        (["left_eye", "right_eye", "nose", "mouth_left"], "schema mtcnn5 has the landmark 'mouth_right'"),
        ([*MTCNN5.names, "chin"], "labels.csv has the landmark 'chin'"),
    ],
)
def test_with_schema_given_other_names_raises(names: list[str], message: str) -> None:
    annotations = make_annotations(schema_from_names("x", names), np.zeros((1, len(names), 2)))
    with pytest.raises(UserError) as error:
        with_schema(annotations, MTCNN5)
    assert str(error.value).startswith(f"--schema: {message}, which ")


def test_asymmetry_is_small_for_turned_faces_and_large_for_wrong_pairs() -> None:
    faces = noisy_faces(200)
    angle = np.linspace(0, 6, 200)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    rotated = 3 * faces @ rotation + 100
    assert asymmetry(rotated, IBUG68.flip_index) == pytest.approx(asymmetry(faces, IBUG68.flip_index))
    assert asymmetry(faces, IBUG68.flip_index) < 0.15
    assert asymmetry(FACE68[None], IBUG68.flip_index) < 0.05
    wrong = np.random.default_rng(0).permutation(68)
    assert asymmetry(faces[:, wrong], IBUG68.flip_index) > MAX_ASYMMETRY


def test_asymmetry_ignores_unlabeled_landmarks_and_rows_without_pairs() -> None:
    faces = noisy_faces(30)
    faces[:, ::3] = np.nan
    assert 0 < asymmetry(faces, IBUG68.flip_index) < 0.2
    faces[:, 3:] = np.nan
    assert asymmetry(faces, IBUG68.flip_index) == 0
    assert asymmetry(np.full((3, 68, 2), 5.0), IBUG68.flip_index) == 0
