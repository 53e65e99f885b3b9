"""dlib's detector with a stand-in for the package: alignment, scores and suppression of overlaps."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from landmarks_fastai.inference.detectors.base import CropAlignment, Detector
from landmarks_fastai.inference.detectors.dlib import open_dlib


class Rectangle:
    """Stand-in for dlib's rectangle: right and bottom are the last column and row inside it."""

    def __init__(self, left: int, top: int, right: int, bottom: int) -> None:
        self.left, self.top = lambda: left, lambda: top
        self.right, self.bottom = lambda: right, lambda: bottom


def open_with_results(
    monkeypatch: pytest.MonkeyPatch,
    rectangles: list[Rectangle],
    distances: list[float],
    alignment: CropAlignment,
) -> Detector:
    """Open the detector with a stand-in for dlib that always returns the same results."""

    def run(image: NDArray[np.uint8], upsample: int, threshold: float) -> tuple[object, ...]:
        assert image.flags.c_contiguous  # dlib reads noise from other arrays
        return rectangles, distances, None

    package = SimpleNamespace(get_frontal_face_detector=lambda: SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "dlib", package)
    return open_dlib(Path("no/such/cache"), alignment=alignment)


def test_dlib_box_becomes_aligned_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    alignment = CropAlignment(0.1, -0.2, 1.5)
    detector = open_with_results(monkeypatch, [Rectangle(10, 20, 49, 59)], [0.0], alignment)
    detections = detector(np.zeros((100, 100, 3), np.uint8)[:, ::-1])
    np.testing.assert_allclose(detections.boxes, [[4, 2, 64, 62]])
    assert detections.scores.tolist() == [0.5]


def test_dlib_drops_overlapping_small_and_outside_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    rectangles = [
        Rectangle(10, 10, 59, 59),  # overlaps the next, which has a higher score
        Rectangle(15, 12, 64, 61),
        Rectangle(100, 10, 179, 89),  # does not overlap, and is larger
        Rectangle(70, 100, 84, 114),  # 15 px
        Rectangle(100, 100, 115, 115),  # 16 px
        Rectangle(-60, 10, -1, 69),  # outside the image
    ]
    distances = [1.0, 2.0, 0.1, 3.0, 0.2, 3.0]
    detector = open_with_results(monkeypatch, rectangles, distances, CropAlignment(0, 0, 1))
    detections = detector(np.zeros((200, 200, 3), np.uint8))
    assert detections.boxes.tolist() == [[100, 10, 180, 90], [15, 12, 65, 62], [100, 100, 116, 116]]
    np.testing.assert_allclose(detections.scores, 1 / (1 + np.exp([-0.1, -2.0, -0.2])))
