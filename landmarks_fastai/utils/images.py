"""Reading image files as upright RGB, and finding them in folders and glob patterns."""

from __future__ import annotations

import glob
import os
import re
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.utils.encoded_files import EncodedFile
from landmarks_fastai.utils.gray_levels import (
    LOW_DEPTHS,
    depth_in_use,
    gray_maximum,
    is_deep_color,
    read_deep_color,
    strips,
    to_uint8,
    white_level,
)
from landmarks_fastai.utils.image_formats import (
    AVIF_REMEDY,
    AVIF_SUFFIXES,
    HEIF_REMEDY,
    HEIF_SUFFIXES,
    MAX_PIXELS_BUFFERED,
    SUFFIXES,
    SUPPORTED,
    missing_library,
    open_image,
)
from landmarks_fastai.utils.media_files import VIDEO_SUFFIXES, media_kind
from landmarks_fastai.utils.text import format_count, quote, shorten

SWAPS_AXES = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

AS_STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""For each EXIF orientation, the view of an upright image that has the rows of the stored image."""

MAX_REASON, MAX_SUFFIX, MAX_SUFFIXES = 100, 12, 5
"""Characters of a decoder's message and of a suffix that are quoted, and the number of suffixes listed."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_METADATA = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
"""Chunks of a PNG that may contain an orientation: EXIF, or XMP and EXIF as text."""


# --- reading -------------------------------------------------------------------------------------


def read_image(path: str | Path | EncodedFile) -> NDArray[np.uint8]:
    """Read an image as RGB: upright according to its EXIF orientation, transparent areas white.

    Levels of 16 bits are divided by 257, so that 65535 becomes 255; if all of them fit in 8, 10, 12 or 14
    bits, the largest number of these bits becomes 255. Floating-point gray is assumed to range up to 1, or
    like 16-bit gray if a level exceeds 1. Of an animation or a TIFF with several pages, the first frame or
    page is read.

    Returns
    -------
    NDArray
        (H, W, 3) uint8.

    Raises
    ------
    UserError
        If the file is missing, a folder, empty, not an image, damaged, truncated, or has too many pixels
        (`MAX_PIXELS`, `MAX_PIXELS_BUFFERED`).
    """
    return read_image_and_depth(path)[0]


def read_image_and_depth(path: str | Path | EncodedFile) -> tuple[NDArray[np.uint8], int | None]:
    """Read an image like `read_image`, and return the bits in use if its levels were scaled by them.

    Returns
    -------
    image
        (H, W, 3) uint8.
    depth
        8, 10, 12 or 14 if only so many of 16 bits per level are in use (see `depth_note`), else None.

    Raises
    ------
    UserError
        See `read_image`.
    """
    path = Path(path) if isinstance(path, str) else path
    with _opened(path) as image:
        is_deep = is_deep_color(image)
        image.load()
        orientation = _orientation(image, path)
        if image.mode.startswith(("I", "F")):
            white, bits = white_level(image.mode, gray_maximum(image, path))
            return _to_rgb(image, orientation, white), bits if bits in LOW_DEPTHS else None
        scaled, depth = _scale_deep_color(image, path) if is_deep else (image, None)
        return _to_rgb(scaled, orientation), depth


