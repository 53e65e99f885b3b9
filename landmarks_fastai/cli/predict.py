"""The command `predict`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from landmarks_fastai.cli.options import (
    DataOption,
    DetectorOption,
    DeviceOption,
    ModelsOption,
    RefineOption,
    TrustOption,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from landmarks_fastai.commands.landmark_files import ImageResult
    from landmarks_fastai.data.box_files import ImageBox
    from landmarks_fastai.inference.detectors.base import Detector
    from landmarks_fastai.inference.predictor import Predictor


JSON = "json"
"""Value of --format with the effect of --json."""


@dataclass(frozen=True)
class ImageOptions:
    """Options of `predict` that have no effect with --use-dataset."""

    json: bool
    csv: bool
    formats: tuple[str, ...]
    box: str | None
    boxes: Path | None
    detector: str
    refine: int | None
    names: bool

    @property
    def given(self) -> bool:
        """Whether any option differs from its default."""
        return self != ImageOptions(False, False, (), None, None, "auto", None, False)


def predict(
    images: Annotated[
        Optional[list[str]],
        typer.Argument(help="Image files, folders or glob patterns.", metavar="IMAGE"),
    ] = None,
    models: ModelsOption = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the drawings and the landmarks.", metavar="FOLDER")
    ] = Path("predictions"),
    json: Annotated[
        bool, typer.Option("--json", help="Write landmarks.json (the default without --csv and --format).")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write landmarks.csv.")] = False,
    formats: Annotated[
        Optional[list[str]],
        typer.Option(
            "--format",
            help="Write the predictions as labels, for an annotation tool: label-studio, coco, csv, parquet …"
            " (see `convert`), or json. Repeatable.",
            metavar="FORMAT",
        ),
    ] = None,
    box: Annotated[
        Optional[str],
        typer.Option(
            "--box",
            help="Edges of the box around the only face, in pixels. Default: every detected face.",
            metavar="X0,Y0,X1,Y1",
        ),
    ] = None,
    boxes: Annotated[
        Optional[Path],
        typer.Option(
            "--boxes",
            help="Boxes of the faces in each image: a CSV with the columns image, x0, y0, x1, y1, or COCO"
            " detections or annotations.",
            metavar="FILE",
        ),
    ] = None,
    detector: DetectorOption = "auto",
    refine: RefineOption = None,
    names: Annotated[bool, typer.Option("--names", help="Draw the names of the landmarks.")] = False,
    use_dataset: Annotated[
        bool,
        typer.Option(
            "--use-dataset",
            help="Instead of images, draw labels and predictions of the first 3 rows of --data.",
        ),
    ] = False,
    data: DataOption = None,
    device: DeviceOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Predict the landmarks of faces in images.

    Draws the landmarks of all detected faces and writes their coordinates to a file.

    For example:

      landmarks-fastai predict photo.jpg

      landmarks-fastai predict photos/ 'more/*.png' --model runs/default --csv --out found

      landmarks-fastai predict group.jpg --box 120,80,300,260

      landmarks-fastai predict photos --boxes boxes.csv

      landmarks-fastai predict photos --format label-studio --out prelabeled

      landmarks-fastai predict photo.jpg --model runs/default --model runs/default-2

      landmarks-fastai predict --use-dataset --data synthetic
    """
    labels = tuple(name for name in dict.fromkeys(formats or ()) if name != JSON)
    options = ImageOptions(json or JSON in (formats or ()), csv, labels, box, boxes, detector, refine, names)
    _check_options(use_dataset, images, data, options)
    if box is not None:
        parse_box(box)
    from landmarks_fastai.cli.models import open_predictor, warn_if_synthetic
    from landmarks_fastai.utils.images import find_images

    paths = find_images(images) if images else []
    given = _read_boxes(paths, options)
    predictor = open_predictor(models, device, trust_pickle)
    if use_dataset:
        _draw_samples(predictor, data, out)
        return
    warn_if_synthetic(predictor)
    _predict_images(predictor, paths, out, given, options)


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Return the edges x0, y0, x1, y1 of --box."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--box {text}: write four numbers, x0,y0,x1,y1 in pixels") from None
    if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):  # also true for NaN
        raise UserError(f"--box {text}: x0 must be less than x1, and y0 less than y1")
    return x0, y0, x1, y1


