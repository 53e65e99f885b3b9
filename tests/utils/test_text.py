"""Text of messages: counts, suggestions, and quoted values of bounded length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarks_fastai.utils.text import format_count, quote, shorten, suggest


def test_format_count():
    assert (format_count(1, "face"), format_count(1200, "face")) == ("1 face", "1,200 faces")


@pytest.mark.parametrize(
    ("value", "quoted"),
    [("a", "'a'"), (1.5, "1.5"), ([1, "b"], "[1, 'b']"), ("a\nb", r"'a\nb'")],
)
def test_quote(value, quoted):
    assert quote(value) == quoted


def test_quote_value_without_text_is_its_type():
    assert quote(10**5000) == "<int>"
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert quote(deep) == "<list>"


@given(st.text(), st.integers(3, 80))
def test_quote_and_shorten_are_one_line_of_at_most_the_length(text, length):
    for short in (quote(text, length), shorten(text, length)):
        assert len(short) <= length
        assert len(short.splitlines()) <= 1


def test_shorten_keeps_both_ends():
    assert shorten("0123456789", 7) == "012…789"
    assert shorten("0123456789", 10) == "0123456789"


def test_suggest_is_short_for_long_words_and_lists():
    known = [f"name{index}" for index in range(1000)]
    assert len(suggest("x" * 100_000, known)) <= 210  # would take minutes if all the characters were compared
    assert suggest("name5 ", known) == "did you mean 'name5'?"
    assert suggest("x", ["b", "a"]) == "known: a, b"
