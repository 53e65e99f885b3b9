"""Left and right in landmark names: every spelling is paired, other words are not, and the rest is named."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas.sides import find_pairs, unpaired_names

PARTS = ("eye", "mouth", "ear", "eyebrow", "cheek", "nostril", "pupil", "fin", "gill", "handle", "antenna")

SPELLINGS = {
    "left_eye": lambda side, part: f"{side}_{part}",
    "eye_left": lambda side, part: f"{part}_{side}",
    "leftEye": lambda side, part: f"{side}{part.title()}",
    "LeftEye": lambda side, part: f"{side.title()}{part.title()}",
    "EyeLeft": lambda side, part: f"{part.title()}{side.title()}",
    "LEFT_EYE": lambda side, part: f"{side}_{part}".upper(),
    "LEye": lambda side, part: f"{side[0].upper()}{part.title()}",
    "l_eye": lambda side, part: f"{side[0]}_{part}",
    "eye_l": lambda side, part: f"{part}_{side[0]}",
    "eyeL": lambda side, part: f"{part}{side[0].upper()}",
    "EyeL": lambda side, part: f"{part.title()}{side[0].upper()}",
    "l-eye": lambda side, part: f"{side[0]}-{part}",
    "lefteye": lambda side, part: f"{side}{part}",
    "LEFTEYE": lambda side, part: f"{side}{part}".upper(),
    "eyeleft": lambda side, part: f"{part}{side}",
    "eye left": lambda side, part: f"{part} {side}",
    "Left eye": lambda side, part: f"{side.title()} {part}",
    "L.Eye": lambda side, part: f"{side[0].upper()}.{part.title()}",
    "Eye.L": lambda side, part: f"{part.title()}.{side[0].upper()}",
    "eye(left)": lambda side, part: f"{part}({side})",
    "L_EYE": lambda side, part: f"{side[0]}_{part}".upper(),
    "eye_l_1": lambda side, part: f"{part}_{side[0]}_1",
    "eyeL2": lambda side, part: f"{part}{side[0].upper()}2",
    "eye1L": lambda side, part: f"{part}1{side[0].upper()}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=15)
@given(parts=st.sets(st.sampled_from(PARTS), min_size=1), data=st.data())
def test_find_pairs_finds_all_pairs_of_a_spelling(
    spelling: str, parts: set[str], data: st.DataObject
) -> None:
    spell = SPELLINGS[spelling]
    expected = {(spell("left", part), spell("right", part)) for part in parts}
    names = data.draw(st.permutations([*(name for pair in expected for name in pair), "nose", "chin"]))
    pairs = find_pairs(names)
    assert set(pairs) == expected
    assert [names.index(left) for left, _ in pairs] == sorted(names.index(left) for left, _ in pairs)
    assert unpaired_names(LandmarkSchema("any", tuple(names), flip_pairs=pairs)) == ()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_unpaired_names_names_landmark_without_partner(spelling: str) -> None:
    spell = SPELLINGS[spelling]
    names = (spell("left", "eye"), spell("right", "eye"), spell("right", "mouth"), "nose")
    schema = LandmarkSchema("any", names, flip_pairs=find_pairs(names))
    assert unpaired_names(schema) == (spell("right", "mouth"),)


@given(st.lists(st.text(alphabet="lLrR_ .-aeft1", min_size=1, max_size=9), unique=True, max_size=12))
def test_find_pairs_gives_disjoint_pairs_of_any_names(names: list[str]) -> None:
    paired = [name for pair in find_pairs(names) for name in pair]
    assert len(set(paired)) == len(paired)
    assert set(paired) <= set(names)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["leftEye", "right_eye"], [("leftEye", "right_eye")]),
        (["LEFT_eye", "right_eye"], [("LEFT_eye", "right_eye")]),
        (
            ["LeftBrowLeftCorner", "LeftBrowRightCorner", "RightBrowLeftCorner", "RightBrowRightCorner"],
            [("LeftBrowLeftCorner", "RightBrowRightCorner"), ("LeftBrowRightCorner", "RightBrowLeftCorner")],
        ),
        (
            ["left_eye", "right_eye", "leftEye", "rightEye"],
            [("left_eye", "right_eye"), ("leftEye", "rightEye")],
        ),
        (["eye_l", "eye_r", "eye_t", "eye_b", "eye_c"], [("eye_l", "eye_r")]),
        (["lshoulder", "rshoulder", "kneel", "kneer"], [("lshoulder", "rshoulder"), ("kneel", "kneer")]),
        (["LF_paw", "RF_paw", "LH_paw", "RH_paw"], [("LF_paw", "RF_paw"), ("LH_paw", "RH_paw")]),
        (["topleft", "topright"], [("topleft", "topright")]),
        (["l", "r", "c"], [("l", "r")]),
        (["left_f_wheel", "left_r_wheel", "right_f_wheel", "right_r_wheel"],
         [("left_f_wheel", "right_f_wheel"), ("left_r_wheel", "right_r_wheel")]),
        (["left_angle_of_jaw", "right_angle_of_jaw"], [("left_angle_of_jaw", "right_angle_of_jaw")]),
        (["cleft", "cright"], []),
        (["bright", "bleft"], []),
        (["lip", "rip"], []),
        (["lead", "read"], []),
        (["left_eye", "right_ear"], []),
    ],
)  # fmt: skip
def test_find_pairs_of_names(names: list[str], pairs: list[tuple[str, str]]) -> None:
    assert list(find_pairs(names)) == pairs


@pytest.mark.parametrize("template", ["{}", "point_{}", "point {}", "P{}", "{}1", "marker-{}"])
@pytest.mark.parametrize("letters", [string.ascii_lowercase, string.ascii_uppercase, "klmnopqrs", "abclr"])
def test_letters_that_count_are_no_sides(template: str, letters: str) -> None:
    names = tuple(template.format(letter) for letter in letters)
    assert find_pairs(names) == ()
    assert unpaired_names(LandmarkSchema("any", names)) == ()


@pytest.mark.parametrize(
    "name",
    ["cleft", "bright_spot", "upright", "right_angle", "RightAngle", "copyright", "lobe", "r", "tail_l"],
)
def test_unpaired_names_ignores_words_that_are_no_sides(name: str) -> None:
    assert unpaired_names(LandmarkSchema("any", (name, "nose"))) == ()


def test_unpaired_names_ignores_midline_and_letters_of_another_spelling() -> None:
    pairs = (("eye_l", "eye_r"),)
    names = ("eye_l", "eye_r", "L_tag", "left_of_center", "weight_lb")
    assert unpaired_names(LandmarkSchema("any", names, pairs)) == ("left_of_center",)
    assert unpaired_names(LandmarkSchema("any", names, pairs, midline=("left_of_center",))) == ()


def test_unpaired_names_reports_both_of_a_pair_that_a_schema_leaves_out() -> None:
    assert unpaired_names(LandmarkSchema("any", ("left_eye", "right_eye"))) == ("left_eye", "right_eye")


ATTACHED = (
    "ankle brow canthus cheek ear elbow eye eyebrow foot hand hip jaw knee lip mouth nostril paw pupil"
    " shoulder temple toe wrist"
)
"""Words of anatomy to which the letter of a side may be attached."""


@pytest.mark.parametrize("word", ATTACHED.split())
def test_letter_attached_to_anatomy_is_a_side(word: str) -> None:
    assert find_pairs([f"l{word}", f"r{word}"]) == ((f"l{word}", f"r{word}"),)
    assert find_pairs([f"{word}l", f"{word}r"]) == ((f"{word}l", f"{word}r"),)


@pytest.mark.parametrize(
    ("left", "right"),
    [("left", "right"), ("lft", "rgt"), ("lt", "rt"), ("lf", "rf"), ("lh", "rh"), ("lb", "rb")],
)
def test_each_abbreviation_is_a_side(left: str, right: str) -> None:
    assert find_pairs([f"{right}_paw", f"{left}_paw"]) == ((f"{left}_paw", f"{right}_paw"),)


WITHOUT_SIDE = (
    "alright aright birthright bright brighter cleft copyright downright forthright fright leftover leftovers"
    " outright playwright righteous rightly rights upright wright"
)


@pytest.mark.parametrize("word", WITHOUT_SIDE.split())
def test_word_that_contains_a_side_is_no_side(word: str) -> None:
    assert unpaired_names(LandmarkSchema("any", (word, f"{word}_tip"))) == ()


@pytest.mark.parametrize(
    "pairs",
    [
        [("left_eye", "right_eye"), ("left_EYE", "right_EYE")],
        [("left_eye", "right_eye"), ("Left_eye", "Right_eye")],
        [("left_eye", "right_eye"), ("LEFT_eye", "RIGHT_eye")],
        [("eye_left", "eye_right"), ("eye.left", "eye.right")],
    ],
)
def test_find_pairs_of_names_that_differ_in_spelling_only(pairs: list[tuple[str, str]]) -> None:
    names = [pair[side] for side in (1, 0) for pair in pairs]
    assert find_pairs(names) == tuple(pairs)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("leye", "r_eye"),  # sides that are spelled in two ways
        ("eyel", "eye_r"),
        ("myleft", "myright"),  # the shortest words that contain a side
        ("leftup", "rightup"),
    ],
)
def test_find_pairs_of_attached_sides(left: str, right: str) -> None:
    assert find_pairs([left, right]) == ((left, right),)
