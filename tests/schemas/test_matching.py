"""Schemas by names: in any order, by number with a note, or with the pairs and eyes of the names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import (
    IBUG68,
    KAGGLE15,
    MTCNN5,
    SCHEMAS,
    WFLW98,
    canonical_schema,
    schema_from_names,
)
from landmarks_fastai.schemas.matching import order_by_number


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@settings(max_examples=5, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_canonical_schema_recognizes_names_in_any_order(schema: LandmarkSchema, random: object) -> None:
    names = list(schema.names)
    random.shuffle(names)  # type: ignore[attr-defined]
    found, order, notes = canonical_schema("any", names)
    assert found is schema
    assert tuple(names[i] for i in order) == schema.names
    assert notes == ()


@pytest.mark.parametrize(
    "template", ["{}", "point_{}", "kp{:02d}", "landmark {}", "P{}", "KeyPoint-{}", "{:03d}"]
)
@pytest.mark.parametrize("first", [0, 1])
def test_canonical_schema_recognizes_numbers_by_count_with_a_note(template: str, first: int) -> None:
    names = [template.format(i) for i in range(first, first + 98)][::-1]
    schema, order, notes = canonical_schema("any", names)
    assert schema is WFLW98
    assert order == tuple(range(97, -1, -1))
    if set(names) != set(WFLW98.names):
        assert notes == (
            f"the 98 landmarks {names[-1]} … {names[0]} are taken for those of wflw98, 0 … 97; if they are"
            " not, use --schema",
        )


def test_canonical_schema_of_ibug68_counted_from_1_keeps_positions() -> None:
    schema, order, (note,) = canonical_schema("any", [str(i) for i in range(1, 69)])
    assert schema is IBUG68
    assert order == tuple(range(68))
    assert note.startswith("the 68 landmarks 1 … 68 are taken for those of ibug68, 0 … 67;")


@pytest.mark.parametrize(
    "names",
    [
        [f"part_{i}" for i in range(68)],  # a name that may mean something
        [f"point_{i}" for i in range(67)],  # no schema of as many
        [str(i) for i in (*range(67), 68)],  # a gap
        [str(i) for i in range(2, 70)],
        [*(f"p{i}" for i in range(67)), "q67"],
        [*(f"left_{i}" for i in range(5))],
    ],
)
def test_canonical_schema_of_other_names_keeps_them_in_order(names: list[str]) -> None:
    schema, order, notes = canonical_schema("mine", names)
    assert schema.name == "mine"
    assert schema.names == tuple(names)
    assert order == tuple(range(len(names)))
    assert notes == ()


def test_canonical_schema_finds_pairs_and_eyes_of_other_names() -> None:
    schema, _, _ = canonical_schema("mine", ["leftMouth", "rightMouth", "REye", "LEye", "nose"])
    assert schema.flip_pairs == (("leftMouth", "rightMouth"), ("LEye", "REye"))
    assert schema.eyes == (("LEye",), ("REye",))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_schema_from_names_of_built_in_schema_returns_it(schema: LandmarkSchema) -> None:
    assert schema_from_names("any", schema.names) is schema


def test_schema_from_names_in_another_order_keeps_the_order() -> None:
    schema = schema_from_names("mine", KAGGLE15.names[::-1])
    assert schema.names == KAGGLE15.names[::-1]
    assert {frozenset(pair) for pair in schema.flip_pairs} == {
        frozenset(pair) for pair in KAGGLE15.flip_pairs
    }


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["p3", "p1", "p2"], (1, 2, 0)),
        (["10", *map(str, range(10))], (*range(1, 11), 0)),
        (["1"], (0,)),
        (["p1", "P2"], (0, 1)),
        (["p1", "q2"], None),
        (["1", "3"], None),
        (["1", "01"], None),
        (["left_1", "left_2"], None),
        (["٣"], None),
        ([], None),
    ],
)
def test_order_by_number(names: list[str], order: tuple[int, ...] | None) -> None:
    assert order_by_number(names) == order


def test_numbers_of_five_landmarks_are_those_of_mtcnn() -> None:
    schema, _, (note,) = canonical_schema("any", [f"kp{i}" for i in range(5)])
    assert schema is MTCNN5
    assert "left_eye … mouth_right" in note


def test_schema_from_endless_name_raises_before_its_pairs_are_searched() -> None:
    with pytest.raises(UserError, match=r"schema face: the landmark name .* has 400,000 characters"):
        schema_from_names("face", ["a l " * 100_000])
