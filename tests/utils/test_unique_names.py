"""Names of new files are unique on every file system, and are found in linear time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.utils import unique_names
from landmarks_fastai.utils.unique_names import UniqueNames, fold_name

SIMILAR = ["a", "A", "a-2", "A-2", "a-2-2", "a-3", "b", "e\u0301", "\u00e9", "ß", "SS"]
NAMES = st.lists(st.sampled_from(SIMILAR))


@given(names=NAMES, used=NAMES)
def test_names_are_unique_whatever_the_case(names: list[str], used: list[str]) -> None:
    unique = UniqueNames(used=used)
    given_names = [unique(name) for name in names]
    folded = [fold_name(name) for name in given_names]
    assert len(set(folded)) == len(folded)
    assert not set(folded) & {fold_name(name) for name in used}
    for name, result in zip(names, given_names, strict=True):
        assert result.startswith(name)
        assert result == name or result.removeprefix(name)[1:].isdecimal()


def test_equal_names_are_numbered_in_order() -> None:
    unique = UniqueNames("_")
    assert [unique(name) for name in ("face", "face", "Face", "face_2", "face")] == [
        "face",
        "face_2",
        "Face_3",
        "face_2_2",
        "face_4",
    ]


def test_names_that_are_not_free_are_skipped() -> None:
    unique = UniqueNames(is_free=lambda name: name not in ("a", "a-2", "a-4"))
    assert [unique("a"), unique("a")] == ["a-3", "a-5"]


def test_number_of_attempts_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    def count(name: str) -> str:
        nonlocal attempts
        attempts += 1
        return fold_name(name)

    monkeypatch.setattr(unique_names, "fold_name", count)
    unique = UniqueNames()
    names = ["face"] * 5_000 + [f"face-{number}" for number in range(5_000)] + ["FACE"] * 5_000
    assert len({unique(name) for name in names}) == len(names)
    assert attempts <= 4 * len(names)
