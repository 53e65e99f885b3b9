"""Find the points in pictures, and write them down: drawn, and as JSON or CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.drawing import draw_points, save_png, sheet
from landmarks_fastai.errors import UserError
from landmarks_fastai.files import write_csv, write_json
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.faces import DEFAULT_DETECTOR, Detector
from landmarks_fastai.inference.predictor import Landmarks, Predictor
from landmarks_fastai.inference.tracking import REFINE
from landmarks_fastai.schema import Schema
from landmarks_fastai.tasks.evaluate import check_schema

DIGITS = 3
AUTO = "auto"


@dataclass(frozen=True)
class Found:
    """The points of one picture.

    Parameters
    ----------
    image
        The picture's path.
    size
        Its width and height, px, upright.
    faces
        The points of B faces, none perhaps, in pixels of the picture.
    drawing
        Where the picture with its points was written.
    """

    image: Path
    size: tuple[int, int]
    faces: Landmarks
    drawing: Path


def predict_images(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    *,
    detector: Detector,
    box: tuple[float, float, float, float] | None = None,
    refine: int | None = None,
    names: bool = False,
    failed: Callable[[UserError], None],
) -> Iterator[Found]:
    """Predict and draw one picture after the other; one that can't be read is told of and passed over.

    Parameters
    ----------
    predictor
        The model.
    images
        The pictures' paths.
    out
        Folder for NAME_points.png.
    detector
        Where faces are, if no box is given.
    box
        Edges x0, y0, x1, y1 of the one face to look at.
    refine
        As `find_faces` takes it.
    names
        Write each point's name beside it.
    failed
        Told of each picture that can't be used.
    """
    taken: set[str] = set()
    for path in images:
        try:
            picture = read_image(path)
            faces = find_faces(predictor, picture, detector, box, refine)
        except UserError as error:
            # what does not name the picture is about its box
            failed(error if str(path) in str(error) else UserError(f"{path}: {error}"))
            continue
        drawn = draw_faces(picture, faces, predictor.schema, names)
        drawing = out / f"{_free_stem(path, taken)}_points.png"
        save_png(drawing, drawn)
        yield Found(path, (picture.shape[1], picture.shape[0]), faces, drawing)


def find_faces(
    predictor: Predictor,
    picture: NDArray[np.uint8],
    detector: Detector,
    box: tuple[float, float, float, float] | None = None,
    refine: int | None = None,
) -> Landmarks:
    """Find the points of every face in a picture, or of the boxed one.

    Parameters
    ----------
    predictor
        The model.
    picture
        (H, W, 3) uint8 RGB, upright.
    detector
        Where faces are, if no box is given.
    box
        Edges x0, y0, x1, y1 of the one face to look at.
    refine
        How often each face's square is laid anew around its points. None: as often as was measured to be
        best, or not at all where the model file is too old to know how.
    """
    boxes = detector(picture).edges if box is None else np.array([box])
    if refine is None:
        refine = REFINE if predictor.header.mean_face is not None else 0
    return predictor.predict(picture, boxes, refine=refine)


def draw_faces(
    picture: NDArray[np.uint8], faces: Landmarks, schema: Schema, names: bool = False
) -> NDArray[np.uint8]:
    """Draw the points of every face on a copy of a picture; several faces get their numbers too."""
    for number, points in enumerate(faces.points):
        label = str(number) if len(faces.points) > 1 else None
        picture = draw_points(picture, points, schema, names=names, label=label)
    return picture


def detector_for(name: str, schema: Schema) -> str:
    """Return the detector's name that `name` means; "auto" looks for faces where the points are a face's."""
    if name != AUTO:
        return name
    return "none" if schema.inter_ocular is None else DEFAULT_DETECTOR


def points_as_json(predictor: Predictor, found: Sequence[Found]) -> dict[str, Any]:
    """Return {"schema", "points", "images": [{"image", "width", "height", "faces"}]}: see `face_as_json`."""
    return {
        "schema": predictor.schema.name,
        "points": list(predictor.schema.points),
        "images": [
            {
                "image": str(one.image),
                "width": one.size[0],
                "height": one.size[1],
                "faces": faces_as_json(one.faces, predictor.schema),
            }
            for one in found
        ],
    }


def faces_as_json(faces: Landmarks, schema: Schema) -> list[dict[str, Any]]:
    """Return [{"box": [x0, y0, x1, y1], "points": {name: {"x", "y", "confidence"}}}], px of the picture.

    A confidence that the model does not know is null.
    """
    return [
        {
            "box": [round(edge, DIGITS) for edge in square.edges],
            "points": {
                name: {
                    "x": round(float(x), DIGITS),
                    "y": round(float(y), DIGITS),
                    "confidence": None if np.isnan(sure) else round(float(sure), DIGITS),
                }
                for name, (x, y), sure in zip(schema.points, points, confidence, strict=True)
            },
        }
        for square, points, confidence in zip(faces.squares, faces.points, faces.confidence, strict=True)
    ]


POINT_COLUMNS = ("image", "face", "point", "x", "y", "confidence")


def point_rows(found: Sequence[Found], schema: Schema) -> Iterator[tuple[str, ...]]:
    """Yield a row of `POINT_COLUMNS` for each point; an unknown confidence is an empty cell."""
    for one in found:
        for number, (face, confidence) in enumerate(zip(one.faces.points, one.faces.confidence, strict=True)):
            for name, (x, y), sure in zip(schema.points, face, confidence, strict=True):
                yield (
                    str(one.image),
                    str(number),
                    name,
                    f"{x:.{DIGITS}f}",
                    f"{y:.{DIGITS}f}",
                    "" if np.isnan(sure) else f"{sure:.{DIGITS}f}",
                )


def write_points_json(path: Path, found: Sequence[Found], predictor: Predictor) -> None:
    """Write `points_as_json`."""
    write_json(path, points_as_json(predictor, found))


def write_points_csv(path: Path, found: Sequence[Found], predictor: Predictor) -> None:
    """Write one line a point."""
    write_csv(path, [POINT_COLUMNS, *point_rows(found, predictor.schema)])


def predict_first_faces(predictor: Predictor, table: FaceTable, out: Path, count: int = 3) -> Path:
    """Draw the truth and the prediction of the first faces side by side, as the origin did."""
    shared = check_schema(predictor.schema, table.schema)
    faces = table.rows(np.arange(min(count, len(table))))
    predicted = predictor.predict_crops(faces.images).points[:, list(shared)]
    images, points, titles = [], [], []
    for image, true, found, name in zip(faces.images, faces.points, predicted, faces.names, strict=True):
        images += [image, image]
        points += [true, found]
        titles += [f"{name}: truth", f"{name}: predicted"]
    path = out / "dataset.png"
    save_png(path, sheet(images, points, table.schema, titles=titles, columns=2))
    return path


def _free_stem(path: Path, taken: set[str]) -> str:
    """Name a drawing after its picture; two pictures of one name in different folders get a number."""
    stem, number = path.stem, 1
    while stem in taken:
        number += 1
        stem = f"{path.stem}-{number}"
    taken.add(stem)
    return stem
