"""Images in memory are read like those in files, with the same limits and messages."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import image_formats
from landmarks_fastai.utils.encoded_files import EncodedFile
from landmarks_fastai.utils.images import read_image_and_depth


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def both(path: Path, data: bytes) -> list[object]:
    """Return what reading the file and its content in memory gives: pixels and depth, or the message."""
    path.write_bytes(data)
    results: list[object] = []
    for file in (path, EncodedFile(str(path), data)):
        try:
            pixels, depth = read_image_and_depth(file)
            results.append((pixels.tolist(), depth))
        except UserError as error:
            results.append(str(error))
    return results


def upright_png() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encode(Image.new("RGB", (6, 4), "red"), "PNG", exif=exif)


def deep_gray() -> bytes:
    return encode(Image.fromarray(np.arange(0, 1200, 100, dtype=np.uint16).reshape(3, 4)), "PNG")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", encode(Image.new("RGB", (6, 4), "red"), "JPEG")),
        ("a.png", upright_png()),
        ("a.webp", encode(Image.new("RGB", (6, 4), "red"), "WEBP")),
        ("a.tif", encode(Image.new("RGB", (6, 4), "red"), "TIFF")),
        ("deep.png", deep_gray()),
        ("empty.jpg", b""),
        ("text.jpg", b"no image"),
        ("truncated.jpg", encode(Image.effect_noise((60, 40), 50), "JPEG")[:900]),
        ("video.jpg", b"\x00\x00\x00\x18ftypmp42" + bytes(300)),
    ],
)
def test_encoded_file_is_read_like_file(tmp_path: Path, name: str, data: bytes) -> None:
    from_path, from_memory = both(tmp_path / name, data)
    assert from_memory == from_path


def test_large_encoded_image_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats, "MAX_PIXELS", 20)
    data = encode(Image.new("RGB", (6, 4)), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"^b\.tar/a\.png: more than"):
        read_image_and_depth(EncodedFile("b.tar/a.png", data))
