"""The regions of an annotation of Label Studio, grouped into objects with landmarks and a box."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from landmarks_fastai.data.formats.label_studio_writing import BOX_LABEL, HALF_PIXEL, OCCLUDED_CHOICE
from landmarks_fastai.data.formats.labeled_objects import Box, LabeledObject, Notes, parse_number
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import quote

KEYPOINTS = ("keypoint", "keypointlabels")
RECTANGLES = ("rectangle", "rectanglelabels")
LABELS = ("keypointlabels", "rectanglelabels", "labels")

Item = Mapping[str, object]


@dataclass
class Regions:
    """The regions of an annotation.

    Parameters
    ----------
    keypoints
        Label and (x, y) in our pixel convention by region ID.
    rectangles
        Label and edges by region ID.
    occluded
        IDs of the keypoints that are occluded.
    links
        Pairs of IDs of regions that belong together: parents and relations.
    """

    keypoints: dict[str, tuple[str, tuple[float, float]]] = field(default_factory=dict)
    rectangles: dict[str, tuple[str, Box]] = field(default_factory=dict)
    occluded: set[str] = field(default_factory=set)
    links: list[tuple[str, str]] = field(default_factory=list)


def parse_regions(result: Sequence[object], size: tuple[int, int], location: str, notes: Notes) -> Regions:
    """Return the keypoints, rectangles and their links; count other regions.

    Parameters
    ----------
    result
        The ``result`` of the annotation.
    size
        Width and height of the image, of which the coordinates are percents.
    location
        The task, in messages.
    notes
        Where to count what is not read.

    Raises
    ------
    UserError
        If a region cannot be used.
    """
    items = [item for item in result if isinstance(item, dict)]
    if len(items) < len(result):
        raise UserError(f"{location}: an entry of 'result' is not a JSON object; export the file again")
    labels = _find_labels(items)
    regions = Regions()
    for number, item in enumerate(items):
        kind = item.get("type")
        key = str(item.get("id") or f"region {number}")
        if kind == "relation":
            regions.links.append((str(item.get("from_id")), str(item.get("to_id"))))
        elif kind in KEYPOINTS or kind in RECTANGLES:
            _add_region(regions, key, item, labels.get(key), size, location, notes)
        elif kind == "choices" and OCCLUDED_CHOICE in _as_list(_value(item).get("choices")):
            regions.occluded.add(key)
        elif kind != "labels" or key not in labels:
            shown = str(kind)[:20]
            notes.add(f"region of type {shown!r}", f"regions of type {shown!r}", "skipped")
    return regions


def group_regions(regions: Regions, location: str, notes: Notes) -> list[LabeledObject]:
    """Return the objects: keypoints that parents, relations or the only rectangle around them join.

    If there is neither a rectangle nor a link, all keypoints are one object.

    Raises
    ------
    UserError
        If it is not clear to which object a keypoint belongs, or a landmark occurs twice in one object.
    """
    groups = _Groups()
    for first, second in regions.links:
        groups.join(first, second)
    linked = {key for link in regions.links for key in link}
    alone = [key for key in regions.keypoints if key not in linked]
    for key in alone:
        groups.join(_rectangle_around(regions, key, location) if regions.rectangles else alone[0], key)
    if regions.rectangles:
        what = "assigned to the only rectangle around each, for lack of a parent or relation"
        notes.add("keypoint", "keypoints", what, len(alone))
    members: dict[str, list[str]] = {}
    for key in regions.keypoints:
        members.setdefault(groups.root(key), []).append(key)
    boxes: dict[str, list[str]] = {}
    for key in regions.rectangles:
        boxes.setdefault(groups.root(key), []).append(key)
    empty = sum(len(keys) for root, keys in boxes.items() if root not in members)
    notes.add("rectangle without keypoints", "rectangles without keypoints", "skipped", empty)
    names = [location] if len(members) == 1 else [f"{location}, object {i + 1}" for i in range(len(members))]
    return [
        _build_object(regions, keys, boxes.get(root, []), name)
        for name, (root, keys) in zip(names, members.items(), strict=True)
    ]


class _Groups:
    """Disjoint sets of region IDs."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, key: str) -> str:
        """Return the ID that stands for the set of `key`."""
        path = [key]
        while (parent := self._parents.get(path[-1], path[-1])) != path[-1]:
            path.append(parent)
        self._parents.update(dict.fromkeys(path, path[-1]))
        return path[-1]

    def join(self, first: str, second: str) -> None:
        """Join the sets of two IDs."""
        self._parents[self.root(second)] = self.root(first)


