"""What is lost when labels are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.formats import unwritten
from landmarks_fastai.data.formats.unwritten import SCHEMA_PARTS, written_losses
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import KAGGLE15, schema_from_names

NAMES = ("left_eye", "right_eye", "nose")
EVERYTHING = (
    unwritten.EMPTY_ROWS,
    unwritten.UNLABELED,
    unwritten.OCCLUSION,
    unwritten.UNKNOWN_VISIBILITY,
    unwritten.BOXES,
    unwritten.GROUPS,
    *SCHEMA_PARTS,
)


def annotations(schema: LandmarkSchema | None = None, **fields: object) -> Annotations:
    schema = schema or schema_from_names("case", NAMES)
    plain = Annotations(
        schema=schema,
        images=(ImageSource(Path("a.png")),),
        rows=np.array([0, 0]),
        points=np.ones((2, len(schema), 2)),
        names=("a", "b"),
        source="case",
        visibility=np.full((2, len(schema)), 2, np.uint8),
    )
    return replace(plain, **fields)


def points(row: int, landmark: int | slice) -> np.ndarray:
    array = np.ones((2, 3, 2))
    array[row:, landmark] = np.nan
    return array


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"points": points(1, slice(None))}, "1 row without labeled landmarks: skipped when read again"),
        ({"points": points(0, 2)}, "landmarks that no row labels are not written: nose"),
        (
            {"visibility": np.array([[2, 2, 1], [1, 2, 2]], np.uint8)},
            "visibility is not written: 2 landmarks labeled as occluded",
        ),
        ({"visibility": None}, "visibility is not recorded: all labeled landmarks are written as visible"),
        ({"boxes": np.zeros((2, 4))}, "boxes are not written"),
        ({"groups": ("a", "b")}, "groups are not written"),
        ({"columns": {"pose": ("", ""), "age": ("1", "")}}, "columns are not written: pose, age"),
    ],
)
def test_each_loss_is_one_line(fields: dict[str, object], line: str) -> None:
    lossy = annotations(**fields)
    assert written_losses(lossy, EVERYTHING) == [line]
    assert written_losses(lossy, (), columns=("pose", "age")) == []


@pytest.mark.parametrize("schema", [schema_from_names("case", NAMES), KAGGLE15])
def test_schema_that_follows_from_its_names_is_no_loss(schema: LandmarkSchema) -> None:
    assert schema.eyes is not None
    assert written_losses(annotations(schema), EVERYTHING) == []


def test_differing_parts_of_the_schema_are_one_line() -> None:
    schema = LandmarkSchema(
        "case",
        NAMES,
        skeleton=(NAMES,),
        normalizer=(("nose",), ("left_eye",)),
        midline=("left_eye", "right_eye"),
    )
    assert written_losses(annotations(schema), EVERYTHING) == [
        "flip pairs, skeleton, eyes, normalizer, midline of the schema: not written; what follows from the"
        " names is read again"
    ]
    assert written_losses(annotations(schema), [unwritten.MIDLINE]) == [
        "midline of the schema: not written; what follows from the names is read again"
    ]


def test_held_columns_are_not_mentioned() -> None:
    lossy = annotations(columns={"pose": ("", ""), "age": ("1", "")})
    assert written_losses(lossy, EVERYTHING, columns=("age",)) == ["columns are not written: pose"]
