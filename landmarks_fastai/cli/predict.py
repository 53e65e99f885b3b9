"""The command `predict`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from landmarks_fastai.cli.options import (
    BackendOption,
    DataOption,
    DetectorOption,
    DeviceOption,
    MaxFacesOption,
    MinConfidenceOption,
    ModelsOption,
    OverwriteOption,
    RefineOption,
    TrustOption,
)
from landmarks_fastai.cli.predict_shards import (
    EngineOption,
    ShardOptions,
    ShardSizeOption,
    WorkersOption,
    predict_to_shards,
)
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from landmarks_fastai.commands.landmark_files import ImageResult
    from landmarks_fastai.commands.prediction_folder import Existing
    from landmarks_fastai.commands.prediction_outputs import Outputs
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
    min_confidence: float | None
    names: bool
    no_draw: bool
    resume: bool
    max_faces: int | None

    @property
    def given(self) -> bool:
        """Whether any option differs from its default."""
        return self != ImageOptions(
            False, False, (), None, None, "auto", None, None, False, False, False, None
        )

    @property
    def outputs(self) -> Outputs:
        """The files of landmarks to write; landmarks.json if none is chosen."""
        from landmarks_fastai.commands.prediction_outputs import Outputs

        return Outputs(self.json or not (self.csv or self.formats), self.csv, self.formats)

    def check_shards(self) -> None:
        """Raise a UserError for an option that has no effect on Parquet shards."""
        if self.json or self.csv or self.formats or self.names or self.box or self.boxes or self.max_faces:
            raise UserError(
                "--json, --csv, --format, --names, --box, --boxes and --max-faces have no effect on Parquet"
                " shards (--engine, archives, lists and URLs); remove them"
            )

    def choose_min_confidence(self, predictor: Predictor) -> float:
        """Return the minimum confidence of the faces that are found."""
        from landmarks_fastai.inference.face_detection import FACE_DETECTORS, choose_detector
        from landmarks_fastai.inference.rejection import choose_min_confidence

        detector = choose_detector(self.detector, predictor.header)
        return choose_min_confidence(self.min_confidence, predictor, detector in FACE_DETECTORS)

    def describe(self, predictor: Predictor, models: Sequence[Path]) -> dict[str, Any]:
        """Return what determines the results, by the keys of `prediction_record.OPTIONS`."""
        from landmarks_fastai.inference.face_detection import choose_detector
        from landmarks_fastai.utils.files import file_sha256

        described = {
            "models": [file_sha256(path) for path in models],
            "detector": choose_detector(self.detector, predictor.header),
            "refine": predictor.default_refine if self.refine is None else self.refine,
            "min_confidence": self.choose_min_confidence(predictor),
            "names": self.names,
            "boxes": self.box if self.boxes is None else file_sha256(self.boxes),
            "outputs": self.outputs.names,
        }
        # left out otherwise, so that results of earlier versions can be resumed
        chosen = {"draw": False} if self.no_draw else {}
        return described | chosen | ({} if self.max_faces is None else {"max_faces": self.max_faces})


def predict(
    images: Annotated[
        Optional[list[str]],
        typer.Argument(
            help="Image files, folders or glob patterns; for many images, also tar and zip archives, lists of"
            " files (.txt) and URLs.",
            metavar="IMAGE",
        ),
    ] = None,
    models: ModelsOption = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out",
            help="Folder for the drawings and the landmarks. Default: predictions (landmark-shards for"
            " Parquet shards), or predictions-2, … if that contains results; with --resume or --overwrite,"
            " the last of them.",
            metavar="FOLDER",
        ),
    ] = None,
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
    min_confidence: MinConfidenceOption = None,
    max_faces: MaxFacesOption = None,
    names: Annotated[bool, typer.Option("--names", help="Draw the names of the landmarks.")] = False,
    no_draw: Annotated[
        bool, typer.Option("--no-draw", help="Do not draw the landmarks; only write their coordinates.")
    ] = False,
    use_dataset: Annotated[
        bool,
        typer.Option(
            "--use-dataset",
            help="Instead of images, draw labels and predictions of the first 3 rows of --data.",
        ),
    ] = False,
    data: DataOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep the results in --out, and add the images that are not done; same options."
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    engine: EngineOption = None,
    shard_size: ShardSizeOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Predict the landmarks of faces in images.

    Draws the landmarks of all detected faces and writes their coordinates to a file. After Ctrl-C, the file
    contains the images that are done, and --resume goes on.

    For example:

      landmarks-fastai predict photo.jpg

      landmarks-fastai predict photos/ 'more/*.png' --model runs/default --csv --out found

      landmarks-fastai predict group.jpg --box 120,80,300,260

      landmarks-fastai predict photos --boxes boxes.csv

      landmarks-fastai predict photos --format label-studio --out prelabeled

      landmarks-fastai predict photos --no-draw --csv

      landmarks-fastai predict photo.jpg --model runs/default --model runs/default-2

      landmarks-fastai predict --use-dataset --data synthetic
    """
    labels = tuple(name for name in dict.fromkeys(formats or ()) if name != JSON)
    options = ImageOptions(
        json or JSON in (formats or ()),
        csv,
        labels,
        box,
        boxes,
        detector,
        refine,
        min_confidence,
        names,
        no_draw,
        resume,
        max_faces,
    )
    _check_options(use_dataset, images, data, options)
    if use_dataset:
        _draw_samples(models, device, trust_pickle, backend, data, out, overwrite)
        return
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; remove one of them")
    if names and no_draw:
        raise UserError("--names draws names, and --no-draw excludes it; remove one of them")
    if box is not None:
        parse_box(box)
    shards = ShardOptions(engine, shard_size, workers)
    if shards.chosen(images or []):
        options.check_shards()
        existing = _existing(resume, overwrite)
        predict_to_shards(
            images or [],
            out,
            shards,
            existing,
            models,
            device,
            trust_pickle,
            backend,
            detector,
            refine,
            min_confidence,
        )
        return
    from landmarks_fastai.cli.models import choose_models, warn_if_synthetic
    from landmarks_fastai.commands.prediction_folder import check_available, choose_folder
    from landmarks_fastai.commands.prediction_pipeline import sessions_for
    from landmarks_fastai.inference.ensemble import open_predictors

    existing = _existing(resume, overwrite)
    paths = _find_images(images or [])
    out = choose_folder(existing) if out is None else out
    check_available(out, options.outputs, existing)
    given = _read_boxes(paths, options)
    files = choose_models(models)
    with sessions_for(len(paths)):
        predictor = open_predictors(files, device, trust_pickle, backend, typer.echo)
        warn_if_synthetic(predictor)
        needed = not all(given.get(path) for path in paths)
        finder = _open_detector(predictor, options.detector, needed, options.max_faces)
    _predict_images(predictor, finder, files, paths, out, given, options, existing)


