"""Find the points in pictures, and write them down: drawn, and as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.drawing import draw_points, save_png, sheet
from landmarks_fastai.errors import UserError
from landmarks_fastai.files import write_json, write_text
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.tasks.evaluate import check_schema

DIGITS = 3


@dataclass(frozen=True)
class Found:
    """The points of one picture.

    Parameters
    ----------
    image
        The picture's path.
    size
        Its width and height, px, upright.
    points
        (B, K, 2) points of B faces, x then y, pixels of the picture.
    drawing
        Where the picture with its points was written.
    """

    image: Path
    size: tuple[int, int]
    points: NDArray[np.float32]
    drawing: Path


def predict_images(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    *,
    box: tuple[float, float, float, float] | None = None,
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
    box
        Edges x0, y0, x1, y1 of the face; None takes the largest square in the middle.
    failed
        Told of each picture that can't be used.
    """
    taken: set[str] = set()
    for path in images:
        try:
            picture = read_image(path)
            points = _points(predictor, picture, box, path)
        except UserError as error:
            failed(error)
            continue
        drawn = picture
        for face in points:
            drawn = draw_points(drawn, face, predictor.schema)
        drawing = out / f"{_free_stem(path, taken)}_points.png"
        save_png(drawing, drawn)
        yield Found(path, (picture.shape[1], picture.shape[0]), points, drawing)


def _points(
    predictor: Predictor,
    picture: NDArray[np.uint8],
    box: tuple[float, float, float, float] | None,
    path: Path,
) -> NDArray[np.float32]:
    try:
        return predictor.predict(picture, None if box is None else np.array([box]))
    except UserError as error:  # a box that does not lie in this picture
        raise UserError(f"{path}: {error}") from error


def write_points_json(path: Path, found: Sequence[Found], predictor: Predictor) -> None:
    """Write {"schema", "points", "images": [{"image", "width", "height", "faces": [{name: [x, y]}]}]}."""
    names = predictor.schema.points
    content: dict[str, Any] = {
        "schema": predictor.schema.name,
        "points": list(names),
        "images": [
            {
                "image": str(one.image),
                "width": one.size[0],
                "height": one.size[1],
                "faces": [
                    {
                        name: [round(float(x), DIGITS), round(float(y), DIGITS)]
                        for name, (x, y) in zip(names, face, strict=True)
                    }
                    for face in one.points
                ],
            }
            for one in found
        ],
    }
    write_json(path, content)


def write_points_csv(path: Path, found: Sequence[Found], predictor: Predictor) -> None:
    """Write one line a point: image, face, point, x, y."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "face", "point", "x", "y"])
    for one in found:
        for number, face in enumerate(one.points):
            for name, (x, y) in zip(predictor.schema.points, face, strict=True):
                writer.writerow([one.image, number, name, f"{x:.{DIGITS}f}", f"{y:.{DIGITS}f}"])
    write_text(path, text.getvalue())


def predict_first_faces(predictor: Predictor, table: FaceTable, out: Path, count: int = 3) -> Path:
    """Draw the truth and the prediction of the first faces side by side, as the origin did."""
    shared = check_schema(predictor.schema, table.schema)
    faces = table.rows(np.arange(min(count, len(table))))
    predicted = predictor.predict_crops(faces.images)[:, list(shared)]
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