def _find_labels(items: Iterable[Item]) -> dict[str, str]:
    """Return the label of each region; an item of type ``labels`` may carry that of another item."""
    labels: dict[str, str] = {}
    for number, item in enumerate(items):
        texts = [
            text for name in LABELS for text in _as_list(_value(item).get(name)) if isinstance(text, str)
        ]
        if texts:
            labels.setdefault(str(item.get("id") or f"region {number}"), texts[0].strip())
    return labels


def _add_region(
    regions: Regions,
    key: str,
    item: Item,
    label: str | None,
    size: tuple[int, int],
    location: str,
    notes: Notes,
) -> None:
    if key in regions.keypoints or key in regions.rectangles:
        raise UserError(f"{location}: the region ID {quote(key)} occurs twice; export the file again")
    if item.get("image_rotation") not in (None, 0, 360):
        raise UserError(
            f"{location}: the image is rotated by {str(item['image_rotation'])[:20]}° in Label Studio; rotate"
            " it back, and label it in the orientation of the file"
        )
    parent = item.get("parentID")
    if isinstance(parent, str) and parent:
        regions.links.append((parent, key))
    if item.get("type") in KEYPOINTS:
        if not label:
            raise UserError(
                f"{location}: a keypoint has no label; give it the name of a landmark, or delete it"
            )
        x, y = _percents(_value(item), ("x", "y"), f"{location}, keypoint {quote(label)}")
        regions.keypoints[key] = label, (x * size[0] - HALF_PIXEL, y * size[1] - HALF_PIXEL)
    else:
        regions.rectangles[key] = label or BOX_LABEL, _parse_box(_value(item), size, location, notes)


def _percents(value: Item, names: Sequence[str], location: str) -> list[float]:
    """Return values divided by 100."""
    return [parse_number(value.get(name), location, f"{name} (percent)") / 100 for name in names]


def _parse_box(value: Item, size: tuple[int, int], location: str, notes: Notes) -> Box:
    """Return the edges of a rectangle; of a rotated one, the edges of the upright rectangle around it."""
    left, top, width, height = _percents(value, ("x", "y", "width", "height"), f"{location}, rectangle")
    if width <= 0 or height <= 0:
        raise UserError(f"{location}: a rectangle has no area; draw it again, or delete it")
    x0, y0, width, height = left * size[0], top * size[1], width * size[0], height * size[1]
    degrees = parse_number(value.get("rotation") or 0, f"{location}, rectangle", "rotation")
    if degrees % 360 == 0:
        return x0, y0, x0 + width, y0 + height
    notes.add("rotated rectangle", "rotated rectangles", "replaced by the upright rectangle around it")
    # the rotation is clockwise, around the corner (x, y)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((0.0, 0.0), (width, 0.0), (0.0, height), (width, height))
    xs = [x0 + x * cosine - y * sine for x, y in corners]
    ys = [y0 + x * sine + y * cosine for x, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _rectangle_around(regions: Regions, key: str, location: str) -> str:
    """Return the ID of the only rectangle that contains a keypoint."""
    label, (x, y) = regions.keypoints[key]
    found = [
        rectangle
        for rectangle, (_, (x0, y0, x1, y1)) in regions.rectangles.items()
        if x0 <= x + HALF_PIXEL <= x1 and y0 <= y + HALF_PIXEL <= y1
    ]
    if len(found) != 1:
        count = "no rectangle is" if not found else f"{len(found)} rectangles are"
        raise UserError(
            f"{location}: {count} around the keypoint {quote(label)}, which has no parent and no relation;"
            " connect it with its object"
        )
    return found[0]


def _build_object(regions: Regions, keys: list[str], boxes: list[str], name: str) -> LabeledObject:
    if len(boxes) > 1:
        raise UserError(
            f"{name}: {len(boxes)} rectangles are connected with each other; separate the objects"
        )
    each = LabeledObject(0, name)
    for key in keys:
        label, point = regions.keypoints[key]
        each.add_point(label, point, occluded=key in regions.occluded)
    if boxes:
        label, each.box = regions.rectangles[boxes[0]]
        if label != BOX_LABEL:
            each.columns["label"] = label
    return each


def _value(item: Item) -> Item:
    value = item.get("value")
    return value if isinstance(value, dict) else {}


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
