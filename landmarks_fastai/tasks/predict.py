"""Find the points in pictures, and write them down: drawn, and as JSON or CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from landmarks_fastai.tasks.points import DIGITS, points_as_cells, points_as_json

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
    if refine is None:
        refine = REFINE if predictor.header.mean_face is not None else 0
    if box is not None:
        return predictor.predict(picture, np.array([box]), refine=refine)
    return predictor.predict_squares(picture, detector(picture).squares, refine=refine)


def draw_faces(
    picture: NDArray[np.uint8], faces: Landmarks, schema: Schema, names: bool = False
) -> NDArray[np.uint8]:
    """Draw the points of every face on a copy of a picture; several faces get their numbers too."""
    for number, (points, confidence) in enumerate(zip(faces.points, faces.confidence, strict=True)):
        label = str(number) if len(faces.points) > 1 else None
        picture = draw_points(picture, points, schema, confidence=confidence, names=names, label=label)
    return picture


def detector_for(name: str, schema: Schema) -> str:
    """Return the detector's name that `name` means; "auto" looks for faces where the points are a face's."""
    if name != AUTO:
        return name
    return "none" if schema.inter_ocular is None else DEFAULT_DETECTOR


POINT_COLUMNS = ("image", "face", "point", "x", "y", "confidence")


def write_points_json(path: Path, found: Sequence[Found], predictor: Predictor) -> None:
    """Write {"schema", "points", "images": [{"image", "width", "height", "faces": [{"box", "points"}]}]}.

    A box is x0, y0, x1, y1, px of the picture: the face's square, before it was turned with a tilted head.
    For the points see `points_as_json`.
    """
    schema = predictor.schema
    images = [
        {
            "image": str(one.image),
            "width": one.size[0],
            "height": one.size[1],
            "faces": [
                {
                    "box": [round(edge, DIGITS) for edge in square.edges],
                    "points": points_as_json(points, confidence, schema),
                }
                for square, points, confidence in zip(
                    one.faces.squares, one.faces.points, one.faces.confidence, strict=True
                )
            ],
        }
        for one in found
    ]
    write_json(path, {"schema": schema.name, "points": list(schema.points), "images": images})


def write_points_csv(path: Path, found: Sequence[Found], predictor: Predictor) -> None:
    """Write a row of `POINT_COLUMNS` for each point."""
    rows = [
        (str(one.image), str(number), *cells)
        for one in found
        for number, face in enumerate(zip(one.faces.points, one.faces.confidence, strict=True))
        for cells in points_as_cells(*face, predictor.schema)
    ]
    write_csv(path, [POINT_COLUMNS, *rows])


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
