"""Archives of small JPEGs with one synthetic face each, as many as needed under different names."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.inference.detectors.base import Detector

FACES = 50
"""Number of different pictures."""

CANDIDATES = 400
"""Number of faces that are drawn; those in which the detector finds one face are used."""

WIDTH, HEIGHT, SIDE = 320, 240, 200
"""Size of a picture, and of the face in it, in pixels."""


def encoded_faces(detector: Detector) -> list[bytes]:
    """Return pictures with one face that the detector finds, as JPEG."""
    faces: list[bytes] = []
    for image in draw_synthetic_faces(CANDIDATES, seed=0, size=SIDE).images:
        picture = _picture(image)
        if len(detector(picture).boxes) == 1:
            content = io.BytesIO()
            Image.fromarray(picture).save(content, "JPEG", quality=90)
            faces.append(content.getvalue())
        if len(faces) == FACES:
            break
    return faces


def _picture(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a color picture with a face in its center, whose border is repeated to the edges."""
    rows, columns = (HEIGHT - SIDE) // 2, (WIDTH - SIDE) // 2
    padded = np.pad(face[..., 0], ((rows, rows), (columns, columns)), "edge")
    return np.stack([padded, padded, 255 - (255 - padded) // 2], axis=-1)


def write_tar(path: Path, faces: list[bytes], count: int) -> None:
    """Write a tar of `count` pictures: `faces`, repeated under other names."""
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            content = faces[number % len(faces)]
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
