"""Reading image files as upright RGB, and finding them in folders and glob patterns."""

from __future__ import annotations

import glob
import os
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from landmarks_fastai.errors import LandmarksError, UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SUPPORTED = "supported formats: JPEG, PNG, WebP, BMP, TIFF and GIF"

MAX_PIXELS = 178_956_970
"""Larger images are rejected without decoding them. The limit of Pillow's protection against decompression
bombs."""

EXIF_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""For each EXIF orientation, the operation that makes the image upright."""

SWAPS_AXES = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_METADATA = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
"""Chunks of a PNG that may contain an orientation: EXIF, or XMP and EXIF as text."""


# --- reading -------------------------------------------------------------------------------------


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as RGB: upright according to its EXIF orientation, transparent areas white.

    16-bit gray is divided by 257, so that 65535 becomes 255. Floating-point gray is assumed to range up to 1,
    255 or 65535, whichever is the first that its maximum does not exceed. Of an animation or a TIFF with
    several pages, the first frame or page is read.

    Returns
    -------
    NDArray
        (H, W, 3) uint8.

    Raises
    ------
    UserError
        If the file is missing, a folder, empty, not an image, damaged, truncated, or has more than
        `MAX_PIXELS` pixels.
    """
    with _opened(Path(path)) as image:
        image.load()
        return np.array(_to_rgb(_apply_exif_orientation(image), Path(path)))


def image_size(path: str | Path) -> tuple[int, int]:
    """Return the width and height in pixels of an image made upright, without decoding it.

    Raises
    ------
    UserError
        If the file is missing, a folder, empty, not an image, or has more than `MAX_PIXELS` pixels.
    """
    with _opened(Path(path)) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in SWAPS_AXES else (width, height)


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation of an image, without decoding it; 1, upright, if it has none.

    Raises
    ------
    UserError
        See `image_size`.
    """
    with _opened(Path(path)) as image:
        return _orientation(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image without decoding it, and turn what Pillow raises into a UserError."""
    _check_file(path)
    too_large = UserError(f"{path}: more than {MAX_PIXELS // 10**6} million pixels; reduce its size first")
    # Pillow warns about large images, whose size is checked here, and unusual metadata, which is not used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large
                yield image
        except LandmarksError:
            raise
        except Image.DecompressionBombError:
            raise too_large from None
        except UnidentifiedImageError:
            raise UserError(f"{path}: not an image, or its first bytes are damaged; {SUPPORTED}") from None
        except Exception as error:  # Pillow's decoders raise many types of exception
            reason = re.sub(r"\s+", " ", str(error))
            raise UserError(f"{path}: damaged or truncated ({reason}); copy it again") from error


def _check_file(path: Path) -> None:
    """Raise UserError if the path is a folder, an empty file, or a file that cannot be accessed."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder, not an image")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); copy it again")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from error


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Rotate or mirror the image according to its EXIF orientation.

    ImageOps.exif_transpose would also rewrite the EXIF data, and therefore fail if any entry is broken.
    """
    operation = EXIF_TRANSPOSE.get(_orientation(image))
    return image if operation is None else image.transpose(operation)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if there is none, or if the metadata is broken."""
    try:
        # PngImageFile.getexif decodes the pixels, because metadata may follow them
        complete = isinstance(image, PngImageFile) and not _has_metadata_after_pixels(image)
        exif = Image.Image.getexif(image) if complete else image.getexif()
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels are intact although the metadata is broken
        return 1


def _has_metadata_after_pixels(image: PngImageFile) -> bool:
    """Return True if chunks that may contain an orientation follow the pixels of a PNG: EXIF or text."""
    with open(image.filename, "rb") as file:
        file.seek(len(PNG_SIGNATURE))
        has_pixels = False
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if has_pixels and kind in PNG_METADATA:
                return True
            has_pixels |= kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)  # 4 bytes of checksum
    return False


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Convert an image of any Pillow mode to RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_gray_to_uint8(np.asarray(image), image.mode, path)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _gray_to_uint8(values: NDArray[np.generic], mode: str, path: Path) -> NDArray[np.uint8]:
    """Scale (H, W) gray values of 16 bits or of Pillow mode I or F to uint8."""
    gray = values.astype(np.float32)
    if not np.isfinite(gray).all():
        raise UserError(f"{path}: some pixels are NaN or infinite; save it as 8-bit or 16-bit gray or RGB")
    ranges = (1, 255, 65535) if mode == "F" else (65535,)
    maximum = next((value for value in ranges if gray.max() <= value), None)
    if maximum is None:
        raise UserError(f"{path}: gray values up to {gray.max():g}; save it as 8-bit or 16-bit gray or RGB")
    return np.rint(gray.clip(0) * (255 / maximum)).astype(np.uint8)


# --- finding -------------------------------------------------------------------------------------


def find_images(arguments: Sequence[str | Path]) -> list[Path]:
    """Return the image files that files, folders and glob patterns refer to.

    A file is included whatever its suffix. A folder stands for the images directly in it, and a glob pattern
    (``"images/*.jpg"``, ``"images/**/*.png"``) for the images that match it; both by suffix, without hidden
    files, in natural order (``2.jpg`` before ``10.jpg``). Duplicates are removed.

    Raises
    ------
    UserError
        If there are no arguments, or one of them refers to no image.
    """
    if not arguments:
        raise UserError("no images given; name files, folders or glob patterns")
    paths: dict[Path, Path] = {}
    for argument in arguments:
        for path in _expand(Path(argument).expanduser()):
            paths.setdefault(path.resolve(), path)
    return list(paths.values())


def _expand(argument: Path) -> list[Path]:
    """Return the images that one argument refers to."""
    if os.path.isdir(argument):  # Path.is_dir raises for names that are too long
        images = _select_images(argument.iterdir())
        if not images:
            raise UserError(f"{argument}: no images directly in this folder; {SUPPORTED}")
        return images
    # before glob patterns, because "face [1].jpg" is a valid file name
    if os.path.exists(argument):
        return [argument]
    if glob.has_magic(str(argument)):
        images = _select_images(Path(match) for match in glob.glob(str(argument), recursive=True))
        if not images:
            raise UserError(f"{argument}: no image matches; {SUPPORTED}")
        return images
    raise UserError(f"{argument}: no such file or folder")


def _select_images(paths: Iterable[Path]) -> list[Path]:
    """Return the files with an image suffix, in natural order, without hidden files."""
    images = [p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(images, key=natural_key)


def natural_key(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Return a sort key that compares digits as numbers: 2 comes before 10."""
    pieces = re.findall(r"(\D*)(\d*)", str(path).lower())
    return [(text, int(number or -1)) for text, number in pieces], str(path)
