"""Sizes that are refused before decoding, and files that need another library."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import image_formats
from landmarks_fastai.utils.image_formats import HAS_HEIF, MAX_PIXELS_BUFFERED, open_image
from landmarks_fastai.utils.images import image_size, read_image


def webp(kind: bytes, body: bytes) -> bytes:
    """Return a WebP with one chunk."""
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes.fromhex("07101111 8888fe07"))


def extended(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X", bytes(4) + size + bytes(8))


def lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(8))


@pytest.mark.parametrize("content", [lossless(14280, 16000), extended(24, 6_946_836), lossy(16383, 16383)])
def test_large_webp_is_refused_before_it_is_opened(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.webp"
    path.write_bytes(content)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Pillow opens the file, and allocates its canvas")

    monkeypatch.setattr(image_formats.Image, "open", refuse)
    with pytest.raises(UserError, match=r"bomb\.webp: more than 67 million pixels; reduce its size first"):
        read_image(path)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_size_in_header_of_webp_is_that_of_the_image(tmp_path: Path, lossless: bool, alpha: bool) -> None:
    path = tmp_path / "a.webp"
    Image.new("RGBA" if alpha else "RGB", (70, 33), (9, 8, 7, 100)[: 4 if alpha else 3]).save(
        path, lossless=lossless
    )
    assert image_formats._webp_size(path) == (70, 33) == image_size(path)


def test_webp_of_the_largest_size_is_opened(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "WEBP")
    (tmp_path / "a.webp").write_bytes(buffer.getvalue())
    assert read_image(tmp_path / "a.webp").shape == (64, 64, 3)
    assert MAX_PIXELS_BUFFERED == 8192**2


def tiff(tags: dict[int, int]) -> bytes:
    """Return a TIFF of 100 x 100 gray pixels, LZW, with further tags and 64 bytes of data."""
    tags = {256: 100, 257: 100, 258: 8, 259: 5, 262: 1, 277: 1} | tags
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4 + 64)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({322: 65536, 323: 65536, 324: 120, 325: 64}, "its tiles are larger than"),
        ({273: 120, 278: 2**32 - 1, 279: 2**32 - 1}, "data after its end"),
        ({322: 128, 323: 128, 324: 2**31, 325: 64}, "data after its end"),
    ],
)
def test_tiff_with_absurd_tags_is_refused(
    tmp_path: Path, tags: dict[int, int], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(tags))
    with pytest.raises(UserError, match=message):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_tiff_with_too_many_samples_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tif").write_bytes(tiff({277: 65535, 273: 120, 279: 64}))
    with pytest.raises(UserError, match="not an image"):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_tiled_and_multi_strip_tiff_are_read(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (300, 200), np.uint8)
    Image.fromarray(gray).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], gray)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def compressed_zeros(size: int) -> bytes:
    compressor = zlib.compressobj(9)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)) + compressor.flush()


@pytest.mark.parametrize(
    ("kind", "head"), [(b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")]
)
def test_png_with_metadata_that_expands_to_gigabytes_is_one_line(
    tmp_path: Path, kind: bytes, head: bytes
) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    bomb = chunk(kind, head + compressed_zeros(1 << 28))
    pixels = chunk(b"IDAT", zlib.compress(bytes(72))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + bomb + pixels)
    with pytest.raises(
        UserError, match=r"a\.png: damaged or truncated \(Decompressed data too large"
    ) as error:
        read_image(tmp_path / "a.png")
    assert len(str(error.value)) < len(str(tmp_path)) + 200


def test_exif_with_absurd_counts_and_loops_is_ignored(tmp_path: Path) -> None:
    entries = [(274, 3, 1, 3), (0x927C, 7, 0xFFFFFFF0, 8), (0x8769, 4, 1, 8)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 8)
    gradient = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(gradient).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], gradient[::-1, ::-1])


def test_gif_of_thousands_of_frames_is_read_up_to_the_first(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value % 256) for value in range(3000)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with open_image(tmp_path / "a.gif") as image:
        image.load()
        assert image.tell() == 0
    assert read_image(tmp_path / "a.gif").max() == 0


def test_jpeg_with_thousands_of_scans_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000), 90).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(content)
    assert read_image(tmp_path / "a.jpg").max() == 90
    scan = content[content.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(content[:-2] + 3000 * scan + content[-2:])
    with pytest.raises(UserError, match=r"a\.jpg: 3,00\d scans of 4 million pixels"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.skipif(HAS_HEIF, reason="pillow-heif is installed")
@pytest.mark.parametrize("name", ["a.heic", "renamed.jpg"])
def test_heic_without_library_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    with pytest.raises(UserError, match=r"install it: pip install 'landmarks-fastai\[heif\]'"):
        read_image(tmp_path / name)


@pytest.mark.skipif(not HAS_HEIF, reason="pillow-heif is not installed")
def test_heic_is_read_with_library(tmp_path: Path) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "a.HEIC", quality=95)
    pixels = read_image(tmp_path / "a.HEIC")
    assert pixels.shape == (40, 60, 3)
    np.testing.assert_allclose(pixels[20, 30], (200, 30, 30), atol=8)
