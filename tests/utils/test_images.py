"""Reading image files of all formats and modes, error messages, and finding images."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, PngImagePlugin

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import gray_levels
from landmarks_fastai.utils.image_formats import HAS_AVIF, HAS_HEIF
from landmarks_fastai.utils.images import (
    exif_orientation,
    find_images,
    image_size,
    read_image,
    read_image_and_depth,
)

RED, WHITE = [255, 0, 0], [255, 255, 255]


def quadrants() -> Image.Image:
    """Return an image of 60 x 40 px with a red, green, blue and white quarter, without symmetry."""
    image = Image.new("RGB", (60, 40), "white")
    for color, corner in (("red", (0, 0)), ("lime", (30, 0)), ("blue", (0, 20))):
        image.paste(color, (*corner, corner[0] + 30, corner[1] + 20))
    return image


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif", "a.gif", "a.ppm", "A.JPG", "a.avif"]
)
def test_read_image_reads_format(tmp_path: Path, name: str) -> None:
    if name == "a.avif" and not HAS_AVIF:
        pytest.skip("Pillow reads no AVIF")
    quadrants().save(tmp_path / name, quality=95)
    pixels = read_image(tmp_path / name)
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[10, 10], RED, atol=12)
    np.testing.assert_allclose(pixels[30, 10], [0, 0, 255], atol=12)
    np.testing.assert_allclose(pixels[30, 50], WHITE, atol=12)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(
    ("orientation", "inverse"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_read_image_applies_exif_orientation(
    tmp_path: Path, suffix: str, orientation: int, inverse: Image.Transpose
) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    quadrants().transpose(inverse).save(path, exif=exif, quality=95)
    pixels = read_image(path)
    assert pixels.shape == (40, 60, 3)
    np.testing.assert_allclose(pixels[10, 10], RED, atol=12)
    np.testing.assert_allclose(pixels[10, 50], [0, 255, 0], atol=12)


def test_read_image_ignores_broken_exif(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    quadrants().save(buffer, "JPEG", quality=95)
    junk = b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"junk" * 8
    jpeg = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(
        jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + jpeg[2:]
    )
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[10, 10], RED, atol=12)


def test_read_image_ignores_unreadable_exif(tmp_path: Path) -> None:
    quadrants().save(tmp_path / "a.png", exif=b"Exif\0\0not EXIF data")
    assert read_image(tmp_path / "a.png")[10, 10].tolist() == RED


def test_read_image_applies_orientation_despite_broken_exif_entry(tmp_path: Path) -> None:
    # a resolution that is a text: Pillow's exif_transpose fails because it rewrites the EXIF data
    entries = struct.pack(">HHIHH", 274, 3, 1, 6, 0) + struct.pack(">HHI4s", 282, 2, 4, b"text")
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    quadrants().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png")[10, 10].tolist() == RED


def gray16(suffix: str, folder: Path) -> Path:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(folder / f"g.{suffix}")
    return folder / f"g.{suffix}"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_image_scales_16_bit_gray(tmp_path: Path, suffix: str) -> None:
    assert read_image(gray16(suffix, tmp_path))[0, :, 1].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize(
    ("highest", "depth"),
    [(200, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4080, 12), (16383, 14), (16384, None)],
)
def test_read_image_scales_16_bit_gray_by_bits_in_use(
    tmp_path: Path, suffix: str, highest: int, depth: int | None
) -> None:
    path = tmp_path / f"g.{suffix}"
    Image.fromarray(np.array([[0, highest // 2, highest]], np.uint16)).save(path)
    pixels, found = read_image_and_depth(path)
    white = 2 ** (depth or 16) - 1
    assert found == depth
    np.testing.assert_allclose(
        pixels[0, :, 1], [0, highest // 2 / white * 255, highest / white * 255], atol=0.51
    )


def test_read_image_leaves_black_16_bit_gray_black(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "g.png")
    pixels, depth = read_image_and_depth(tmp_path / "g.png")
    assert (pixels.max(), depth) == (0, None)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("shift", [0, 4])
def test_read_image_scales_16_bit_color_by_bits_in_use(tmp_path: Path, suffix: str, shift: int) -> None:
    levels = np.array([[[4095, 0, 0], [0, 2048, 100], [4095, 4095, 4095]]], np.uint16) << shift
    cv2.imwrite(str(tmp_path / f"c.{suffix}"), levels[..., ::-1])
    pixels, depth = read_image_and_depth(tmp_path / f"c.{suffix}")
    assert depth == (12 if shift == 0 else None)
    np.testing.assert_allclose(pixels[0], [[255, 0, 0], [0, 128, 6], [255, 255, 255]], atol=1)


def test_read_image_keeps_transparency_of_dark_16_bit_color(tmp_path: Path) -> None:
    levels = np.array([[[1000, 500, 0, 65535], [1000, 500, 0, 0]]], np.uint16)
    cv2.imwrite(str(tmp_path / "c.png"), levels[..., [2, 1, 0, 3]])
    pixels, depth = read_image_and_depth(tmp_path / "c.png")
    assert depth == 10
    assert pixels[0].tolist() == [[249, 125, 0], WHITE]


def test_read_image_converts_large_images_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gray_levels, "STRIP_PIXELS", 60 * 7)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    quadrants().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(quadrants()))
    levels = np.arange(60 * 40, dtype=np.uint16).reshape(40, 60)
    Image.fromarray(levels).save(tmp_path / "g.png")
    np.testing.assert_allclose(read_image(tmp_path / "g.png")[..., 0], levels / 4095 * 255, atol=0.51)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-5.0, 257.0, 65535.0], [0, 1, 255]),
    ],
)
def test_read_image_scales_float_gray_by_its_range(
    tmp_path: Path, values: list[float], expected: list[int]
) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "f.tif")
    assert read_image(tmp_path / "f.tif")[0, :, 0].tolist() == expected


def test_read_image_reads_32_bit_integers_as_16_bit_gray(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], np.int32)).save(tmp_path / "i.tif")
    assert read_image(tmp_path / "i.tif")[0, :, 2].tolist() == [0, 1, 255]


@pytest.mark.parametrize("value", [1e9, np.nan, np.inf])
def test_read_image_gray_beyond_16_bit_raises(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0, value]], np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match="8-bit or 16-bit"):
        read_image(tmp_path / "f.tif")


def test_read_image_shows_transparent_pixels_as_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (255, 0, 0, 255))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    rgba.save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "rgba.png")[0].tolist() == [WHITE, RED, [127, 127, 127]]

    Image.merge("LA", [Image.new("L", (2, 1), 40), Image.fromarray(np.array([[0, 255]], np.uint8))]).save(
        tmp_path / "la.png"
    )
    assert read_image(tmp_path / "la.png")[0].tolist() == [WHITE, [40, 40, 40]]

    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 255, 0, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png")[0].tolist() == [WHITE, RED]


def test_read_image_converts_palette_one_bit_gray_and_cmyk(tmp_path: Path) -> None:
    quadrants().quantize(8).save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png")[10, 10].tolist() == RED
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "1.png")
    assert read_image(tmp_path / "1.png")[0, :, 0].tolist() == [255, 0]
    Image.new("L", (2, 2), 77).save(tmp_path / "l.png")
    assert read_image(tmp_path / "l.png")[0, 0].tolist() == [77, 77, 77]
    quadrants().convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "c.jpg")[10, 10], RED, atol=12)


def test_read_image_reads_first_frame_of_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[0, 0].tolist() == RED


def huge_png(side: int) -> bytes:
    """Return a PNG of a few bytes whose header declares side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jpg", b"", "0 bytes"),
        (
            "notes.jpg",
            b"these are notes, not an image\n" * 20,
            "supported formats: JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, AVIF and HEIC",
        ),
        ("half.jpg", jpeg_bytes()[:3000], "truncated"),
        ("huge.png", huge_png(30_000), "178 million pixels"),
        ("large.png", huge_png(13_400), "178 million pixels"),
        ("sun.ras", b"\x59\xa6\x6a\x95" + bytes(40), "not an image"),
        ("clip.mp4", b"\0\0\0\x20ftypisom" + bytes(40), "a video, not an image; use the video command"),
        ("song.mp3", b"ID3" + bytes(40), "an audio file, not an image"),
    ],
)
def test_read_image_bad_file_raises_one_line_message(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=message) as error:
            read_image(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_read_image_truncated_file_raises(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"half.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"half\.{suffix}: damaged or truncated"):
        read_image(path)


def test_read_image_missing_file_or_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jpg: no such file"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match="a folder, not an image"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png", "\ud800" * 3000])
def test_read_image_name_that_no_file_can_have_raises_one_short_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no file can have this name") as error:
        read_image(tmp_path / name)
    str(error.value).encode()  # can be printed
    assert len(str(error.value)) < 150


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "album").mkdir(parents=True)
    for name in ("10.jpg", "2.JPG", "1.png", "notes.txt", ".hidden.jpg", "album/3.jpg", "face [1].jpg"):
        (folder / name).write_bytes(b"x")
    return folder


