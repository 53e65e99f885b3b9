"""The shapes on an image of a CVAT export, grouped into objects with landmarks and a box."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

from landmarks_fastai.data.formats.labeled_objects import Box, LabeledObject, Notes, parse_number
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote

HALF_PIXEL = 0.5
"""Coordinate of the center of the first pixel in the file."""

EDGES = ("xtl", "ytl", "xbr", "ybr")
POINT_SHAPES = frozenset({"skeleton", "points", "box"})


class ShapeReader:
    """Reads the shapes of one image after another.

    Attributes
    ----------
    objects
        What was read; the image of each object is set by the caller.
    bad_rows
        Messages of the objects that cannot be used.
    has_occluded
        Whether a landmark is occluded.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.objects: list[LabeledObject] = []
        self.bad_rows: list[str] = []
        self.has_occluded = False

    def add_image(self, image: Element, location: str) -> list[LabeledObject]:
        """Read the shapes of an image, and return its objects.

        A skeleton is an object, and so are points with several coordinates, whose landmarks are numbered.
        Single points with the same ``group_id`` are an object, and those without one are another. A box with
        the ``group_id`` of an object is its box.
        """
        boxes = self._read_boxes(image, location)
        singles: dict[str, list[Element]] = {}
        start = len(self.objects)
        number = 0
        for shape in image:
            group = _group(shape)
            if shape.tag == "points" and ";" not in _coordinates(shape):
                singles.setdefault(group, []).append(shape)
            elif shape.tag in ("skeleton", "points"):
                number += 1
                self._add_object([shape], group, f"{location}, {shape.tag} {number}", boxes)
            elif shape.tag not in POINT_SHAPES:
                shown = shape.tag[:20]
                self._notes.add(f"shape of type {shown!r}", f"shapes of type {shown!r}", "skipped")
        for group, shapes in singles.items():
            place = f"{location}, group {group[:40]}" if group else location
            self._add_object(shapes, group, place, boxes)
        left = sum(len(each) for each in boxes.values())
        self._notes.add("box without landmarks", "boxes without landmarks", "skipped", left)
        return self.objects[start:]

    def _read_boxes(self, image: Element, location: str) -> dict[str, list[Box]]:
        """Return the boxes by their group."""
        boxes: dict[str, list[Box]] = {}
        for box in image.iter("box"):
            try:
                boxes.setdefault(_group(box), []).append(_parse_box(box, location, self._notes))
            except UserError as error:
                self.bad_rows.append(str(error))
        return boxes

    def _add_object(
        self, shapes: list[Element], group: str, location: str, boxes: dict[str, list[Box]]
    ) -> None:
        """Add an object: a skeleton, points with several coordinates, or single points."""
        each = LabeledObject(0, location)
        try:
            for shape in shapes:
                if shape.tag == "skeleton":
                    for point in shape.iter("points"):
                        self._add_point(each, point, _label(point, location))
                elif ";" in _coordinates(shape):
                    self._add_numbered(each, shape)
                else:
                    self._add_point(each, shape, _label(shape, location))
                self._add_columns(each, shape)
        except UserError as error:
            self.bad_rows.append(str(error))
            return
        if group and len(boxes.get(group, ())) == 1:
            each.box = boxes.pop(group)[0]
        if each.points:
            self.objects.append(each)
        else:
            self._notes.add(
                "object without labeled landmarks", "objects without labeled landmarks", "skipped"
            )

    def _add_point(self, each: LabeledObject, shape: Element, label: str) -> None:
        if _is_set(shape, "outside"):
            return
        fields = _coordinates(shape).split(",")
        if len(fields) != 2:
            raise UserError(f'{each.name}: {quote(label)} is not at an x and a y; correct it to points="x,y"')
        x, y = (
            parse_number(text, each.name, f"{axis} of {quote(label)}")
            for axis, text in zip("xy", fields, strict=True)
        )
        is_occluded = _is_set(shape, "occluded")
        self.has_occluded |= is_occluded
        each.add_point(label, (x - HALF_PIXEL, y - HALF_PIXEL), occluded=is_occluded)

    def _add_numbered(self, each: LabeledObject, shape: Element) -> None:
        """Add a shape with several points, whose landmarks are "0", "1" and so on."""
        is_occluded = _is_set(shape, "occluded")
        self.has_occluded |= is_occluded
        for k, text in enumerate(_coordinates(shape).split(";")):
            fields = text.split(",")
            if len(fields) != 2:
                raise UserError(f"{each.name}: point {k + 1} is not at an x and a y; export the file again")
            x, y = (
                parse_number(value, each.name, f"{axis} of point {k + 1}")
                for axis, value in zip("xy", fields, strict=True)
            )
            each.add_point(str(k), (x - HALF_PIXEL, y - HALF_PIXEL), occluded=is_occluded)

    def _add_columns(self, each: LabeledObject, shape: Element) -> None:
        """Add the attributes of an object as columns; those of single landmarks are not used."""
        attributes = shape.findall("attribute")
        if shape.tag == "points" and ";" not in _coordinates(shape):
            self._notes.add("attribute of a landmark", "attributes of landmarks", "not used", len(attributes))
            return
        nested = sum(len(point.findall("attribute")) for point in shape.iter("points") if point is not shape)
        self._notes.add("attribute of a landmark", "attributes of landmarks", "not used", nested)
        label = shape.get("label", "").strip()
        if label:
            each.columns["label"] = label
        for attribute in attributes:
            name = attribute.get("name", "").strip()
            if name:
                each.columns[name[:80]] = (attribute.text or "").strip()


def _parse_box(box: Element, location: str, notes: Notes) -> Box:
    """Return the edges of a box; of a rotated one, those of the upright box around it."""
    place = f"{location}, box {quote(box.get('label', ''))}"
    x0, y0, x1, y1 = (parse_number(box.get(edge), place, edge) for edge in EDGES)
    if x1 <= x0 or y1 <= y0:
        raise UserError(f"{place}: it has no area; draw it again, or delete it")
    degrees = parse_number(box.get("rotation", 0), place, "rotation")
    if degrees % 360 == 0:
        return x0, y0, x1, y1
    notes.add("rotated box", "rotated boxes", "replaced by the upright box around it")
    # the rotation is around the center
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = x1 - x0, y1 - y0
    half_width, half_height = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def _label(shape: Element, location: str) -> str:
    label = shape.get("label", "").strip()
    if not label:
        raise UserError(f"{location}: a point has no label; give it the name of a landmark")
    return label


def _group(shape: Element) -> str:
    """Return the group_id; empty without one. CVAT writes 0 for shapes without a group."""
    group = shape.get("group_id", "").strip()
    return "" if group == "0" else group


def _coordinates(shape: Element) -> str:
    return shape.get("points", "").strip().strip(";")


def _is_set(shape: Element, name: str) -> bool:
    return shape.get(name, "0").strip().lower() in ("1", "true")
