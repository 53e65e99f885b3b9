"""Videos and audio files are recognized by their content, and images are not mistaken for them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers.clips import write_gray_clip, write_wav
from PIL import Image

from landmarks_fastai.utils.media_files import media_kind


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.ts", "libx264"),
        ("a.mpg", "mpeg1video"),
        ("a.flv", "libx264"),
        ("a.wmv", "wmv2"),
    ],
)
def test_media_kind_of_video(tmp_path: Path, name: str, codec: str) -> None:
    path = write_gray_clip(tmp_path / name, 3, codec=codec)
    assert media_kind(path) == "video"
    assert media_kind(path.rename(tmp_path / "renamed.jpg")) == "video"


def test_media_kind_of_audio(tmp_path: Path) -> None:
    assert media_kind(write_wav(tmp_path / "a.wav")) == "audio"
    for name, content in (("a.mp3", b"ID3\4"), ("a.m4a", b"\0\0\0 ftypM4A "), ("a.mka", b"\x1a\x45\xdf\xa3")):
        (tmp_path / name).write_bytes(content + bytes(50))
        assert media_kind(tmp_path / name) == "audio"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_media_kind_of_image_or_text_is_none(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    for content in (buffer.getvalue(), b"", b"\0\0\0\x18ftypheic", b"notes"):
        (tmp_path / "a").write_bytes(content)
        assert media_kind(tmp_path / "a") is None
