"""Conversion of coordinates to the upright image, compared with the pixels of rotated images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from landmarks_fastai.data.formats.exif import box_to_upright, to_upright
from landmarks_fastai.utils.images import image_size, read_image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_to_upright_finds_the_same_pixels(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((5, 8), np.uint8)
    stored[1, 6] = 255
    stored[2:4, 1:4] = 100
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")[..., 0]
    size = image_size(tmp_path / "a.png")
    x, y = to_upright((6, 1), size, orientation)
    assert upright[int(y), int(x)] == 255
    x0, y0, x1, y1 = (int(edge) for edge in box_to_upright((1, 2, 4, 4), size, orientation))
    assert (upright[y0:y1, x0:x1] == 100).all()
    assert (x1 - x0) * (y1 - y0) == (upright == 100).sum() == 6
