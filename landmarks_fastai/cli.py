"""The command line: reads options, calls one function, prints. Everything heavy is imported late.

The only room, beside the web page, that prints, exits and reads options.
"""

from __future__ import annotations

import math
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from landmarks_fastai.errors import LandmarksError, RunError, UserError, counted

if TYPE_CHECKING:
    from landmarks_fastai.config import Recipe
    from landmarks_fastai.evaluation import Report
    from landmarks_fastai.inference.faces import Detector
    from landmarks_fastai.inference.predictor import Predictor
    from landmarks_fastai.inference.tracking import Tracker
    from landmarks_fastai.schema import Schema
    from landmarks_fastai.training.folds import FoldsOutcome
    from landmarks_fastai.training.run import Outcome

# typer's own copy of click has no public name; BadParameter's ancestors have been the same for ten years
ClickError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    help="Train, judge and run facial landmark detectors. Add --debug to any command for the traceback.",
    add_completion=False,
    rich_markup_mode=None,
)

RUNS = Path("runs")
CTRL_C = 130

ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A recipe's name (see configs/) or YAML file.")
]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", help="Any other option of the recipe, as key.sub=value. Repeatable."),
]
DataOption = Annotated[
    Optional[str],
    typer.Option("--data", help="kaggle, synthetic, or a path: Kaggle's zip or CSV, or your CSV and images."),
]
FixesOption = Annotated[
    Optional[Path], typer.Option("--fixes", help="A CSV of corrected labels; data --audit begins one.")
]
SeedOption = Annotated[Optional[int], typer.Option("--seed", help="Seed of everything that is drawn.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
ModelOption = Annotated[
    Optional[Path], typer.Option("--model", help="Run, model file or resnet18. Default: newest run.")
]
ModelsOption = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--model", help="Run, model file or resnet18; several are averaged. Default: newest run. Repeatable."
    ),
]
ModelsArgument = Annotated[
    list[Path],
    typer.Argument(help="Runs, model files or resnet18; several are averaged.", metavar="MODEL..."),
]
DetectorOption = Annotated[
    str,
    typer.Option(
        "--detector",
        help="auto, centerface, dlib, yunet, or none: the middle square.",
    ),
]
RefineOption = Annotated[
    Optional[int],
    typer.Option(
        "--refine",
        min=0,
        max=5,
        help="Lay the square anew around the points, turned with the head, so often.",
    ),
]
TrustOption = Annotated[bool, typer.Option("--trust-pickle", help="Open a .pkl, which can run any code.")]


