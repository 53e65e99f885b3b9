"""Formats of image files: which are read, their suffixes, and the sizes that are refused before decoding."""

from __future__ import annotations

import logging
import struct
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.encoded_files import EncodedFile
from landmarks_fastai.utils.media_files import AVIF_BRANDS, HEIF_BRANDS

HAS_AVIF = find_spec("PIL._avif") is not None
"""Whether Pillow reads AVIF: from version 11.3 on."""

HAS_HEIF = find_spec("pillow_heif") is not None
"""Whether the optional package that reads HEIC, the format of phones, is installed."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"),
    *(("AVIF",) if HAS_AVIF else ()),
    *(("HEIF",) if HAS_HEIF else ()),
)
"""Pillow's names of the formats that are read."""

AVIF_SUFFIXES, HEIF_SUFFIXES = frozenset({".avif"}), frozenset({".heic", ".heif", ".hif"})
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
        *(AVIF_SUFFIXES if HAS_AVIF else ()),
        *(HEIF_SUFFIXES if HAS_HEIF else ()),
    }
)
SUPPORTED = "supported formats: JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, AVIF and HEIC"

HEIF_REMEDY = "HEIC is read with pillow-heif; install it: pip install 'landmarks-fastai[heif]'"
AVIF_REMEDY = "AVIF is read with Pillow 11.3 or later; install it: pip install -U pillow"

MAX_PIXELS = 178_956_970
"""Larger images are refused without decoding them. The limit of Pillow's protection against decompression
bombs. Reading such an image takes 1.3 GB, at 4 bytes per pixel in Pillow and 3 in the result."""

MAX_PIXELS_BUFFERED = 8192 * 8192
"""The limit for formats whose decoder keeps copies of the whole image. A WebP takes 19 bytes per pixel: two
canvases of 4 bytes, a copy, Pillow's image and the result."""

BUFFERED_FORMATS = frozenset({"WEBP", "AVIF", "HEIF"})

MAX_SCANNED = 24 * MAX_PIXELS
"""Pixels times scans of a JPEG. Each of a progressive JPEG's scans, usually 10, costs time for every pixel,
and thousands of empty ones fit into a small file."""

START_OF_SCAN = b"\xff\xda"
"""Marker of a scan of a JPEG; in the coded data, 0xFF is always followed by 0."""

TILE_WIDTH, TILE_LENGTH = 322, 323
TIFF_DATA = ((273, 279), (324, 325))
"""Tags of TIFF files: the size of tiles, and the offsets and sizes of strips and tiles (TIFF 6.0)."""


def open_image(path: Path | EncodedFile) -> Image.Image:
    """Open an image without decoding it, after its declared size was checked.

    Raises
    ------
    UserError
        If it has more than `MAX_PIXELS` or `MAX_PIXELS_BUFFERED` pixels, whichever applies to its format.
    Exception
        What Pillow raises: `UnidentifiedImageError` and many others.
    """
    webp_size = _webp_size(path)
    if webp_size is not None:  # opening a WebP already allocates two images of its size
        _check_size(path, "WEBP", webp_size)
    logger = logging.getLogger("PIL")
    if not logger.handlers:  # what Pillow logs about damaged files would be printed
        logger.addHandler(logging.NullHandler())
    if HAS_HEIF:
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        image = Image.open(path if isinstance(path, Path) else path.open(), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _too_large(path, MAX_PIXELS) from None
    try:
        _check_size(path, image.format, image.size)
        if image.format == "TIFF":
            _check_tiff(path, image)
        elif image.format == "JPEG":
            _check_scans(path, image.width * image.height)
    except BaseException:
        image.close()
        raise
    return image


def missing_library(path: Path | EncodedFile) -> str | None:
    """Return how to install the library that reads a file, if the file's content or suffix needs one."""
    with path.open("rb") as file:
        header = file.read(12)
    brand = header[8:12] if header[4:8] == b"ftyp" else b""
    suffix = path.suffix.lower()
    if not HAS_HEIF and (brand in HEIF_BRANDS or suffix in HEIF_SUFFIXES):
        return HEIF_REMEDY
    if not HAS_AVIF and (brand in AVIF_BRANDS or suffix in AVIF_SUFFIXES):
        return AVIF_REMEDY
    return None


def _check_size(path: Path | EncodedFile, image_format: str | None, size: tuple[int, int]) -> None:
    limit = MAX_PIXELS_BUFFERED if image_format in BUFFERED_FORMATS else MAX_PIXELS
    if size[0] * size[1] > limit:
        raise _too_large(path, limit)


def _check_tiff(path: Path | EncodedFile, image: Image.Image) -> None:
    """Refuse a TIFF with absurd tiles, which are decoded as a whole, or with data after its end.

    libtiff would print messages about the latter.
    """
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(TILE_WIDTH, 0), tags.get(TILE_LENGTH, 0)
    if not (isinstance(width, int) and isinstance(length, int)) or width * length > MAX_PIXELS:
        raise UserError(f"{path}: damaged (its tiles are larger than {MAX_PIXELS} px); save it again")
    size = path.stat().st_size
    for offsets, sizes in TIFF_DATA:
        parts = zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False)
        if any(offset + count > size for offset, count in parts):
            raise UserError(f"{path}: damaged or truncated (data after its end); copy it again")


def _check_scans(path: Path | EncodedFile, pixels: int) -> None:
    """Refuse a JPEG with more scans than any program writes, if decoding them would take long."""
    most = MAX_SCANNED // max(1, pixels)
    if path.stat().st_size // len(START_OF_SCAN) <= most:
        return
    scans, last = 0, b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            scans += (last + block).count(START_OF_SCAN)
            last = block[-1:]
    if scans > most:
        raise UserError(f"{path}: {scans:,} scans of {pixels // 10**6} million pixels; save it again")


def _too_large(path: Path | EncodedFile, limit: int) -> UserError:
    return UserError(f"{path}: more than {limit // 10**6} million pixels; reduce its size first")


def _webp_size(path: Path | EncodedFile) -> tuple[int, int] | None:
    """Return the declared width and height of a WebP; None for other files and damaged headers.

    See https://developers.google.com/speed/webp/docs/riff_container and RFC 9649.
    """
    with path.open("rb") as file:
        header = file.read(30)
    if header[:4] != b"RIFF" or header[8:12] != b"WEBP" or len(header) < 30:
        return None
    kind, body = header[12:16], header[20:]
    if kind == b"VP8X":  # 24-bit width and height, minus one
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":  # 14-bit width and height, minus one, after a byte of signature
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":  # 14-bit width and height, after 3 bytes of tag and 3 of start code
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None
