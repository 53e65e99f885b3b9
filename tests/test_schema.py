"""Landmark schemas: validation, flip index, distance groups, JSON round trip."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import MAX_LANDMARKS, MAX_NAME, LandmarkSchema
from landmarks_fastai.schemas import IBUG68, KAGGLE15

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
        (
            {"names": ("a", "x" * 201)},
            f"schema test: the landmark name '{'x' * 29}…{'x' * 28}' has 201 characters; shorten it to at"
            " most 200",
        ),
        (
            {"names": tuple(map(str, range(10_001)))},
            "schema test: 10,001 landmarks; at most 10,000",
        ),
        ({"flip_pairs": (("a", "b"), ("b", "c"))}, "schema test: a landmark is in two flip pairs"),
        ({"flip_pairs": (("a", "a"),)}, "schema test: a landmark is in two flip pairs"),
        ({"flip_pairs": (("a", "d"),)}, "schema test: 'd' is not one of its landmarks"),
        ({"skeleton": (("a", "b", "e"),)}, "schema test: 'e' is not one of its landmarks"),
        ({"eyes": (("a",), ("f",))}, "schema test: 'f' is not one of its landmarks"),
        ({"normalizer": (("a",), ("f",))}, "schema test: 'f' is not one of its landmarks"),
        ({"midline": ("f",)}, "schema test: 'f' is not one of its landmarks"),
        (
            {"flip_pairs": (("a", "b"),), "midline": ("a",)},
            "schema test: a landmark is in a flip pair and in midline",
        ),
        ({"normalizer": ((), ("a",))}, "schema test: a group of landmarks is empty"),
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


def test_schema_with_normalizer_and_midline_survives_json() -> None:
    schema = LandmarkSchema("tool", ("tip", "end", "right_angle"), normalizer=(("tip",), ("end",)))
    schema = replace(schema, midline=("right_angle",))
    entries = json.loads(json.dumps(schema.to_dict()))
    assert entries["normalizer"] == [["tip"], ["end"]]
    assert entries["midline"] == ["right_angle"]
    assert LandmarkSchema.from_dict(entries) == schema


def test_schema_from_dict_takes_name_for_group_of_one() -> None:
    schema = LandmarkSchema.from_dict({"name": "n", "names": ["ab", "c"], "normalizer": ["ab", ["c"]]})
    assert schema.normalizer == (("ab",), ("c",))


def test_schema_distance_groups_prefer_normalizer_to_eyes() -> None:
    assert LandmarkSchema("plain", ("a", "b")).distance_groups is None
    assert HAND.distance_groups == (("left_thumb",), ("right_thumb",))
    assert replace(HAND, normalizer=(("wrist",), ("left_thumb",))).distance_groups == (
        ("wrist",),
        ("left_thumb",),
    )


def test_schema_with_long_texts_raises_short_message() -> None:
    with pytest.raises(UserError) as error:
        LandmarkSchema("n" * 5000, ("a",), eyes=(("b" * 5000,), ("a",)))
    assert len(str(error.value)) < 200
    with pytest.raises(UserError) as error:
        LandmarkSchema.from_dict({"name": "n", "names": ["a"], "flip_pairs": [["x" * 5000]]})
    assert len(str(error.value)) < 250


def test_schema_accepts_the_longest_names_and_the_most_landmarks() -> None:
    assert len(LandmarkSchema("long", ("a" * MAX_NAME, "b"))) == 2
    with pytest.raises(UserError, match="shorten it to at most 200"):
        LandmarkSchema("long", ("a" * (MAX_NAME + 1), "b"))
    names = tuple(map(str, range(MAX_LANDMARKS)))
    assert len(LandmarkSchema("many", names)) == 10_000
    with pytest.raises(UserError, match="10,001 landmarks; at most 10,000"):
        LandmarkSchema("many", (*names, "more"))
