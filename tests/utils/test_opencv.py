"""The level of OpenCV's messages, whose functions moved in version 4.13."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import pytest

from landmarks_fastai.utils.opencv import ERRORS, has_windows, opencv_log_level


class Functions:
    """OpenCV's functions for the level of its messages."""

    def __init__(self) -> None:
        self.level = 3

    def getLogLevel(self) -> int:  # noqa: N802 - OpenCV's name
        return self.level

    def setLogLevel(self, level: int) -> int:  # noqa: N802 - OpenCV's name
        before, self.level = self.level, level
        return before


@pytest.mark.parametrize("moved", [False, True])
def test_opencv_log_level_is_restored_also_after_an_exception(moved: bool) -> None:
    functions = Functions()
    if moved:
        opencv = SimpleNamespace(utils=SimpleNamespace(logging=functions))
    else:
        opencv = functions
        opencv.utils = SimpleNamespace()
    levels = []
    with suppress(ZeroDivisionError), opencv_log_level(opencv, ERRORS):
        levels.append(functions.level)
        raise ZeroDivisionError
    assert [*levels, functions.level] == [ERRORS, 3]


@pytest.mark.parametrize(
    ("opencv", "expected"),
    [
        (SimpleNamespace(currentUIFramework=lambda: "QT5"), True),
        (SimpleNamespace(currentUIFramework=lambda: ""), False),
        (SimpleNamespace(getBuildInformation=lambda: "  GUI:                  QT5\n"), True),
        (SimpleNamespace(getBuildInformation=lambda: "  GUI:                  NONE\n"), False),
    ],
)
def test_has_windows_is_false_for_a_build_without_window_support(opencv, expected: bool) -> None:
    assert has_windows(opencv) is expected
