"""The alignment of crops with detected faces."""

from __future__ import annotations

import numpy as np

from landmarks_fastai.inference.detectors.base import CropAlignment


def test_alignment_places_crop_relative_to_face() -> None:
    # center 30 + 0.1 * 40, 40 - 0.2 * 40; side 1.5 * 40
    boxes = CropAlignment(0.1, -0.2, 1.5).boxes(np.array([[30.0, 40.0]]), np.array([40.0]))
    np.testing.assert_allclose(boxes, [[34 - 30, 32 - 30, 34 + 30, 32 + 30]])


def test_alignment_of_rotated_face_rotates_offset() -> None:
    # rotated by 90 degrees, right becomes down and down becomes left
    boxes = CropAlignment(0.1, -0.2, 1.5).boxes(np.array([[30.0, 40.0]]), np.array([40.0]), np.array([90.0]))
    np.testing.assert_allclose(boxes, [[38 - 30, 44 - 30, 38 + 30, 44 + 30]])
