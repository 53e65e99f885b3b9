"""The eyes among landmark names: centers, pupils or corners of a face, and none for bodies and objects."""

from __future__ import annotations

import pytest

from landmarks_fastai.schemas.eyes import find_eyes
from landmarks_fastai.schemas.sides import find_pairs

FACE = ["nose", "left_mouth", "right_mouth"]


@pytest.mark.parametrize(
    ("names", "left", "right"),
    [
        (["left_eye", "right_eye", *FACE], ("left_eye",), ("right_eye",)),
        (["REye", "LEye", *FACE], ("LEye",), ("REye",)),
        (["lefteye", "righteye"], ("lefteye",), ("righteye",)),
        (["eye_l", "eye_r", "eyebrow_l", "eyebrow_r"], ("eye_l",), ("eye_r",)),
        (["pupilL", "pupilR", "eyeOuterL", "eyeOuterR"], ("pupilL",), ("pupilR",)),
        (
            ["left_eye_inner", "right_eye_inner", "left_eye_outer", "right_eye_outer"],
            ("left_eye_inner", "left_eye_outer"),
            ("right_eye_inner", "right_eye_outer"),
        ),
        (
            ["left_eye_center", "right_eye_center", "left_eye_inner", "right_eye_inner"],
            ("left_eye_center",),
            ("right_eye_center",),
        ),
        (["left_eye", "right_eye", "left_nose_wing", "right_nose_wing"], ("left_eye",), ("right_eye",)),
        (["left eyelid top", "right eyelid top", "left_eye", "right_eye"], ("left_eye",), ("right_eye",)),
    ],
)
def test_find_eyes_of_a_face(names: list[str], left: tuple[str, ...], right: tuple[str, ...]) -> None:
    assert find_eyes(names, find_pairs(names)) == (left, right)


@pytest.mark.parametrize(
    "names",
    [
        ["left_eyebrow", "right_eyebrow", "nose"],
        ["left_eye_brow", "right_eye_brow"],
        ["left_eyelash", "right_eyelash", "left_eyeglass", "right_eyeglass"],
        ["left_eye", "nose"],
        ["left_thumb", "right_thumb"],
        ["left_eye", "right_eye", "left_shoulder", "right_shoulder"],
        ["LEye", "REye", "tail_base"],
        ["left_eye", "right_eye", "left_wing", "right_wing"],
        ["left_keyeye", "right_keyeye"],
    ],
)
def test_find_eyes_of_anything_else_is_none(names: list[str]) -> None:
    assert find_eyes(names, find_pairs(names)) is None
