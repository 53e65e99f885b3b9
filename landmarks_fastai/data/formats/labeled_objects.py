"""Building `Annotations` from objects whose landmarks have names, as annotation tools record them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from landmarks_fastai.data.annotations import NOT_LABELED, OCCLUDED, VISIBLE, Annotations, ImageSource
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema, check_names
from landmarks_fastai.schemas import SCHEMAS, schema_from_names
from landmarks_fastai.utils.images import image_size
from landmarks_fastai.utils.text import quote

MAX_LANDMARKS = 2_000
"""Largest number of landmarks; more means that the names are not those of landmarks."""

MAX_COORDINATE = 1e6
"""Largest absolute coordinate in pixels that is accepted."""

Box = tuple[float, float, float, float]


@dataclass
class LabeledObject:
    """A labeled object: a future row of `Annotations`.

    Parameters
    ----------
    image
        Index of its image.
    name
        Row name for messages.
    points
        (x, y) of each labeled landmark by name, in our pixel convention.
    occluded
        Names of the labeled landmarks that are occluded.
    box
        Edges; None if the object has no box.
    columns
        Other values by column name.
    """

    image: int
    name: str
    points: dict[str, tuple[float, float]] = field(default_factory=dict)
    occluded: set[str] = field(default_factory=set)
    box: Box | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def add_point(self, landmark: str, point: tuple[float, float], *, occluded: bool = False) -> None:
        """Add a labeled landmark.

        Raises
        ------
        UserError
            If the object has this landmark already.
        """
        if landmark in self.points:
            raise UserError(
                f"{self.name}: the landmark {quote(landmark)} occurs twice in one object; remove one of them,"
                " or group the landmarks by object"
            )
        self.points[landmark] = point
        if occluded:
            self.occluded.add(landmark)


class Notes:
    """Counts what was left out or assumed, and returns one line for each kind."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, one: str, several: str, what: str, number: int = 1) -> None:
        """Count a thing: ``add("tag", "tags", "skipped")`` gives "1 tag is skipped" or "2 tags are …"."""
        self._counts[one, several, what] += number

    def lines(self) -> tuple[str, ...]:
        """Return the notes in the order of their first occurrence."""
        return tuple(
            f"{count:,} {one if count == 1 else several} {'is' if count == 1 else 'are'} {what}"
            for (one, several, what), count in self._counts.items()
            if count
        )


def parse_number(value: object, location: str, what: str) -> float:
    """Return a coordinate from text or a JSON number.

    Raises
    ------
    UserError
        If it is missing, not a number, not finite, or its absolute value exceeds `MAX_COORDINATE`.
    """
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not abs(number) <= MAX_COORDINATE:
        shown = "missing" if value is None else repr(value if isinstance(value, float) else str(value)[:40])
        raise UserError(f"{location}: {what} is {shown}; correct it to a number of pixels within the image")
    return number


def note_changed_sizes(
    recorded: Mapping[int, tuple[object, object]], images: Sequence[ImageSource], notes: Notes
) -> None:
    """Count the images whose size differs from the width and height that their labels record.

    Parameters
    ----------
    recorded
        Width and height by the index of the image; ignored if they are not whole numbers.
    images
        The images.
    notes
        Where to count them.
    """
    what = "of another size than when labeled: check that the landmarks fit"
    for index, (width, height) in recorded.items():
        size = f"{width} {height}".split()
        if all(part.isascii() and part.isdigit() and len(part) < 10 for part in size):
            with suppress(UserError):  # a missing or damaged image is reported when it is decoded
                changed = tuple(int(part) for part in size) != image_size(images[index].path)
                notes.add("image", "images", what, int(changed))


def order_names(names: Sequence[str]) -> list[str]:
    """Return landmark names in a stable order.

    Names of a built-in schema are in its order, and numbers are in numerical order. Other names remain in
    the given order.
    """
    for schema in SCHEMAS.values():
        if set(names) == set(schema.names):
            return list(schema.names)
    if all(name.isascii() and name.isdigit() and len(name) < 10 for name in names):
        return sorted(names, key=int)
    return list(names)