def test_find_images_lists_folder_in_natural_order(images: Path) -> None:
    assert [path.name for path in find_images([images])] == ["1.png", "2.JPG", "10.jpg", "face [1].jpg"]


def test_find_images_expands_globs_and_removes_duplicates(images: Path) -> None:
    assert [path.name for path in find_images([f"{images}/*.jpg"])] == ["10.jpg", "face [1].jpg"]
    assert [path.name for path in find_images([f"{images}/**/*.jpg"])] == ["10.jpg", "3.jpg", "face [1].jpg"]
    assert find_images([str(images / "face [1].jpg")]) == [images / "face [1].jpg"]
    arguments = [
        str(images / "10.jpg"),
        str(images),
        str(images / "album" / ".." / "10.jpg"),
        str(images / "notes.txt"),
    ]
    assert [path.name for path in find_images(arguments)] == [
        "10.jpg",
        "1.png",
        "2.JPG",
        "face [1].jpg",
        "notes.txt",
    ]


def test_find_images_reports_skipped_files(images: Path) -> None:
    for name in ("a.HEIC" if not HAS_HEIF else "a.webm", "clip.MP4", "song.mp3", "no suffix"):
        (images / name).write_bytes(b"x")
    notes: list[str] = []
    assert len(find_images([images], notes.append)) == 4
    (note,) = notes
    assert note.startswith(f"{images}: 5 files skipped: ")
    assert all(part in note for part in (".txt (1)", ".mp4 (1)", ".mp3 (1)", "no suffix (1)"))
    assert note.endswith("; videos are for the video command")
    assert HAS_HEIF or "pip install 'landmarks-fastai[heif]'" in note
    notes.clear()
    find_images([f"{images}/*.jpg", images / "2.JPG"], notes.append)
    assert notes == []


