"""From a picture's file to RGB bytes, upright, or one line that says why not.

Knows every kind of pixel that people's files hold (16 bits, palettes, alpha, CMYK, EXIF turns) and
nothing about faces, boxes or networks.
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from landmarks_fastai.errors import LandmarksError, UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
READ = "JPEG, PNG, WebP, BMP, TIFF and GIF are read"

MAX_PIXELS = 178_956_970
"""More are refused from the header alone. It is the number above which PIL itself refuses to go on."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture as people see it: upright, in RGB, what is transparent white.

    16 bit gray is divided by 257, so that 65535 becomes 255; gray floats are taken to reach up to 1,
    255 or 65535, whichever holds their maximum. Of an animation or a TIFF of many pages, the first.

    Returns
    -------
    NDArray
        (H, W, 3) uint8.

    Raises
    ------
    UserError
        If the file is missing, a folder, empty, no picture, damaged, cut off, or has more than
        `MAX_PIXELS` pixels.
    """
    path = Path(path)
    _check_file(path)
    too_large = UserError(f"{path}: more than {MAX_PIXELS // 10**6} million pixels; make it smaller first")
    # PIL warns of large pictures, which we measure ourselves, and of odd metadata, which we don't use
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large
                image.load()
                return np.array(_to_rgb(_upright(image), path))
        except LandmarksError:
            raise
        except Image.DecompressionBombError:
            raise too_large from None
        except UnidentifiedImageError:
            raise UserError(f"{path}: not a picture, or damaged from its first bytes; {READ}") from None
        except Exception as error:  # PIL's decoders raise nearly every kind there is
            reason = re.sub(r"\s+", " ", str(error))
            raise UserError(f"{path}: damaged or cut off ({reason}); get a whole copy") from error


def find_images(arguments: Sequence[str | Path]) -> list[Path]:
    """List the pictures that files, folders and globs name.

    A file is taken whatever it is called; a folder gives the pictures that lie right in it, and a glob
    (``"shots/*.jpg"``, ``"shots/**/*.png"``) those that it matches, by the ends of their names; both in
    natural order (``2.jpg`` before ``10.jpg``). A picture that is named twice stands once.

    Raises
    ------
    UserError
        If there are no arguments, or one of them names no picture.
    """
    if not arguments:
        raise UserError("no picture was named; give files, folders or globs")
    found: dict[Path, Path] = {}
    for argument in arguments:
        for path in _expand(Path(argument).expanduser()):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(argument: Path) -> list[Path]:
    """Return the pictures that one argument names."""
    if os.path.isdir(argument):  # Path.is_dir raises where a name is too long to be one
        pictures = _pictures(argument.iterdir())
        if not pictures:
            raise UserError(f"{argument}: no pictures right in this folder; {READ}")
        return pictures
    # a file may well be called "face [1].jpg", so being there comes before being a pattern
    if os.path.exists(argument):
        return [argument]
    if glob.has_magic(str(argument)):
        pictures = _pictures(Path(match) for match in glob.glob(str(argument), recursive=True))
        if not pictures:
            raise UserError(f"{argument}: no picture matches; {READ}")
        return pictures
    raise UserError(f"{argument}: no such file or folder")


def _pictures(paths: Iterable[Path]) -> list[Path]:
    """Keep what is called like a picture, in natural order, without hidden files."""
    kept = [p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    return sorted(kept, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Sort key in which 2 comes before 10."""
    pieces = re.findall(r"(\D*)(\d*)", str(path).lower())
    return [(text, int(number or -1)) for text, number in pieces], str(path)


def _check_file(path: Path) -> None:
    """Refuse what need not be opened to be refused."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: a folder, not a picture")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); get a whole copy")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: can't be opened: {error.strerror}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF says.

    As ImageOps.exif_transpose does, which writes the EXIF anew and so fails where any entry is broken.
    """
    try:
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken metadata says nothing about the pixels, which are whole
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Turn any of PIL's modes into RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_bytes(np.asarray(image), image.mode, path)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _to_bytes(values: NDArray[np.generic], mode: str, path: Path) -> NDArray[np.uint8]:
    """Scale 16 bit, integer or float gray (H, W) to bytes."""
    gray = values.astype(np.float32)
    if not np.isfinite(gray).all():
        raise UserError(f"{path}: some pixels are not numbers; save it as 8 or 16 bit gray or RGB")
    ceilings = (1, 255, 65535) if mode == "F" else (65535,)
    ceiling = next((c for c in ceilings if gray.max() <= c), None)
    if ceiling is None:
        raise UserError(f"{path}: gray values up to {gray.max():g}; save it as 8 or 16 bit gray or RGB")
    return np.rint(gray.clip(0) * (255 / ceiling)).astype(np.uint8)