def main() -> None:
    """Run the app; every error that is ours becomes one line on stderr and an exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug))


def run(arguments: list[str], debug: bool = False) -> int:
    """Run one command.

    Returns
    -------
    int
        0 if all went well, 1 if a run failed, 2 if the input was wrong.
    """
    try:
        code = app(arguments or ["--help"], prog_name="landmarks-fastai", standalone_mode=False)
        if code == CTRL_C:  # typer has swallowed the KeyboardInterrupt
            raise KeyboardInterrupt
        return int(code or 0)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        message, status = _explain(error)
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _explain(error: BaseException) -> tuple[str, int]:
    """Turn whatever ended a command into a line and an exit code."""
    if isinstance(error, LandmarksError):
        return str(error), error.exit_code
    if isinstance(error, ClickError):
        return getattr(error, "format_message", error.__str__)(), 2
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "stopped", 1
    if isinstance(error, OSError):  # what no room has foreseen is still the machine's doing
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    return f"{type(error).__name__}: {error} (a fault of ours; --debug shows where)", 1


@app.command()
def train(
    config: ConfigOption = "default",
    arch: Annotated[Optional[str], typer.Option("--arch", help="resnet18, resnet34, resnet50 …")] = None,
    epochs: Annotated[
        Optional[int], typer.Option("--epochs", help="How often to go through the faces.")
    ] = None,
    batch_size: Annotated[Optional[int], typer.Option("--batch-size", help="Faces a step.")] = None,
    lr: Annotated[
        Optional[float], typer.Option("--lr", help="Highest learning rate of the schedule.")
    ] = None,
    seed: SeedOption = None,
    start: Annotated[
        Optional[str],
        typer.Option("--start", help="Begin with a model's weights: a file, run or resnet18."),
    ] = None,
    data: DataOption = None,
    fixes: FixesOption = None,
    out: Annotated[Optional[Path], typer.Option("--out", help="Run folder. Default: runs/RECIPE.")] = None,
    device: Annotated[Optional[str], typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = None,
    workers: Annotated[Optional[int], typer.Option("--workers", help="Processes that make batches.")] = None,
    reduce_data: Annotated[
        bool, typer.Option("--reduce-data", help="Keep 200 faces, for a quick try.")
    ] = False,
    folds: Annotated[
        Optional[int], typer.Option("--folds", help="Train so many models, each face held out by one.")
    ] = None,
    settings: SetOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that stands in --out.")
    ] = False,
    resume: Annotated[
        Optional[Path],
        typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run; no other option."),
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Only find a learning rate, and save its plot.")
    ] = False,
) -> None:
    """Train a model and write its run folder.

    For example:

      landmarks-fastai train

      landmarks-fastai train --config quick --data synthetic

      landmarks-fastai train --arch resnet34 --epochs 30 --lr 0.002

      landmarks-fastai train --data my_points.csv --start resnet18

      landmarks-fastai train --folds 5 --out runs/folds

      landmarks-fastai train --resume runs/default
    """
    overrides = {
        "model.arch": arch,
        "model.start": start,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.schedule.max_lr": lr,
        "seed": seed,
        "data.source": data,
        "data.fixes": None if fixes is None else str(fixes),
        "data.limit": 200 if reduce_data else None,
        "data.folds": folds,
        "training.device": device,
        "training.workers": workers,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    if resume is not None and (given or settings or out or overwrite or find_lr or config != "default"):
        raise UserError("--resume goes on with the run's own recipe and takes no other option")
    from landmarks_fastai.config import load_recipe

    if resume is not None:
        _say("loading …")
        _resume(resume)
    else:
        recipe = load_recipe(config, given, settings or [])
        _say("loading …")
        from landmarks_fastai.training.run import next_folder

        name = Path(config).stem
        if find_lr:
            _find_lr(recipe, out or next_folder(RUNS, f"{name}-lr"))
            return
        _train(recipe, out or next_folder(RUNS, name), overwrite)


@app.command()
def evaluate(
    models: ModelsArgument,
    data: DataOption = None,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="Folder for the report. Default: evaluation, beside a model's file."),
    ] = None,
    rows: Annotated[
        str, typer.Option("--rows", help="auto (only faces that the model has not trained on) or all.")
    ] = "auto",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored face.")] = False,
    device: DeviceOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Judge a model on labelled faces: numbers by point, the CED curve, confidence, the 16 worst faces.

    On the data that the model was trained with, only its validation faces are judged. Several models
    are judged as their mean, on faces that none of them has trained on.

    For example:

      landmarks-fastai evaluate runs/default

      landmarks-fastai evaluate runs/default/model.onnx --data my_points.csv --out report

      landmarks-fastai evaluate runs/default runs/default-2 --out report
    """
    if rows not in ("auto", "all"):
        raise UserError(f"--rows {rows}: choose auto or all")
    from landmarks_fastai.inference.ensemble import open_models
    from landmarks_fastai.inference.modelfile import RELEASED, resolve_models
    from landmarks_fastai.tasks.evaluate import evaluate_model, unseen_rows

    paths = resolve_models(models)
    predictor = open_models(paths, device, trust_pickle)
    table = _table_for(predictor.header.recipe, data)
    unseen = unseen_rows([path.parent for path in paths], table) if rows == "auto" else None
    if unseen is not None:
        table = table.rows(unseen)
        who = "the model did not train" if len(paths) == 1 else "no model trained"
        _say(f"judging the {len(table):,} faces that {who} on (--rows all takes every one)")
        if start := predictor.header.recipe.get("model", {}).get("start"):
            _say(f"{start}, which it began with, may have been trained on some of them")
    lone = not all((path.parent / "data.json").is_file() for path in paths)
    if rows == "auto" and lone and unseen is not None:
        _say("one of the models is a file alone, which does not say which faces it was trained on")
    elif rows == "auto" and lone:
        _say(f"judging all {len(table):,} faces; a model file alone does not say which it was trained on")
    beside = paths[0].parent if len(paths) == 1 else models[0] if len(models) == 1 else Path()
    folder = out or (Path() if beside == RELEASED else beside) / "evaluation"
    report = evaluate_model(predictor, table, folder, flip)
    _print_report(report)
    calibration = "" if report.calibration is None else ", calibration.png"
    _say(f"written to {folder}: metrics.json, faces.csv, ced.png, points.png, worst.png{calibration}")


