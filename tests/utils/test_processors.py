"""Work in threads: results in order, items taken lazily, errors passed on."""

from __future__ import annotations

import time

import pytest

from landmarks_fastai.utils import processors
from landmarks_fastai.utils.processors import available_processors, map_in_threads


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