def make_schema(
    name: str, names: Sequence[str], source: Path, edges: Sequence[tuple[str, str]] = ()
) -> LandmarkSchema:
    """Return the schema of landmark names; `edges` become its skeleton unless it is built in.

    Raises
    ------
    UserError
        If there are more than `MAX_LANDMARKS` names, or one is not valid Unicode; `source` is the file in
        the message.
    """
    if len(names) > MAX_LANDMARKS:
        raise UserError(
            f"{source}: {len(names):,} different landmark names, {quote(names[0])} and others; use the same"
            f" names, at most {MAX_LANDMARKS:,}, for all objects"
        )
    for each in names:
        if each != _replace_surrogates(each):
            raise UserError(f"{source}: the landmark name {quote(each)} is not valid Unicode; rename it")
    check_names(names, str(source))
    schema = schema_from_names(name, order_names(names))
    if not edges or schema in SCHEMAS.values():
        return schema
    return replace(schema, skeleton=tuple(edges))


def build_annotations(
    objects: Sequence[LabeledObject],
    images: tuple[ImageSource, ...],
    source: Path,
    schema: LandmarkSchema,
    notes: Sequence[str] = (),
    *,
    has_visibility: bool = False,
    bad_rows: Sequence[str] = (),
) -> Annotations:
    """Return the objects as `Annotations`; landmarks that an object lacks are unlabeled.

    Raises
    ------
    UserError
        If there are no objects.
    """
    check_objects(objects, source, notes, bad_rows)
    n, k = len(objects), len(schema)
    index = {name: i for i, name in enumerate(schema.names)}
    points = np.full((n, k, 2), np.nan)
    visibility = np.full((n, k), NOT_LABELED, np.uint8)
    for row, each in enumerate(objects):
        for landmark, point in each.points.items():
            points[row, index[landmark]] = point
            visibility[row, index[landmark]] = OCCLUDED if landmark in each.occluded else VISIBLE
    columns = dict.fromkeys(name for each in objects for name in each.columns)
    return Annotations(
        schema=schema,
        images=images,
        rows=np.array([each.image for each in objects], np.int64),
        points=points,
        names=tuple(_replace_surrogates(each.name) for each in objects),
        source=str(source),
        visibility=visibility if has_visibility else None,
        boxes=_stack_boxes(objects),
        columns={
            _replace_surrogates(name): tuple(
                _replace_surrogates(each.columns.get(name, "")) for each in objects
            )
            for name in columns
        },
        notes=tuple(notes),
        bad_rows=tuple(map(_replace_surrogates, bad_rows)),
    )


def _replace_surrogates(text: str) -> str:
    """Return text that can be written as UTF-8: JSON may contain halves of surrogate pairs."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def check_objects(
    objects: Sequence[LabeledObject], source: Path, notes: Sequence[str] = (), bad_rows: Sequence[str] = ()
) -> None:
    """Raise UserError if there are no objects: with the rows that cannot be used, or the notes."""
    if objects:
        return
    bad_rows = [_replace_surrogates(message) for message in bad_rows]
    if len(bad_rows) == 1:
        raise UserError(bad_rows[0])
    if bad_rows:
        raise UserError(f"{bad_rows[0]} (all {len(bad_rows):,} rows cannot be used)", bad_rows)
    raise UserError(f"{source}: no object with landmarks; {'; '.join(notes)[:200] or 'it has no labels'}")


def _stack_boxes(objects: Sequence[LabeledObject]) -> np.ndarray | None:
    """Return the (N, 4) boxes, NaN where an object has none; None if no object has one."""
    if all(each.box is None for each in objects):
        return None
    return np.array([(np.nan,) * 4 if each.box is None else each.box for each in objects])
