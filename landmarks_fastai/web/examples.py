"""The example photos and the example video that the page offers."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np

from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.visualization.saving import save_png

ASTRONAUT = Path(__file__).parents[2] / "docs" / "astronaut.jpg"
"""A photo in the public domain; in the repository, but not in the installed package."""


def example_photos(folder: Path) -> list[Path]:
    """Write the example photos to a folder, and return their paths.

    The synthetic ones are two photos of one face and one of two faces. `ASTRONAUT` is the first example, if
    it exists.
    """
    paths = [Path(shutil.copy(ASTRONAUT, folder))] if ASTRONAUT.is_file() else []
    for number, seeds in enumerate(((12,), (8,), (1, 17)), start=1):
        size = (480 // len(seeds), 400)
        paths.append(folder / f"synthetic {number}.png")
        save_png(paths[-1], np.hstack([draw_synthetic_photo(seed, size)[0] for seed in seeds]))
    return paths


def example_video(folder: Path) -> Path:
    """Write a video of two seconds in which the camera pans over a synthetic photo, and return its path."""
    from landmarks_fastai.video.writer import VideoWriter

    path, rate = folder / "synthetic.mp4", Fraction(25)
    image, _ = draw_synthetic_photo(12, (480, 360))
    with VideoWriter(path, (320, 320), rate, 1 / rate) as writer:
        for index in range(50):
            left, top = round(80 + 20 * np.sin(index / 8)), round(20 + 20 * np.cos(index / 5))
            writer.write(np.ascontiguousarray(image[top : top + 320, left : left + 320]), index / rate)
    return path
