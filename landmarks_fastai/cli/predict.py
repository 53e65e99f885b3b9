"""The command `predict`."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    from landmarks_fastai.commands.predict import Box
    from landmarks_fastai.inference.predictor import Predictor


@dataclass(frozen=True)
class ImageOptions:
    """Options of `predict` that have no effect with --use-dataset."""

    json: bool
    csv: bool
    box: str | None
    detector: str
    refine: int | None
    names: bool

    @property
    def given(self) -> bool:
        """Whether any option differs from its default."""
        return self != ImageOptions(False, False, None, "auto", None, False)


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
        bool, typer.Option("--json", help="Write landmarks.json (the default without --csv).")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write landmarks.csv.")] = False,
    box: Annotated[
        Optional[str],
        typer.Option(
            "--box",
            help="Edges of the box around the only face, in pixels. Default: every detected face.",
            metavar="X0,Y0,X1,Y1",
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

      landmarks-fastai predict photo.jpg --model runs/default --model runs/default-2

      landmarks-fastai predict --use-dataset --data synthetic
    """
    options = ImageOptions(json, csv, box, detector, refine, names)
    _check_options(use_dataset, images, data, options)
    edges = None if box is None else parse_box(box)
    from landmarks_fastai.cli.models import open_predictor, warn_if_synthetic
    from landmarks_fastai.utils.images import find_images

    paths = find_images(images) if images else []
    predictor = open_predictor(models, device, trust_pickle)
    if use_dataset:
        _draw_samples(predictor, data, out)
        return
    warn_if_synthetic(predictor)
    _predict_images(predictor, paths, out, edges, options)


def parse_box(text: str) -> Box:
    """Return the edges x0, y0, x1, y1 of --box."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--box {text}: write four numbers, x0,y0,x1,y1 in pixels") from None
    if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):  # also true for NaN
        raise UserError(f"--box {text}: x0 must be less than x1, and y0 less than y1")
    return x0, y0, x1, y1


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
            "--json, --csv, --box, --detector, --refine and --names have no effect with --use-dataset; remove"
            " them"
        )
    if options.box is not None and options.detector != "auto":
        raise UserError("--box replaces the detector; remove --detector")


def _draw_samples(predictor: Predictor, data: str | None, out: Path) -> None:
    """Draw labels and predictions of a data set."""
    from landmarks_fastai.cli.progress import download_progress
    from landmarks_fastai.commands.evaluate import load_model_data
    from landmarks_fastai.commands.predict import draw_dataset_samples

    with download_progress() as progress:
        dataset = load_model_data(predictor.header.config, data, progress=progress)
    typer.echo(f"drawing: {draw_dataset_samples(predictor, dataset, out)}")


def _predict_images(
    predictor: Predictor, images: Sequence[Path], out: Path, box: Box | None, options: ImageOptions
) -> None:
    """Predict images, print each result and write the files of landmarks."""
    from landmarks_fastai.cli.models import open_named_detector
    from landmarks_fastai.commands.landmark_files import write_landmarks_csv, write_landmarks_json
    from landmarks_fastai.commands.predict import predict_images
    from landmarks_fastai.inference.face_detection import NO_DETECTOR, choose_detector

    errors: list[UserError] = []
    name = choose_detector(options.detector, predictor.schema) if box is None else NO_DETECTOR
    detector = open_named_detector(name)
    results = []
    for result in predict_images(
        predictor,
        images,
        out,
        detector=detector,
        box=box,
        refine=options.refine,
        names=options.names,
        failed=errors.append,
    ):
        results.append(result)
        count = len(result.landmarks)
        typer.echo(f"drawing: {result.drawing} ({format_count(count, 'face')})")
        if not count:
            typer.echo(f"{result.image}: no face detected; use --detector none for the center crop, or --box")
    if results and (options.json or not options.csv):
        write_landmarks_json(out / "landmarks.json", results, predictor.schema)
        typer.echo(f"landmarks: {out / 'landmarks.json'}")
    if results and options.csv:
        write_landmarks_csv(out / "landmarks.csv", results)
        typer.echo(f"landmarks: {out / 'landmarks.csv'}")
    for error in errors[:-1]:
        typer.echo(f"error: {error}", err=True)
    if errors:
        raise errors[-1]
