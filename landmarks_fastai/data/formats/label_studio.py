"""Label Studio: the JSON export, a list of tasks with keypoints and rectangles.

Coordinates are percents of the width and height of the image as a browser shows it, upright, from the
top-left corner of the first pixel. They are multiplied by the size of the image file, and 0.5 is subtracted
from points, because the center of the first pixel is (0, 0) here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats.base import AnnotationFormat
from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.data.formats.json_start import json_start
from landmarks_fastai.data.formats.label_studio_images import file_names, find_image, image_value
from landmarks_fastai.data.formats.label_studio_regions import group_regions, parse_regions
from landmarks_fastai.data.formats.label_studio_writing import write_label_studio
from landmarks_fastai.data.formats.labeled_objects import (
    LabeledObject,
    Notes,
    build_annotations,
    check_objects,
    make_schema,
    note_changed_sizes,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.images import image_size
from landmarks_fastai.utils.json_reader import read_json
from landmarks_fastai.utils.text import quote

ANNOTATIONS = ("annotations", "completions")
"""Keys of the annotations of a task; ``completions`` before version 1.0."""

PREDICTIONS = "predictions"

Task = Mapping[str, object]


def recognizes(path: Path) -> bool:
    """Return True for a JSON list of tasks with results, and for Label Studio's export JSON-MIN."""
    text = json_start(path)
    if not text.startswith("["):
        return False
    has_results = '"result"' in text and any(f'"{key}"' in text for key in (*ANNOTATIONS, PREDICTIONS))
    return has_results or ('"annotation_id"' in text and '"annotator"' in text)


def read(path: Path) -> Annotations:
    """Read the keypoints and rectangles of all tasks.

    Of several annotations of a task, the last one that is not cancelled is read; the last prediction only if
    there is no annotation.

    Raises
    ------
    UserError
        If the file is not the JSON export of Label Studio, or no task can be used.
    """
    content = read_json(path)
    tasks = content if isinstance(content, list) else [content]
    _check_tasks(tasks, path)
    reader = _Reader(path)
    for number, task in enumerate(tasks, 1):
        try:
            reader.add_task(task, number)
        except UserError as error:
            reader.bad_rows.append(str(error))
    return reader.annotations()


FORMAT = AnnotationFormat(
    "label-studio",
    "Label Studio JSON",
    recognizes,
    read,
    write_label_studio,
    suffix=".json",
    write_predictions=partial(write_label_studio, as_predictions=True),
)


def _check_tasks(tasks: list[object], path: Path) -> None:
    """Raise UserError if no task has annotations, as in the export JSON-MIN."""
    dicts = [task for task in tasks if isinstance(task, dict)]
    if any(key in task for task in dicts for key in (*ANNOTATIONS, PREDICTIONS)):
        return
    if any("annotation_id" in task for task in dicts):
        raise UserError(
            f"{path}: the export JSON-MIN lacks relations and image sizes; export as JSON instead"
        )
    raise UserError(f"{path}: no tasks with 'annotations'; name the JSON export of Label Studio")


class _Reader:
    """Collects the objects of all tasks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images = ImageFiles([path.parent, path.parent / "images"])
        self._sizes: dict[int, tuple[object, object]] = {}
        self._objects: list[LabeledObject] = []
        self._notes = Notes()
        self._has_visibility = False
        self.bad_rows: list[str] = []

    def add_task(self, task: object, number: int) -> None:
        """Add the objects of a task; UserError if it cannot be used."""
        if not isinstance(task, dict):
            raise UserError(f"{self._path.name}, task {number}: not a JSON object; export the file again")
        identifier = task.get("id")
        if not isinstance(identifier, int | str) or not str(identifier):
            identifier = number
        location = f"{self._path.name}, task {str(identifier)[:40]}"
        result = self._select_result(task, location)
        if not result:
            self._notes.add("task without labels", "tasks without labels", "skipped")
            return
        path = self._find_image(task, location)
        regions = parse_regions(result, image_size(path), location, self._notes)
        if not regions.keypoints:
            self._notes.add("task without keypoints", "tasks without keypoints", "skipped")
            return
        objects = group_regions(regions, location, self._notes)
        image = self._images.add(str(path.absolute()), location)
        for each in objects:
            each.image = image
        self._objects += objects
        self._has_visibility |= bool(regions.occluded)
        recorded = next(item for item in result if isinstance(item, dict) and item.get("type") != "relation")
        self._sizes[image] = (recorded.get("original_width"), recorded.get("original_height"))

    def annotations(self) -> Annotations:
        """Return what was read."""
        images = self._images.sources()
        note_changed_sizes(self._sizes, images, self._notes)
        notes = [*self._notes.lines()]
        check_objects(self._objects, self._path, notes, self.bad_rows)
        names = list(dict.fromkeys(name for each in self._objects for name in each.points))
        schema = make_schema(self._path.stem, names, self._path)
        annotations = build_annotations(
            self._objects,
            images,
            self._path,
            schema,
            notes,
            has_visibility=self._has_visibility,
            bad_rows=self.bad_rows,
        )
        return self._images.drop_missing(annotations)

    def _select_result(self, task: Task, location: str) -> list[object]:
        """Return the result of the annotation or prediction that is read; empty if there is none."""
        annotations = [each for key in ANNOTATIONS for each in _dicts(task.get(key))]
        valid = [each for each in annotations if not each.get("was_cancelled")]
        what = "skipped"
        self._notes.add("cancelled annotation", "cancelled annotations", what, len(annotations) - len(valid))
        self._notes.add(
            "annotation that is not the last of its task",
            "annotations that are not the last of their task",
            what,
            max(len(valid) - 1, 0),
        )
        predictions = _dicts(task.get(PREDICTIONS))
        if not valid and predictions:
            self._notes.add("task", "tasks", "read from a prediction, because there is no annotation")
            valid = predictions
        result = valid[-1].get("result") if valid else []
        if not isinstance(result, list):
            raise UserError(f"{location}: 'result' is not a list; export the file again")
        return result

    def _find_image(self, task: Task, location: str) -> Path:
        data = task.get("data")
        reference = image_value(data) if isinstance(data, dict) else None
        if reference is None:
            raise UserError(f"{location}: no image in 'data'; remove the task, or add the path of its image")
        path = find_image(reference, self._images)
        if path is None:
            name = file_names(reference)[-1]
            raise UserError(f"{location}: no such image {quote(name)}; put it into {self._path.parent}")
        return path


def _dicts(value: object) -> list[dict[str, object]]:
    """Return the JSON objects in a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
