"""Built-in schemas: flip pairs against geometry, known facts and index maps; symmetric skeletons."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import (
    AFLW19,
    AFLW21,
    CELEBA5,
    COCO17,
    COFW29,
    IBUG68,
    INSIGHTFACE106,
    MEDIAPIPE468,
    MEDIAPIPE478,
    MTCNN5,
    SCHEMAS,
    WFLW98,
)
from landmarks_fastai.schemas.sides import find_pairs, unpaired_names

# positions on which benchmarks with several schemas agree: dlib's 68 landmarks among those of InsightFace
INSIGHTFACE_OF_IBUG = (
    *(1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17),
    *(43, 48, 49, 51, 50, 102, 103, 104, 105, 101),
    *(72, 73, 74, 86, 78, 79, 80, 85, 84),
    *(35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90),
    *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 65, 66, 62, 70, 69, 57, 60, 54),
)
WFLW_OF_IBUG = (
    *range(0, 33, 2),
    *(33, 34, 35, 36, 37, 42, 43, 44, 45, 46),
    *range(51, 60),
    *(60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75),
    *range(76, 96),
)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_built_in_flip_index_is_involution_and_leaves_no_side_unpaired(schema: LandmarkSchema) -> None:
    flip = schema.flip_index
    assert [flip[i] for i in flip] == list(range(len(schema)))
    assert unpaired_names(schema) == ()
    assert SCHEMAS[schema.name] is schema


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_built_in_skeleton_is_its_own_mirror_image(schema: LandmarkSchema) -> None:
    edges = {frozenset(schema.indices(edge)) for chain in schema.skeleton for edge in pairwise(chain)}
    assert edges
    assert {frozenset(schema.flip_index[i] for i in edge) for edge in edges} == edges


@pytest.mark.parametrize(
    "schema", [each for each in SCHEMAS.values() if each is not COCO17], ids=lambda each: each.name
)
def test_built_in_face_flip_exchanges_eyes(schema: LandmarkSchema) -> None:
    assert schema.eyes is not None
    left, right = (set(schema.indices(eye)) for eye in schema.eyes)
    assert {schema.flip_index[i] for i in left} == right
    assert not left & right


def test_coco17_has_no_eyes_because_a_face_detector_does_not_find_bodies() -> None:
    assert COCO17.eyes is None
    assert len(COCO17.flip_pairs) == 8


@pytest.mark.parametrize("schema", [IBUG68, MEDIAPIPE478], ids=["ibug68", "mediapipe478"])
def test_built_in_flip_pairs_are_the_best_assignment_of_mirrored_mean_face(schema: LandmarkSchema) -> None:
    means = json.loads((Path(__file__).parent / "mean_faces.json").read_text("utf-8"))
    mean = np.array(means[schema.name])
    distances = np.linalg.norm(mean[:, None] - mean[None] * [-1, 1], axis=2)
    assert tuple(linear_sum_assignment(distances)[1].tolist()) == schema.flip_index
    assert schema.eyes is not None
    left, right = (mean[list(schema.indices(eye))].mean(axis=0) for eye in schema.eyes)
    assert left[0] > 0.3 > -0.3 > right[0]  # the person's left is on the right of the image


@pytest.mark.parametrize(
    ("schema", "landmarks"),
    [(INSIGHTFACE106, INSIGHTFACE_OF_IBUG), (WFLW98, WFLW_OF_IBUG)],
    ids=["insightface106", "wflw98"],
)
def test_built_in_flip_pairs_agree_with_ibug68(schema: LandmarkSchema, landmarks: tuple[int, ...]) -> None:
    assert len(set(landmarks)) == 68
    for i, j in enumerate(IBUG68.flip_index):
        assert schema.flip_index[landmarks[i]] == landmarks[j], (i, j)


@pytest.mark.parametrize(
    ("schema", "count", "midline"),
    [
        (IBUG68, 68, [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]),
        (WFLW98, 98, [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]),
        (COFW29, 29, [20, 21, 24, 25, 26, 27, 28]),
        (INSIGHTFACE106, 106, [0, 53, 60, 62, 71, 72, 73, 74, 80, 86]),
        (AFLW19, 19, [13, 16, 18]),
        (AFLW21, 21, [14, 18, 20]),
        (CELEBA5, 5, [2]),
        (MTCNN5, 5, [2]),
    ],
    ids=lambda value: value.name if isinstance(value, LandmarkSchema) else "",
)
def test_built_in_unpaired_landmarks_are_on_midline(
    schema: LandmarkSchema, count: int, midline: list[int]
) -> None:
    assert len(schema) == count
    assert [i for i, j in enumerate(schema.flip_index) if i == j] == midline


@pytest.mark.parametrize("schema", [MTCNN5, CELEBA5, AFLW19, AFLW21, COCO17], ids=lambda each: each.name)
def test_built_in_pairs_are_those_of_the_names(schema: LandmarkSchema) -> None:
    assert {frozenset(pair) for pair in find_pairs(schema.names)} == {
        frozenset(pair) for pair in schema.flip_pairs
    }


def test_mediapipe_pairs_contain_known_ones() -> None:
    flip = MEDIAPIPE478.flip_index
    known = {33: 263, 133: 362, 61: 291, 78: 308, 234: 454, 127: 356, 98: 327, 70: 300, 107: 336}
    known |= {468: 473, 469: 476, 470: 475, 471: 474, 472: 477}
    assert {i: flip[i] for i in known} == known
    assert all(flip[i] == i for i in (0, 1, 4, 10, 13, 14, 17, 152, 168))
    assert MEDIAPIPE468.flip_index == flip[:468]


def test_reference_page_lists_all_schemas_with_their_sizes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "schemas.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines()]
    listed = {row[0].strip("`"): row[1:] for row in rows if len(row) == 3 and row[0].strip("`") in SCHEMAS}
    assert listed == {
        name: [str(len(schema)), str(len(schema.flip_pairs))] for name, schema in SCHEMAS.items()
    }
