"""Landmark schemas: validation, flip index, JSON round trip, schemas from column names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import IBUG68, KAGGLE15, SCHEMAS, LandmarkSchema, schema_from_names

HAND = LandmarkSchema(
    "hand",
    ("left_thumb", "wrist", "right_thumb"),
    flip_pairs=(("left_thumb", "right_thumb"),),
    skeleton=(("left_thumb", "wrist", "right_thumb"),),
    eyes=(("left_thumb",), ("right_thumb",)),
)


def test_schema_flip_index_swaps_pairs_and_keeps_others() -> None:
    assert len(HAND) == 3
    assert HAND.flip_index == (2, 1, 0)
    assert LandmarkSchema("line", ("a", "b")).flip_index == (0, 1)


def test_schema_indices_follow_given_names() -> None:
    assert HAND.indices(["right_thumb", "left_thumb"]) == (2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ()}, "schema test: at least one landmark is needed, and names must be unique"),
        (
            {"names": ("a", "b", "a")},
            "schema test: at least one landmark is needed, and names must be unique",
        ),
        ({"flip_pairs": (("a", "b"), ("b", "c"))}, "schema test: a landmark is in two flip pairs"),
        ({"flip_pairs": (("a", "a"),)}, "schema test: a landmark is in two flip pairs"),
        ({"flip_pairs": (("a", "d"),)}, "schema test: 'd' is not one of its landmarks"),
        ({"skeleton": (("a", "b", "e"),)}, "schema test: 'e' is not one of its landmarks"),
        ({"eyes": (("a",), ("f",))}, "schema test: 'f' is not one of its landmarks"),
    ],
)
def test_schema_with_invalid_names_raises(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        LandmarkSchema(**{"name": "test", "names": ("a", "b", "c"), **options})
    assert str(error.value) == message


@pytest.mark.parametrize("schema", [HAND, KAGGLE15, IBUG68, LandmarkSchema("plain", ("a",))])
def test_schema_from_dict_inverts_to_dict(schema: LandmarkSchema) -> None:
    entries = json.loads(json.dumps(schema.to_dict()))
    assert list(entries) == ["name", "names", "flip_pairs", "skeleton", "eyes"]
    assert LandmarkSchema.from_dict(entries) == schema


def test_schema_from_dict_without_optional_keys_uses_defaults() -> None:
    schema = LandmarkSchema.from_dict({"name": "plain", "names": ["a", "b"]})
    assert schema == LandmarkSchema("plain", ("a", "b"))


@pytest.mark.parametrize(
    "entries",
    [
        {"name": "a"},
        {"names": ["a"]},
        {"name": "a", "names": 3},
        {"name": "a", "names": ["a", "b"], "flip_pairs": [["a"]]},
        {"name": "a", "names": ["a", "b"], "skeleton": 1},
        {"name": "a", "names": ["a", "b"], "eyes": [["a"]]},
    ],
)
def test_schema_from_dict_with_missing_or_malformed_key_raises(entries: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        LandmarkSchema.from_dict(entries)
    message = "a schema needs name and names; flip_pairs, skeleton and eyes are optional: "
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left_thumb", "right_thumb", "wrist"], [("left_thumb", "right_thumb")]),
        (["thumb_l", "thumb_r"], [("thumb_l", "thumb_r")]),
        (["Left eye", "Right eye"], [("Left eye", "Right eye")]),
        (["L_HAND", "R_HAND"], [("L_HAND", "R_HAND")]),
        (["cleft", "cright"], []),
        (["left_eye", "nose"], []),
    ],
)
def test_schema_from_names_pairs_left_and_right(names: list[str], pairs: list[tuple[str, str]]) -> None:
    schema = schema_from_names("custom", names)
    assert schema.name == "custom"
    assert schema.names == tuple(names)
    assert list(schema.flip_pairs) == pairs


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_schema_from_names_of_built_in_schema_returns_it(schema: LandmarkSchema) -> None:
    assert schema_from_names("any", schema.names) is schema


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_built_in_schema_flip_exchanges_eyes(schema: LandmarkSchema) -> None:
    assert schema.eyes is not None
    left, right = (set(schema.indices(eye)) for eye in schema.eyes)
    assert {schema.flip_index[i] for i in left} == right
    assert not left & right
    assert [schema.flip_index[i] for i in schema.flip_index] == list(range(len(schema)))


def test_ibug68_unpaired_landmarks_are_on_center_line() -> None:
    unpaired = [i for i, j in enumerate(IBUG68.flip_index) if i == j]
    assert unpaired == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert len(IBUG68) == 68