def _existing(resume: bool, overwrite: bool) -> Existing:
    """Return what to do with results that exist."""
    from landmarks_fastai.commands.prediction_folder import Existing

    return Existing.OVERWRITE if overwrite else Existing.RESUME if resume else Existing.REFUSE


def _find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the images of the arguments, without drawings of earlier results."""
    from landmarks_fastai.commands.prediction_folder import split_drawings
    from landmarks_fastai.utils.images import find_images

    images, drawings = split_drawings(find_images(arguments, typer.echo))
    if drawings:
        count = format_count(len(drawings), "drawing")
        if not images:
            raise UserError(
                f"{drawings[0].parent}: contains only {count} of earlier predictions; name images"
            )
        typer.echo(f"{drawings[0].parent}: {count} of earlier predictions left out")
    return images


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
            "--json, --csv, --format, --box, --boxes, --detector, --refine, --min-confidence, --max-faces,"
            " --names, --no-draw and --resume have no effect with --use-dataset; remove them"
        )
    if options.box is not None and options.boxes is not None:
        raise UserError("--box and --boxes exclude each other; remove one of them")
    if options.box is not None and options.detector != "auto":
        raise UserError("--box replaces the detector; remove --detector")
    if options.box is not None and options.max_faces is not None:
        raise UserError("--max-faces is for detected faces, and --box replaces the detector; remove one")
    if options.box is not None and options.min_confidence is not None:
        raise UserError("--min-confidence is for detected faces, and --box replaces the detector; remove one")


def _draw_samples(
    models: Sequence[Path] | None,
    device: str,
    trust_pickle: bool,
    backend: str,
    data: str | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Draw labels and predictions of a data set."""
    from landmarks_fastai.cli.models import open_predictor
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.commands.evaluation_data import load_model_data
    from landmarks_fastai.commands.predict import SAMPLES_NAME, draw_dataset_samples
    from landmarks_fastai.commands.prediction_folder import DEFAULT_FOLDER

    out = DEFAULT_FOLDER if out is None else out
    if (out / SAMPLES_NAME).exists() and not overwrite:
        raise UserError(f"{out / SAMPLES_NAME}: already exists; choose another --out, or use --overwrite")
    predictor = open_predictor(models, device, trust_pickle, backend)
    with data_progress() as progress:
        dataset = load_model_data(predictor.header, data, progress=progress)
    typer.echo(f"drawing: {draw_dataset_samples(predictor, dataset, out)}")