def _read_boxes(images: Sequence[Path], options: ImageOptions) -> Mapping[Path, Sequence[ImageBox]]:
    """Return the boxes of --box or --boxes by image, and print the notes about the file."""
    from landmarks_fastai.data.box_files import ImageBox, assign_boxes, read_boxes

    if options.box is not None:
        edges = parse_box(options.box)
        return {image: [ImageBox(image.name, edges, "--box")] for image in images}
    if options.boxes is None:
        return {}
    file = read_boxes(options.boxes)
    assigned, notes = assign_boxes(file, images)
    for note in (*file.notes, *notes):
        typer.echo(note)
    return assigned


def _check_options(
    use_dataset: bool, images: Sequence[str] | None, data: str | None, options: ImageOptions
) -> None:
    """Raise a UserError if options exclude each other."""
    if use_dataset == bool(images):
        raise UserError("specify at least one image, or use --use-dataset instead")
    if not use_dataset and data is not None:
        raise UserError("--data has an effect with --use-dataset only; remove it")
    if use_dataset and options.given:
        raise UserError(
            "--json, --csv, --format, --box, --boxes, --detector, --refine and --names have no effect with"
            " --use-dataset; remove them"
        )
    if options.box is not None and options.boxes is not None:
        raise UserError("--box and --boxes exclude each other; remove one of them")
    if options.box is not None and options.detector != "auto":
        raise UserError("--box replaces the detector; remove --detector")


def _draw_samples(predictor: Predictor, data: str | None, out: Path) -> None:
    """Draw labels and predictions of a data set."""
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.commands.evaluate import load_model_data
    from landmarks_fastai.commands.predict import draw_dataset_samples

    with data_progress() as progress:
        dataset = load_model_data(predictor.header.config, data, progress=progress)
    typer.echo(f"drawing: {draw_dataset_samples(predictor, dataset, out)}")


def _predict_images(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    boxes: Mapping[Path, Sequence[ImageBox]],
    options: ImageOptions,
) -> None:
    """Predict images, print each result and write the files of landmarks."""
    from landmarks_fastai.commands.predict import predict_images
    from landmarks_fastai.commands.predicted_labels import labels_path

    labels = {name: labels_path(out, name) for name in options.formats}
    errors: list[UserError] = []
    detector = _open_detector(predictor, options.detector, needed=not all(boxes.get(one) for one in images))
    noun = "object" if predictor.schema.eyes is None else "face"
    results = []
    for result in predict_images(
        predictor,
        images,
        out,
        detector=detector,
        boxes=boxes,
        refine=options.refine,
        names=options.names,
        failed=errors.append,
    ):
        results.append(result)
        count = len(result.landmarks)
        typer.echo(f"drawing: {result.drawing} ({format_count(count, noun)})")
        if not count:
            typer.echo(
                f"{result.image}: no {noun} detected; use --detector none for the center crop, or --box"
            )
    if results:
        _write_landmarks(results, predictor, out, labels, options)
    for error in errors[:-1]:
        typer.echo(f"error: {error}", err=True)
    if errors:
        raise errors[-1]


def _write_landmarks(
    results: Sequence[ImageResult],
    predictor: Predictor,
    out: Path,
    labels: Mapping[str, Path],
    options: ImageOptions,
) -> None:
    """Write the files of landmarks; `labels` are the files or folders of labels by format."""
    from landmarks_fastai.commands.landmark_files import write_landmarks_csv, write_landmarks_json
    from landmarks_fastai.commands.predicted_labels import write_predicted_labels

    if options.json or not (options.csv or labels):
        write_landmarks_json(out / "landmarks.json", results, predictor.schema, predictor.predicts_visibility)
        typer.echo(f"landmarks: {out / 'landmarks.json'}")
    if options.csv:
        write_landmarks_csv(out / "landmarks.csv", results, predictor.predicts_visibility)
        typer.echo(f"landmarks: {out / 'landmarks.csv'}")
    for name, path in labels.items():
        for line in write_predicted_labels(results, predictor.schema, path, name):
            typer.echo(f"{path}: {line}")
        typer.echo(f"labels: {path}")


def _open_detector(predictor: Predictor, name: str, needed: bool) -> Detector:
    """Return the detector; any, if all images have boxes."""
    from landmarks_fastai.cli.models import note_search, open_named_detector
    from landmarks_fastai.inference.face_detection import NO_DETECTOR, choose_detector

    if not needed:
        return open_named_detector(NO_DETECTOR, predictor)
    chosen = choose_detector(name, predictor.header)
    note_search(name, chosen, "use --boxes or --box for better crops")
    return open_named_detector(chosen, predictor)
