"""XML of dlib's imglab: boxes with named parts.

Parts are pixels counted from 0, as here, so they are not shifted. A box covers the pixels from ``left`` to
``left + width - 1``, so its right edge is ``left + width``. dlib ignores the EXIF orientation of images:
labels of images that have one are converted to the upright image.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.exif import box_to_upright, to_upright
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.labeled_objects import (
    LabeledObject,
    Notes,
    build_annotations,
    check_objects,
    make_schema,
    parse_number,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.images import exif_orientation, image_size
from landmarks_fastai.utils.text import quote
from landmarks_fastai.utils.xml_reader import leading_tags, read_xml

POSITION = ("left", "top", "width", "height")


def recognizes(path: Path) -> bool:
    """Return True for an XML file with the root ``dataset`` that contains ``images``."""
    tags = leading_tags(path)
    return tags[:1] == ["dataset"] and "images" in tags[1:4]


def read(path: Path) -> Annotations:
    """Read the boxes with parts; the label of a box becomes the column ``label``.

    Raises
    ------
    UserError
        If the file is not XML of imglab, or no box can be used.
    """
    root = read_xml(path)
    if root.tag != "dataset" or root.find("images") is None:
        raise UserError(f"{path}: no <images> in <dataset>; name an XML file of imglab")
    images = ImageFiles([path.parent, path.parent / "images"])
    notes = Notes()
    objects: list[LabeledObject] = []
    bad_rows: list[str] = []
    for number, element in enumerate(root.iterfind("images/image"), 1):
        read_objects, errors = _read_image(element, f"{path.name}, image {number}", images, notes)
        objects += read_objects
        bad_rows += errors
    check_objects(objects, path, notes.lines(), bad_rows)
    schema = make_schema(
        path.stem, list(dict.fromkeys(name for each in objects for name in each.points)), path
    )
    annotations = build_annotations(objects, images.sources(), path, schema, notes.lines(), bad_rows=bad_rows)
    return images.drop_missing(annotations)


def _read_image(
    element: Element, location: str, images: ImageFiles, notes: Notes
) -> tuple[list[LabeledObject], list[str]]:
    """Return the objects of an image, and the messages of those that cannot be used."""
    name = element.get("file", "")
    boxes = list(element.iterfind("box"))
    if not name.strip():
        return [], [
            f"{location}: the attribute 'file' is missing; add the path of the image"
        ] if boxes else []
    objects, bad_rows = [], []
    for number, box in enumerate(boxes, 1):
        if box.get("ignore", "0") not in ("0", ""):
            notes.add("box with ignore='1'", "boxes with ignore='1'", "skipped")
        elif box.find("part") is None:
            notes.add("box without parts", "boxes without parts", "skipped")
        else:
            try:
                objects.append(_read_box(box, f"{location}, box {number}", images.add(name, location), notes))
            except UserError as error:
                bad_rows.append(str(error))
    if objects and images.missing(objects[0].image) is None:
        _convert_to_upright(objects, images.sources()[objects[0].image].path, notes)
    return objects, bad_rows


def _read_box(box: Element, location: str, image: int, notes: Notes) -> LabeledObject:
    left, top, width, height = (parse_number(box.get(name), location, name) for name in POSITION)
    if width <= 0 or height <= 0:
        raise UserError(f"{location}: the box is {width:g} × {height:g} px; correct its width and height")
    each = LabeledObject(image, location, box=(left, top, left + width, top + height))
    for part in box.iterfind("part"):
        name = part.get("name", "").strip()
        if not name:
            raise UserError(f"{location}: a part has no name; name it, or remove it")
        x, y = (parse_number(part.get(axis), location, f"{axis} of the part {quote(name)}") for axis in "xy")
        each.add_point(name, (x, y))
    label = (box.findtext("label") or "").strip()
    if label:
        each.columns["label"] = label
    for name, value in box.items():
        if name not in (*POSITION, "ignore") and value.strip() not in ("", "0"):
            notes.add(f"value of {quote(name)}", f"values of {quote(name)}", "not used")
    return each


def _convert_to_upright(objects: list[LabeledObject], path: Path, notes: Notes) -> None:
    """Convert the labels of an image whose EXIF orientation is not 1."""
    try:
        orientation, size = exif_orientation(path), image_size(path)
    except UserError:  # a damaged image is reported when it is decoded
        return
    if orientation not in range(2, 9):
        return
    for each in objects:
        each.points = {name: to_upright(point, size, orientation) for name, point in each.points.items()}
        each.box = None if each.box is None else box_to_upright(each.box, size, orientation)
    what = "rotated by EXIF, which dlib ignores: their labels are converted to the upright image"
    notes.add("image", "images", what)


FORMAT = AnnotationFormat("imglab", "dlib imglab XML", recognizes, read)