def test_find_images_names_what_a_folder_without_images_contains(images: Path) -> None:
    (images / "album" / "3.jpg").unlink()
    (images / "album" / "clip.mkv").touch()
    with pytest.raises(
        UserError, match=r"no images directly in this folder; 1 file skipped: \.mkv \(1\); videos"
    ):
        find_images([images / "album"])


def test_find_images_ignores_named_files(images: Path) -> None:
    notes: list[str] = []
    find_images([images], notes.append, ignore=("notes.txt",))
    assert notes == []


def test_find_images_argument_without_images_raises(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for argument, message in (
        (tmp_path / "empty", "empty: no images directly in this folder"),
        (f"{images}/*.bmp", r"\*\.bmp: no image matches"),
        ("missing.jpg", "missing.jpg: no such file or folder"),
    ):
        with pytest.raises(UserError, match=message):
            find_images([images, argument])
    with pytest.raises(UserError, match="no images given"):
        find_images([])


@pytest.mark.parametrize(("orientation", "size"), [(1, (7, 4)), (3, (7, 4)), (6, (4, 7)), (8, (4, 7))])
def test_image_size_is_that_of_the_upright_image(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (7, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == size == read_image(tmp_path / "a.jpg").shape[1::-1]
    (tmp_path / "b.jpg").write_text("text")
    with pytest.raises(UserError, match=r"b\.jpg: not an image"):
        image_size(tmp_path / "b.jpg")


def rotated_png(metadata: str) -> bytes:
    """Return a PNG of 7 x 4 px with EXIF orientation 6, at the start, at the end, as text or as XMP."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    text = PngImagePlugin.PngInfo()
    if metadata == "xmp":
        text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    if metadata == "text":
        text.add_text("Raw profile type exif", "\nexif\n 26\n" + (b"Exif\0\0" + exif.tobytes()[6:]).hex())
    quadrants().resize((7, 4)).save(
        buffer, "PNG", exif=exif if metadata in ("start", "end") else None, pnginfo=text
    )
    png = buffer.getvalue()
    if metadata == "end":
        start = png.index(b"eXIf") - 4
        end = start + 12 + struct.unpack(">I", png[start : start + 4])[0]
        png = png[:start] + png[end:-12] + png[start:end] + png[-12:]
    return png


@pytest.mark.parametrize("metadata", ["start", "end", "text", "xmp"])
def test_image_size_finds_orientation_of_png(tmp_path: Path, metadata: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(rotated_png(metadata))
    assert image_size(path) == (4, 7) == read_image(path).shape[1::-1]
    assert exif_orientation(path) == 6


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_image_size_decodes_no_pixels(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{suffix}"
    quadrants().save(path)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    quadrants().save(tmp_path / "rotated.png", exif=exif)

    def load(image: Image.Image) -> None:
        raise AssertionError("the pixels are decoded")

    for kind in (PngImagePlugin.PngImageFile, type(Image.open(path)), ImageFile.ImageFile):
        monkeypatch.setattr(kind, "load", load)
    assert image_size(path) == (60, 40)
    assert exif_orientation(path) == 1
    assert exif_orientation(tmp_path / "rotated.png") == 3