def image_size(path: str | Path) -> tuple[int, int]:
    """Return the width and height in pixels of an image made upright, without decoding it.

    Raises
    ------
    UserError
        If the file is missing, a folder, empty, not an image, or has more than `MAX_PIXELS` pixels.
    """
    path = Path(path)
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image, path) in SWAPS_AXES else (width, height)


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation of an image, without decoding it; 1, upright, if it has none.

    Raises
    ------
    UserError
        See `image_size`.
    """
    path = Path(path)
    with _opened(path) as image:
        return _orientation(image, path)


@contextmanager
def _opened(path: Path | EncodedFile) -> Iterator[Image.Image]:
    """Open an image without decoding it, and turn what Pillow raises into a UserError."""
    _check_file(path)
    # Pillow warns about large images, whose size is checked here, and unusual metadata, which is not used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_image(path) as image:
                yield image
        except LandmarksError:
            raise
        except UnidentifiedImageError:
            raise UserError(f"{path}: {_explain_unidentified(path)}") from None
        except Exception as error:  # Pillow's decoders raise many types of exception
            reason = shorten(str(error), MAX_REASON) or type(error).__name__
            raise UserError(f"{path}: damaged or truncated ({reason}); copy it again") from error


def _explain_unidentified(path: Path | EncodedFile) -> str:
    """Return why a file is not an image, and what to do."""
    kind = media_kind(path)
    if kind == "video":
        return "a video, not an image; use the video command"
    if kind == "audio":
        return f"an audio file, not an image; {SUPPORTED}"
    return missing_library(path) or f"not an image, or its first bytes are damaged; {SUPPORTED}"


def _check_file(path: Path | EncodedFile) -> None:
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
    except ValueError:  # a null byte, or half of a surrogate pair, both of which JSON can express
        raise UserError(f"{quote(str(path))}: no file can have this name; correct it") from None


def _orientation(image: Image.Image, path: Path | EncodedFile) -> int:
    """Return the EXIF orientation; 1 if there is none, or if the metadata is broken."""
    try:
        # PngImageFile.getexif decodes the pixels, because metadata may follow them
        complete = isinstance(image, PngImageFile) and not _has_metadata_after_pixels(path)
        exif = Image.Image.getexif(image) if complete else image.getexif()
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels are intact although the metadata is broken
        return 1


def _has_metadata_after_pixels(path: Path | EncodedFile) -> bool:
    """Return True if chunks that may contain an orientation follow the pixels of a PNG: EXIF or text."""
    with path.open("rb") as file:
        file.seek(len(PNG_SIGNATURE))
        has_pixels = False
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if has_pixels and kind in PNG_METADATA:
                return True
            has_pixels |= kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)  # 4 bytes of checksum
    return False


def _to_rgb(image: Image.Image, orientation: int, white: float | None = None) -> NDArray[np.uint8]:
    """Convert a decoded image of any Pillow mode to upright RGB, a strip at a time.

    Parameters
    ----------
    image
        The image.
    orientation
        Its EXIF orientation.
    white
        The gray level that becomes 255; None if the levels have 8 bits.
    """
    width, height = image.size
    swapped = orientation in SWAPS_AXES
    upright = np.empty((width, height, 3) if swapped else (height, width, 3), np.uint8)
    # ImageOps.exif_transpose would also rewrite the EXIF data, and therefore fail if any entry is broken
    stored = AS_STORED[orientation](upright) if orientation in AS_STORED else upright
    for rows, strip in strips(image):
        stored[rows] = (
            _strip_to_rgb(strip) if white is None else to_uint8(np.asarray(strip), white)[..., None]
        )
    return upright


def _strip_to_rgb(strip: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of 8 bits per level to RGB, on white where it is transparent."""
    if strip.has_transparency_data:
        white = Image.new("RGBA", strip.size, "white")
        white.alpha_composite(strip.convert("RGBA"))
        strip = white
    return np.asarray(strip.convert("RGB"))


def _scale_deep_color(image: Image.Image, path: Path | EncodedFile) -> tuple[Image.Image, int | None]:
    """Decode a dark color image again, with all of its 16 bits, and scale it by the bits in use."""
    colors = [band for band in image.getbands() if band != "A"]
    highest = max(int(np.asarray(image.getchannel(band)).max()) for band in colors)
    # of the 16 bits, Pillow keeps the upper 8
    if highest >= 1 << max(LOW_DEPTHS) - 8 or image.width * image.height > MAX_PIXELS_BUFFERED:
        return image, None
    levels = read_deep_color(path)
    if levels is None:
        return image, None
    depth = depth_in_use(float(levels[..., :3].max()))
    if depth not in LOW_DEPTHS:
        return image, None
    scaled = to_uint8(levels[..., :3], 2.0**depth - 1)
    if levels.shape[2] == 4:
        scaled = np.dstack([scaled, to_uint8(levels[..., 3:], 65535.0)])
    return Image.fromarray(scaled), depth


# --- finding -------------------------------------------------------------------------------------

MAX_MISSING = 10
"""Number of arguments without an image that a message names."""