@app.command()
def predict(
    images: Annotated[Optional[list[str]], typer.Argument(help="Pictures, folders or patterns.")] = None,
    models: ModelsOption = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the drawings and points.")] = Path(
        "predictions"
    ),
    json: Annotated[bool, typer.Option("--json", help="Write points.json (the default).")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write points.csv.")] = False,
    box: Annotated[
        Optional[str],
        typer.Option("--box", help="The edges of the one face, x0,y0,x1,y1 px. Default: every face found."),
    ] = None,
    detector: DetectorOption = "auto",
    refine: RefineOption = None,
    names: Annotated[bool, typer.Option("--names", help="Write each point's name beside it.")] = False,
    use_dataset: Annotated[
        bool, typer.Option("--use-dataset", help="Show the first 3 faces of --data, prediction beside truth.")
    ] = False,
    data: DataOption = None,
    device: DeviceOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Find the points in pictures, draw them and write them down.

    For example:

      landmarks-fastai predict photo.jpg

      landmarks-fastai predict photos/ 'more/*.png' --model runs/default --csv --out found

      landmarks-fastai predict group.jpg --box 120,80,300,260

      landmarks-fastai predict photo.jpg --model runs/default --model runs/default-2

      landmarks-fastai predict --use-dataset --data synthetic
    """
    if use_dataset == bool(images):
        raise UserError("name at least one picture, or --use-dataset instead")
    if not use_dataset and data is not None:
        raise UserError("--data goes with --use-dataset; pictures are named without it")
    if use_dataset and (json or csv or box or detector != "auto" or refine is not None or names):
        raise UserError(
            "--json, --csv, --box, --detector, --refine and --names go with pictures, not with --use-dataset"
        )
    if box is not None and detector != "auto":
        raise UserError("--box says where the face is; leave --detector out")
    edges = None if box is None else _parse_box(box)
    from landmarks_fastai.images import find_images

    paths = find_images(images) if images else []
    predictor = _open_predictor(models, device, trust_pickle)
    if use_dataset:
        from landmarks_fastai.tasks.predict import predict_first_faces

        _say(f"drawn: {predict_first_faces(predictor, _table_for(predictor.header.recipe, data), out)}")
        return
    from landmarks_fastai.tasks.predict import (
        detector_for,
        predict_images,
        write_points_csv,
        write_points_json,
    )

    errors: list[UserError] = []
    found = []
    finder = _open_detector("none" if box else detector_for(detector, predictor.schema))
    for one in predict_images(
        predictor, paths, out, detector=finder, box=edges, refine=refine, names=names, failed=errors.append
    ):
        found.append(one)
        count = len(one.faces.points)
        _say(f"drawn: {one.drawing} ({counted(count, 'face')})")
        if not count:
            _say(f"{one.image}: no face found; --detector none takes the middle square, --box names one")
    if found and (json or not csv):
        write_points_json(out / "points.json", found, predictor)
        _say(f"points: {out / 'points.json'}")
    if found and csv:
        write_points_csv(out / "points.csv", found, predictor)
        _say(f"points: {out / 'points.csv'}")
    for error in errors[:-1]:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        raise errors[-1]


@app.command()
def video(
    source: Annotated[Optional[Path], typer.Argument(help="The video.")] = None,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="The video to write. Default: predictions/NAME_points.mp4."),
    ] = None,
    models: ModelsOption = None,
    landmarks: Annotated[
        Optional[Path], typer.Option("--landmarks", help="Write the points: .csv, .json or .parquet.")
    ] = None,
    frames: Annotated[
        Optional[Path], typer.Option("--frames", help="Write the frames as pictures into this folder.")
    ] = None,
    from_frames: Annotated[
        Optional[Path], typer.Option("--from-frames", help="Make the video of a folder of pictures.")
    ] = None,
    fps: Annotated[
        Optional[float], typer.Option("--fps", help="Frames a second. Default: the source's own times.")
    ] = None,
    start: Annotated[float, typer.Option("--start", help="Begin here, seconds.")] = 0.0,
    end: Annotated[Optional[float], typer.Option("--end", help="Stop before this, seconds.")] = None,
    no_draw: Annotated[bool, typer.Option("--no-draw", help="Leave the frames as they are.")] = False,
    no_smooth: Annotated[bool, typer.Option("--no-smooth", help="Don't steady the points.")] = False,
    detector: DetectorOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")] = False,
    device: DeviceOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Find the points in every frame of a video, and draw them.

    For example:

      landmarks-fastai video clip.mp4

      landmarks-fastai video clip.mov --landmarks points.csv --start 10 --end 20 --out part.mp4

      landmarks-fastai video clip.mp4 --frames frames --no-draw

      landmarks-fastai video --from-frames frames --fps 30 --out again.mp4
    """
    if (source is None) == (from_frames is None):
        raise UserError("name a video, or --from-frames with a folder of pictures")
    if from_frames is not None and (start or end is not None):
        raise UserError("--start and --end cut a video; leave them out with --from-frames")
    if from_frames is not None and not from_frames.is_dir():
        raise UserError(f"--from-frames {from_frames}: no such folder")
    if source is not None and source.is_dir():
        raise UserError(f"{source}: a folder; to make a video of its pictures use --from-frames")
    taken = from_frames or source
    assert taken is not None
    if out is None and not no_draw:
        out = Path("predictions") / f"{taken.resolve().stem}_points.mp4"
    from landmarks_fastai.tasks.video import annotate_video
    from landmarks_fastai.terminal import frame_bar

    tracker = schema = None
    if landmarks is not None or not no_draw:  # else frames are only copied
        tracker, schema = _open_tracker(models, device, trust_pickle, detector, smooth=not no_smooth)
    with frame_bar() as progress:
        done = annotate_video(
            taken,
            out,
            tracker,
            schema,
            start=start,
            end=end,
            fps=fps,
            draw=not no_draw,
            points=[] if landmarks is None else [landmarks],
            frames=frames,
            overwrite=overwrite,
            progress=progress,
        )
    faces = "" if tracker is None else f", {counted(done.faces, 'face')}"
    written = ", ".join(str(path) for path in (out, landmarks, frames) if path is not None)
    _say(f"{counted(done.frames, 'frame')}{faces}: {written}")
    if done.interrupted:
        _say(f"stopped by you at {done.seconds:.2f} s; what was written until there is whole")
    if done.damage is not None:
        raise RunError(f"{taken}: {done.damage}; what was written until {done.seconds:.2f} s is whole")


@app.command()
def live(
    camera: Annotated[str, typer.Option("--camera", help="Its number, or a file or URL in its place.")] = "0",
    models: ModelsOption = None,
    no_smooth: Annotated[bool, typer.Option("--no-smooth", help="Don't steady the points.")] = False,
    detector: DetectorOption = "auto",
    device: DeviceOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Show the camera with points and frames per second; q or Esc ends it.

    For example:

      landmarks-fastai live

      landmarks-fastai live --camera 1 --model runs/default
    """
    from landmarks_fastai.tasks.live import check_screen, watch

    check_screen()
    tracker, schema = _open_tracker(models, device, trust_pickle, detector, smooth=not no_smooth)
    outcome = watch(camera, tracker, schema)
    _say(f"{counted(outcome.frames, 'frame')}, {outcome.fps:.1f} a second")


@app.command()
def web(
    model: ModelOption = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Of 127.0.0.1.")] = 7860,
    detector: DetectorOption = "auto",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Don't open the page.")] = False,
) -> None:
    """Serve a page on this machine: drop a photo or a video, see its points.

    For example:

      landmarks-fastai web

      landmarks-fastai web --model runs/default --port 8000
    """
    from landmarks_fastai.inference.modelfile import known_models, resolve_models
    from landmarks_fastai.web import serve

    models = known_models(RUNS) if model is None else resolve_models([model])
    serve(models, detector=detector, port=port, open_browser=not no_browser)


@app.command()
def submit(
    models: ModelsArgument,
    data: Annotated[
        str, typer.Option("--data", help="kaggle, Kaggle's zip, or a folder with its files.")
    ] = "kaggle",
    out: Annotated[Path, typer.Option("--out", help="The CSV to write.")] = Path("submission.csv"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    device: DeviceOption = "auto",
    trust_pickle: TrustOption = False,
) -> None:
    """Write a submission for Kaggle's Facial Keypoints Detection.

    For example:

      landmarks-fastai submit runs/default

      landmarks-fastai submit runs/default --data facial-keypoints-detection.zip --out submission.csv

      landmarks-fastai submit runs/default runs/default-2
    """
    if out.exists() and not overwrite:
        raise UserError(f"{out} is there already; choose another --out or use --overwrite")
    from landmarks_fastai.data.source import default_cache, fetch_kaggle
    from landmarks_fastai.inference.ensemble import open_models
    from landmarks_fastai.inference.modelfile import resolve_models
    from landmarks_fastai.tasks.submit import write_submission

    predictor = open_models(resolve_models(models), device, trust_pickle)
    with _download_bar() as progress:
        source = fetch_kaggle(default_cache(), progress) if data == "kaggle" else Path(data)
    _say(f"{write_submission(predictor, source, out):,} rows written to {out}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Run folder or .safetensors file.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .safetensors or .onnx.")],
    half: Annotated[
        bool, typer.Option("--half", help="Keep weights at half precision: half the size.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> None:
    """Write a trained model as one file to hand on, and check that its points are the same.

    For example:

      landmarks-fastai export runs/default --half --out small.safetensors
    """
    from landmarks_fastai.tasks.export import export_model

    moved = export_model(model, out, half, overwrite)
    _say(f"{out}: {out.stat().st_size / 1e6:.1f} MB; points on drawn faces moved by at most {moved:.2g} px")


@app.command()
def data(
    source: DataOption = None,
    config: ConfigOption = "default",
    seed: SeedOption = None,
    settings: SetOption = None,
    fixes: FixesOption = None,
    audit: Annotated[
        Optional[Path],
        typer.Option("--audit", metavar="RUN", help="Rank the labels that folds were trained on by doubt."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures and the audit.")] = Path(
        "data-report"
    ),
) -> None:
    """Tell what a source of faces holds, and save a sheet of samples, raw and augmented.

    With --audit, rank the labels by how far they lie from what the models of `train --folds` say that did
    not see them, into audit.csv and audit.png. The CSV becomes a file for --fixes once its column action is
    filled in: drop, unlabel or move.

    For example:

      landmarks-fastai data --data synthetic

      landmarks-fastai data --data my_points.csv --config default --set augment=origin

      landmarks-fastai data --audit runs/folds
    """
    from landmarks_fastai.config import load_recipe

    overrides = {"data.source": source, "data.fixes": None if fixes is None else str(fixes), "seed": seed}
    given = {key: value for key, value in overrides.items() if value is not None}
    if audit is not None:
        if given or settings or config != "default":
            raise UserError("--audit looks at the run's own data and takes no other option but --out")
        _audit(audit, out)
        return
    recipe = load_recipe(config, given, settings or [])
    from landmarks_fastai.data.split import split_by
    from landmarks_fastai.data.summary import summarise
    from landmarks_fastai.tasks.look import sample_sheet

    table = _load(recipe)
    _print_summary(summarise(table), table.source)
    parts = split_by(table, recipe.data, recipe.seed)
    groups = len(set(parts.groups.tolist()))
    _say(f"near-duplicates: {len(table):,} rows in {groups:,} groups that a split keeps together")
    _say(f"samples: {sample_sheet(table, recipe, out)}")


@app.command()
def recipes(
    name: Annotated[Optional[str], typer.Argument(help="Show this recipe whole.")] = None,
) -> None:
    """List the recipes that come along, or show one with every default written out.

    For example:

      landmarks-fastai recipes

      landmarks-fastai recipes resnet34
    """
    from landmarks_fastai.config import dump_recipe, load_recipe, recipe_names

    if name is not None:
        print(dump_recipe(load_recipe(name)), end="")
        return
    for each in recipe_names():
        recipe = load_recipe(each)
        print(
            f"{each:10} {recipe.model.arch}, {recipe.model.head.name}, {recipe.model.input_size} px,"
            f" {recipe.augment.name}, {recipe.training.schedule.name}, {recipe.training.epochs} epochs"
        )


# --- what the commands share ---------------------------------------------------------------------


def _say(text: str) -> None:
    print(text, flush=True)


def _train(recipe: Recipe, folder: Path, overwrite: bool) -> None:
    from landmarks_fastai.data.source import default_cache
    from landmarks_fastai.terminal import TrainingBar
    from landmarks_fastai.training.folds import train_folds
    from landmarks_fastai.training.run import train as start

    with _download_bar() as progress, TrainingBar() as bar:
        to = (recipe, folder, default_cache(), bar)
        if recipe.data.folds is None or recipe.data.fold is not None:
            outcome: Outcome | FoldsOutcome = start(*to, overwrite=overwrite, progress=progress)
        else:
            outcome = train_folds(*to, overwrite=overwrite, progress=progress)
    _print_outcome(outcome)


def _resume(folder: Path) -> None:
    from landmarks_fastai.data.source import default_cache
    from landmarks_fastai.terminal import TrainingBar
    from landmarks_fastai.training.folds import is_folds, resume_folds
    from landmarks_fastai.training.run import resume as go_on

    with _download_bar() as progress, TrainingBar() as bar:
        again = resume_folds if is_folds(folder) else go_on
        outcome = again(folder, default_cache(), bar, progress=progress)
    _print_outcome(outcome)


def _find_lr(recipe: Recipe, folder: Path) -> None:
    from landmarks_fastai.data.source import default_cache
    from landmarks_fastai.training.run import find_lr

    with _download_bar() as progress:
        suggestion, plot = find_lr(recipe, folder, default_cache(), progress)
    _say(f"suggested: --lr {suggestion:.2g}   plot: {plot}")


def _audit(run: Path, out: Path) -> None:
    from landmarks_fastai.config import load_recipe
    from landmarks_fastai.tasks.audit import CSV_NAME, SHEET_NAME, SHOWN, audit_run, check_folds

    check_folds(run)
    doubts = audit_run(run, _load(load_recipe(str(run / "config.yaml"))), out)
    _say(f"{len(doubts):,} faces, the most doubtful first: {out / CSV_NAME}")
    _say(f"the first {min(SHOWN, len(doubts))}, label beside prediction: {out / SHEET_NAME}")
    _say("fill in its column action (drop, unlabel or move), then train with --fixes and that file")


def _load(recipe: Recipe) -> Any:
    from landmarks_fastai.data.source import default_cache, load_table

    with _download_bar() as progress:
        return load_table(recipe.data, default_cache(), recipe.seed, progress)


def _table_for(recipe: dict[str, Any], source: str | None) -> Any:
    """Load the faces to judge a model by: those of its own recipe, or another source's, all of them."""
    from landmarks_fastai.config import Recipe, check_recipe

    own = check_recipe(recipe, "the model file's recipe") if recipe else Recipe()
    if source is not None and source != own.data.source:
        own = own.model_copy(update={"data": type(own.data)(source=source)})
    return _load(own)


def _parse_box(text: str) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--box {text}: write four numbers, x0,y0,x1,y1 in pixels") from None
    if not (-math.inf < x0 < x1 < math.inf and -math.inf < y0 < y1 < math.inf):  # nan is never less
        raise UserError(f"--box {text}: x1 and y1 must lie right of and below x0 and y0")
    return x0, y0, x1, y1


def _open_predictor(models: list[Path] | None, device: str, trust_pickle: bool) -> Predictor:
    from landmarks_fastai.inference.ensemble import open_models
    from landmarks_fastai.inference.modelfile import default_models, resolve_models

    paths = resolve_models(models) if models else default_models(RUNS)
    predictor = open_models(paths, device, trust_pickle)
    for path in paths:
        _say(f"model: {path}")
    return predictor


def _open_tracker(
    models: list[Path] | None, device: str, trust_pickle: bool, detector: str, smooth: bool
) -> tuple[Tracker, Schema]:
    from landmarks_fastai.inference.tracking import Tracker
    from landmarks_fastai.tasks.predict import detector_for

    predictor = _open_predictor(models, device, trust_pickle)
    name = detector_for(detector, predictor.schema)
    # without a detector every frame's middle square is looked at, as the origin did
    tracker = Tracker(predictor, _open_detector(name), smooth=smooth, follow=name != "none")
    return tracker, predictor.schema


def _open_detector(name: str) -> Detector:
    from landmarks_fastai.data.source import default_cache
    from landmarks_fastai.inference.faces import open_detector

    with _download_bar() as progress:
        return open_detector(name, default_cache(), progress)


def _download_bar() -> Any:
    from landmarks_fastai.terminal import download_bar

    return download_bar()


def _print_outcome(outcome: Outcome | FoldsOutcome) -> None:
    from landmarks_fastai.training.run import Outcome

    if isinstance(outcome, Outcome):
        _print_run(outcome)
    else:
        _print_folds(outcome)


def _print_run(outcome: Outcome) -> None:
    _print_report(outcome.report)
    folder = outcome.folder
    if outcome.interrupted:
        _say(f"stopped by you after {outcome.epochs} whole epochs; the model so far is usable.")
        _say(f"go on with: landmarks-fastai train --resume {folder}")
    _say(f"model: {folder / 'model.safetensors'}   all about the run: {folder}")


def _print_folds(outcome: FoldsOutcome) -> None:
    folder, folds = outcome.folder, outcome.folds
    if outcome.report is None:
        _say(f"stopped by you after {outcome.epochs} whole epochs of fold {outcome.done + 1} of {folds}.")
        _say(f"go on with: landmarks-fastai train --resume {folder}")
        return
    _say(f"all faces, each by the one of {folds} models that did not see its people:")
    _print_report(outcome.report)
    _say(f"models: {folder}/fold-1 … fold-{folds}   points out of fold: {folder / 'oof.csv'}")
    _say(f"labels that look wrong: landmarks-fastai data --audit {folder}")


def _print_report(report: Report) -> None:
    from landmarks_fastai.terminal import print_report

    print_report(report)


def _print_summary(summary: Any, source: str) -> None:
    from landmarks_fastai.terminal import print_summary

    print_summary(summary, source)
