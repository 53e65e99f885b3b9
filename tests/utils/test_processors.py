"""Work in threads: results in order, items taken lazily, errors passed on."""

from __future__ import annotations

import threading
import time

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import processors
from landmarks_fastai.utils.processors import (
    SPIN_VARIABLE,
    available_processors,
    limit_spinning,
    map_in_threads,
    read_ahead,
)


def test_available_processors_is_positive():
    assert available_processors() >= 1


@pytest.mark.parametrize("workers", [1, 3])
def test_map_in_threads_yields_results_in_order_and_takes_items_lazily(monkeypatch, workers):
    monkeypatch.setattr(processors, "available_processors", lambda: workers)
    taken: list[int] = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    def square(item: int) -> int:
        time.sleep(0.002 if item % 3 else 0)  # later items finish first
        return item * item

    results = []
    for result in map_in_threads(square, items(), per_processor=2):
        results.append(result)
        assert len(taken) <= len(results) + 2 * workers
    assert results == [item * item for item in range(20)]
    assert list(map_in_threads(square, [])) == []


def test_map_in_threads_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda item: 1 // item, [1, 0, 2]))


def test_map_in_threads_closed_early_drops_items_that_were_not_begun(monkeypatch):
    monkeypatch.setattr(processors, "available_processors", lambda: 1)
    begun: list[int] = []

    def begin(item: int) -> int:
        begun.append(item)
        time.sleep(0.02)
        return item

    results = map_in_threads(begin, range(100), per_processor=10)
    assert next(results) == 0
    results.close()
    assert len(begun) < 5


def test_read_ahead_yields_all_items_in_order_and_bounds_how_many_wait():
    taken: list[int] = []

    def items():
        for item in range(30):
            taken.append(item)
            yield item

    received = []
    for item in read_ahead(items(), count=3):
        received.append(item)
        time.sleep(0.001)
        assert len(taken) <= len(received) + 3
    assert received == list(range(30))
    assert list(read_ahead([None, None])) == [None, None]


def test_read_ahead_iterates_in_another_thread_while_the_caller_works():
    def items():
        for _ in range(2):
            yield threading.get_ident()

    assert set(read_ahead(items())) != {threading.get_ident()}


def test_read_ahead_raises_after_the_items_before_the_error():
    def items():
        yield 1
        yield 2
        raise ZeroDivisionError

    ahead = read_ahead(items(), count=5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_read_ahead_closed_early_no_longer_uses_the_iterable():
    in_use: list[bool] = []

    def items():
        while True:
            in_use.append(True)
            time.sleep(0.01)
            in_use.append(False)
            yield len(in_use)

    ahead = read_ahead(items(), count=2)
    next(ahead)
    ahead.close()
    assert not in_use[-1]
    count = len(in_use)
    time.sleep(0.03)
    assert len(in_use) == count


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "8000"), ({SPIN_VARIABLE: "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_limit_spinning_keeps_the_choice_of_the_user(monkeypatch, chosen, expected):
    monkeypatch.setattr(processors.os, "environ", dict(chosen))
    limit_spinning()
    assert processors.os.environ.get(SPIN_VARIABLE) == expected


def test_variable_limits_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_allowed_processors", lambda: 8)
    for text, expected in (("3", 3), ("9", 8)):
        monkeypatch.setenv(processors.PROCESSORS_VARIABLE, text)
        assert available_processors() == expected


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1.5"])
def test_wrong_limit_of_processors_is_reported(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(processors.PROCESSORS_VARIABLE, text)
    with pytest.raises(UserError, match=f"LANDMARKS_FASTAI_PROCESSORS={text}: must be a number"):
        available_processors()