def find_images(
    arguments: Sequence[str | Path],
    note: Callable[[str], None] | None = None,
    *,
    ignore: Collection[str] = (),
) -> list[Path]:
    """Return the image files that files, folders and glob patterns refer to.

    A file is included whatever its suffix. A folder stands for the images directly in it, and a glob pattern
    (``"images/*.jpg"``, ``"images/**/*.png"``) for the images that match it; both by suffix, without hidden
    files, in natural order (``2.jpg`` before ``10.jpg``). Duplicates are removed.

    Parameters
    ----------
    arguments
        The files, folders and patterns.
    note
        Called with one line for each folder or pattern of which files were skipped.
    ignore
        Names of files that are no images, and are not mentioned.

    Raises
    ------
    UserError
        If there are no arguments, or if any of them refer to no image; the message has a line for each.
    """
    if not arguments:
        raise UserError("no images given; name files, folders or glob patterns")
    paths: dict[Path, Path] = {}
    errors: list[str] = []
    for argument in arguments:
        try:
            for path in _expand(Path(argument).expanduser(), note, ignore):
                paths.setdefault(path.resolve(), path)
        except UserError as error:
            errors.append(str(error))
    if len(errors) == 1:
        raise UserError(errors[0])
    if errors:
        more = [f"and {len(errors) - MAX_MISSING:,} more"] if len(errors) > MAX_MISSING else []
        raise UserError(
            f"{len(errors):,} of {format_count(len(arguments), 'argument')} cannot be used; correct or remove"
            " them",
            [*errors[:MAX_MISSING], *more],
        )
    return list(paths.values())


def _expand(argument: Path, note: Callable[[str], None] | None, ignore: Collection[str]) -> list[Path]:
    """Return the images that one argument refers to."""
    if os.path.isdir(argument):  # Path.is_dir raises for names that are too long
        found, missing = argument.iterdir(), "no images directly in this folder"
    # before glob patterns, because "face [1].jpg" is a valid file name
    elif os.path.exists(argument):
        return [argument]
    elif glob.has_magic(str(argument)):
        found = (Path(match) for match in glob.glob(str(argument), recursive=True))
        missing = "no image matches"
    else:
        raise UserError(f"{argument}: no such file or folder")
    images, skipped = _select_images(path for path in found if path.name not in ignore)
    if not images:
        raise UserError(f"{argument}: {missing}; {describe_skipped(skipped) or SUPPORTED}")
    if skipped and note is not None:
        note(f"{argument}: {describe_skipped(skipped)}")
    return images


def _select_images(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files with an image suffix, in natural order, and the others; without hidden files."""
    files = [path for path in paths if not path.name.startswith(".") and path.is_file()]
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    skipped = [path for path in files if path.suffix.lower() not in SUFFIXES]
    return sorted(images, key=natural_key), skipped


def describe_skipped(paths: Sequence[Path]) -> str:
    """Return how many files have no image suffix, which suffixes they have, and what to do.

    For example, ``"3 files skipped: .txt (2), .mp4 (1); videos are for the video command"``.
    """
    if not paths:
        return ""
    counts = Counter(path.suffix.lower() for path in paths).most_common()
    parts = [f"{suffix[:MAX_SUFFIX] or 'no suffix'} ({count:,})" for suffix, count in counts[:MAX_SUFFIXES]]
    more = f" and {len(counts) - MAX_SUFFIXES:,} more" if len(counts) > MAX_SUFFIXES else ""
    suffixes = {suffix for suffix, _ in counts}
    hints = []
    hints += [HEIF_REMEDY] if suffixes & HEIF_SUFFIXES else []  # skipped only if it cannot be read
    hints += [AVIF_REMEDY] if suffixes & AVIF_SUFFIXES else []
    hints += ["videos are for the video command"] if suffixes & VIDEO_SUFFIXES else []
    skipped = f"{format_count(len(paths), 'file')} skipped: {', '.join(parts)}{more}"
    return "; ".join([skipped, *hints])


def natural_key(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Return a sort key that compares digits as numbers: 2 comes before 10."""
    pieces = re.findall(r"(\D*)(\d*)", str(path).lower())
    return [(text, int(number or -1)) for text, number in pieces], str(path)
