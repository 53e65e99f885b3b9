"""What a schema means for a run: mirroring is refused or said to be off, and missing eyes are said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from landmarks_fastai.config.options import AugmentConfig, NoAugment, OriginalAugment, StandardAugment
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import KAGGLE15, SCHEMAS
from landmarks_fastai.schemas.matching import infer_schema
from landmarks_fastai.training.schema_checks import (
    can_mirror,
    check_mirroring,
    describe_schema,
    without_flip,
)

PARTIAL = infer_schema("partial", ["left_eye", "right_eye", "leftMouth", "nose"])


def test_check_mirroring_names_landmark_without_partner_and_remedies() -> None:
    with pytest.raises(UserError) as error:
        check_mirroring(PARTIAL, StandardAugment())
    assert str(error.value) == (
        "augment.flip: the landmark 'leftMouth' says left or right, but has no partner that is exchanged with"
        " it in mirrored images; name its pair in a schema file (`data --schema-template` writes one,"
        " --schema uses it), rename it, or do not mirror images, with --set augment.flip=0"
    )


def test_check_mirroring_counts_other_landmarks_without_partner() -> None:
    schema = infer_schema("partial", ["left_eye", "leftMouth", "EyebrowRight"])
    with pytest.raises(UserError, match=r"the landmark 'left_eye' \(and 2 others\) says left or right"):
        check_mirroring(schema, StandardAugment())


@pytest.mark.parametrize("augment", [NoAugment(), OriginalAugment(), StandardAugment(flip=0)])
def test_check_mirroring_accepts_any_names_without_mirroring(augment: AugmentConfig) -> None:
    check_mirroring(PARTIAL, augment)


def test_check_mirroring_accepts_complete_pairs_and_midline() -> None:
    for schema in SCHEMAS.values():
        check_mirroring(schema, StandardAugment())
        assert can_mirror(schema)
    assert not can_mirror(PARTIAL)
    assert not can_mirror(LandmarkSchema("plain", ("a", "b")))
    declared = replace(PARTIAL, midline=("leftMouth",))
    check_mirroring(declared, StandardAugment())
    assert can_mirror(declared)


def test_describe_schema_of_face_says_nothing() -> None:
    assert describe_schema(KAGGLE15, StandardAugment()) == []
    assert describe_schema(KAGGLE15, StandardAugment(flip=0)) == []


def test_describe_schema_says_that_images_are_not_mirrored() -> None:
    assert describe_schema(PARTIAL, StandardAugment(flip=0)) == [
        "images are not mirrored (augment.flip is 0): 'leftMouth' has no partner"
    ]


@pytest.mark.parametrize(
    ("schema", "divisor"),
    [
        (LandmarkSchema("tool", ("a", "b")), "the box around them"),
        (
            LandmarkSchema("tool", ("a", "b"), normalizer=(("a",), ("b",))),
            "the distance that the schema names",
        ),
    ],
)
def test_describe_schema_without_eyes_says_what_is_used(schema: LandmarkSchema, divisor: str) -> None:
    (line,) = describe_schema(schema, NoAugment())
    assert line.startswith(f"no eyes among the landmarks: errors are normalized by {divisor}, and predict")


def test_without_flip_changes_nothing_else() -> None:
    assert without_flip(StandardAugment(rotate=3)) == StandardAugment(rotate=3, flip=0)
    assert without_flip(OriginalAugment()) == OriginalAugment()