def _predict_images(
    predictor: Predictor,
    detector: Detector,
    models: Sequence[Path],
    images: Sequence[Path],
    out: Path,
    boxes: Mapping[Path, Sequence[ImageBox]],
    options: ImageOptions,
    existing: Existing,
) -> None:
    """Predict images, print each result and write the files of landmarks."""
    from landmarks_fastai.commands.predict import predict_images
    from landmarks_fastai.commands.prediction_folder import open_folder
    from landmarks_fastai.utils.interrupt import Interrupt

    noun = "object" if predictor.schema.eyes is None else "face"
    made = options.describe(predictor, models)
    errors = 0

    def show(result: ImageResult) -> None:
        count = len(result.landmarks)
        shown = f"{result.image}:" if result.drawing is None else f"drawing: {result.drawing}"
        typer.echo(f"{shown} ({format_count(count, noun)})")
        if not count:
            typer.echo(
                f"{result.image}: no {noun} detected; use --detector none for the center crop, or --box"
            )

    def report(error: UserError) -> None:
        nonlocal errors
        errors += 1
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)

    with Interrupt() as interrupt, open_folder(out, made, options.outputs, existing) as folder:
        summary = predict_images(
            predictor,
            images,
            folder,
            detector=detector,
            boxes=boxes,
            refine=options.refine,
            min_confidence=made["min_confidence"],
            names=options.names,
            draw=not options.no_draw,
            interrupt=interrupt,
            found=show,
            failed=report,
            noted=typer.echo,
        )
        if summary.skipped:
            typer.echo(f"{format_count(summary.skipped, 'image')} done before, skipped")
        if not (summary.remaining and folder.replaces):
            for line in folder.finish(options.outputs, predictor.schema, predictor.predicts_visibility):
                typer.echo(line)
    if summary.remaining:
        done = f"{len(images) - summary.remaining:,} of {format_count(len(images), 'image')}"
        kept = "the earlier results are unchanged; " if folder.replaces else ""
        raise RunError(f"{out}: interrupted after {done}; {kept}go on with --resume")
    if errors:
        raise typer.Exit(UserError.exit_code)


def _open_detector(predictor: Predictor, name: str, needed: bool, max_faces: int | None) -> Detector:
    """Return the detector; any, if all images have boxes."""
    from landmarks_fastai.cli.models import note_search, open_named_detector
    from landmarks_fastai.inference.face_detection import NO_DETECTOR, choose_detector

    if not needed:
        return open_named_detector(NO_DETECTOR, predictor)
    chosen = choose_detector(name, predictor.header)
    note_search(name, chosen, "use --boxes or --box for better crops")
    return open_named_detector(chosen, predictor, max_faces)
