"""YOLO pose: data.yaml, and for each image a text file with a line for each object.

A line is the class, the center, width and height of the box, and x, y (and visibility 0, 1 or 2) of each
landmark, divided by the width and height of the image (https://docs.ultralytics.com/datasets/pose/).
Positions are continuous, with (0, 0) at the top-left corner of the image and (1, 1) at its bottom-right
corner, as those of boxes are: a box of the whole image is 0.5 0.5 1 1. Half a pixel is therefore subtracted
from landmarks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.yolo_config import YoloConfig, read_config
from landmarks_fastai.data.formats.yolo_labels import LabelReader, read_lines
from landmarks_fastai.data.formats.yolo_writing import write
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.image_formats import SUFFIXES
from landmarks_fastai.utils.images import natural_key
from landmarks_fastai.utils.text import quote

KEY = b"kpt_shape"
MAX_YAML_BYTES = 1_000_000
MAX_YAML_FILES = 100


def recognizes(path: Path) -> bool:
    """Return True for a YAML file with kpt_shape, or a folder with one."""
    try:
        return bool(_find_configs(path)) if path.is_dir() else _is_config(path)
    except OSError:
        return False


def read(path: Path) -> Annotations:
    """Read a data.yaml, or the only one in a folder, and the label files of all splits.

    The label file of ``images/train/a.png`` is ``labels/train/a.txt``; the last folder named images counts.
    The columns are the split and the class. Images without objects are left out.

    Raises
    ------
    UserError
        If data.yaml cannot be used, or there is no object with labeled landmarks.
    """
    config = read_config(_find_config(path))
    reader = LabelReader(config)
    for split, places in config.splits.items():
        for place in places:
            for image in _images(place, config, reader.bad_rows):
                reader.add_image(image, split)
    return reader.build()


FORMAT = AnnotationFormat("yolo", "YOLO pose", recognizes, read, write)


# --- finding files -------------------------------------------------------------------------------


def _is_config(path: Path) -> bool:
    if path.suffix.lower() not in (".yaml", ".yml") or path.stat().st_size > MAX_YAML_BYTES:
        return False
    return any(line.startswith(KEY) for line in path.read_bytes().splitlines())


def _find_configs(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if path.suffix.lower() in (".yaml", ".yml"))
    return sorted(path for path in islice(paths, MAX_YAML_FILES) if path.is_file() and _is_config(path))


def _find_config(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path}: no such file or folder")
        return path
    found = _find_configs(path)
    if not found:
        raise UserError(f"{path}: no data.yaml with kpt_shape in this folder; name the file itself")
    if len(found) > 1:
        names = ", ".join(each.name for each in found)[:80]
        raise UserError(f"{path}: several YOLO data sets ({names}); name one of the files")
    return found[0]


def _images(place: Path, config: YoloConfig, bad_rows: list[str]) -> Iterator[Path]:
    """Yield the images of a folder or of a list, in natural order or in that of the list."""
    if place.is_dir():
        paths = (p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        yield from sorted((path for path in paths if path.is_file()), key=natural_key)
    elif place.suffix.lower() == ".txt":
        files = ImageFiles([place.parent, config.path.parent])
        for number, line in enumerate(read_lines(place), start=1):
            name = line.strip()
            image = files.find(name) if name else None
            if image is not None:
                yield image
            elif name:
                bad_rows.append(
                    f"{place}, line {number}: no such image {quote(name)}; put it into {place.parent}, or"
                    " remove the line"
                )
    else:
        yield place
