"""CVAT: the export "CVAT for images 1.1", an XML file with skeletons, points and boxes.

CVAT's coordinates are continuous, with (0, 0) at the top-left corner of the image, so 0.5 is subtracted from
points. Boxes are edges, as here. CVAT shows images upright, as their EXIF orientation says.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.cvat_labels import read_edges, skeleton_landmarks
from landmarks_fastai.data.formats.cvat_shapes import ShapeReader
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.labeled_objects import (
    LabeledObject,
    Notes,
    build_annotations,
    check_objects,
    make_schema,
    note_changed_sizes,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.xml_reader import leading_tags, read_xml

XML_NAME = "annotations.xml"
"""The file in the folder of an unpacked export."""


def recognizes(path: Path) -> bool:
    """Return True for an XML file of CVAT, and for a folder with an annotations.xml of CVAT."""
    tags = leading_tags(path / XML_NAME if path.is_dir() else path)
    return tags[:1] == ["annotations"] and bool({"version", "meta", "image", "track"} & set(tags[1:3]))


def read(path: Path) -> Annotations:
    """Read the skeletons, points and boxes; attributes of an object become columns.

    Points that are outside are unlabeled. The edges of skeletons become the skeleton of the schema.

    Raises
    ------
    UserError
        If it is not an export "CVAT for images", or no object can be used.
    """
    file = path / XML_NAME if path.is_dir() else path
    root = read_xml(file)
    _check_root(root, file)
    images = ImageFiles([file.parent / "images", file.parent])
    notes = Notes()
    shapes = ShapeReader(notes)
    sizes: dict[int, tuple[object, object]] = {}
    for number, element in enumerate(root.iterfind("image"), 1):
        name = element.get("name", "").strip()
        location = f"{file.name}, image {name[-80:] or number}"
        if not name:
            if len(element):
                shapes.bad_rows.append(f"{location}: the attribute 'name' is missing; export the file again")
            continue
        objects = shapes.add_image(element, location)
        for each in objects:
            each.image = images.add(name, location)
        if objects and images.missing(objects[0].image) is None:
            sizes[objects[0].image] = (element.get("width"), element.get("height"))
    note_changed_sizes(sizes, images.sources(), notes)
    check_objects(shapes.objects, file, notes.lines(), shapes.bad_rows)
    names = _landmark_names(shapes.objects, root.find("meta"))
    edges = [edge for edge in read_edges(root.find("meta")) if set(edge) <= set(names)]
    return images.drop_missing(
        build_annotations(
            shapes.objects,
            images.sources(),
            file,
            make_schema(file.resolve().parent.name, names, file, edges),
            notes.lines(),
            has_visibility=shapes.has_occluded,
            bad_rows=shapes.bad_rows,
        )
    )


FORMAT = AnnotationFormat("cvat", "CVAT for images XML", recognizes, read)


def _check_root(root: Element, file: Path) -> None:
    """Raise UserError if the file is another XML file or export."""
    if root.tag != "annotations":
        raise UserError(f"{file}: not an XML file of CVAT; name the annotations.xml of an export")
    if root.find("track") is not None and root.find("image") is None:
        raise UserError(f'{file}: an export "CVAT for video"; export as "CVAT for images 1.1" instead')


def _landmark_names(objects: list[LabeledObject], meta: Element | None) -> list[str]:
    """Return the landmark names: those of the skeletons in use in declared order, then all others."""
    used = {each.columns.get("label") for each in objects}
    declared = skeleton_landmarks(meta)
    names = [name for label in declared if label in used for name in declared[label]]
    return list(dict.fromkeys([*names, *(name for each in objects for name in each.points)]))
