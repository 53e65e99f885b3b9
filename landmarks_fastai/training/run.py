"""A run from start to end, and the folder that tells what happened. The only room that writes there.

Each step is a public function of another room; this one puts them in order.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import set_seed
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from landmarks_fastai.calibration import scale_factor
from landmarks_fastai.config import Recipe, dump_recipe, load_recipe
from landmarks_fastai.data.source import load_table
from landmarks_fastai.data.split import Split, split_by
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.drawing import judged_sheet, save_png
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.evaluation import Report, evaluate_points
from landmarks_fastai.figures import history_figure, lr_find_figure
from landmarks_fastai.files import read_json, replacing, write_json, write_text
from landmarks_fastai.inference.modelfile import MODEL_NAME, ModelHeader, save_model
from landmarks_fastai.inference.onnx_export import export_onnx
from landmarks_fastai.inference.predictor import torch_device
from landmarks_fastai.interrupt import Interrupt
from landmarks_fastai.network import resnet, unscale_points
from landmarks_fastai.training.callbacks import (
    Autocast,
    AverageWeights,
    EpochLog,
    FindLabelShift,
    Reporter,
    StopDiverged,
    StopOnInterrupt,
    weights_to_keep,
)
from landmarks_fastai.training.card import model_card
from landmarks_fastai.training.checkpoint import BEST, LAST, Checkpoint, Resume, epochs_from, read_tensors
from landmarks_fastai.training.learner import augmentation, build_learner, logging_callbacks
from landmarks_fastai.training.schedules import ScheduleByStep
from landmarks_fastai.training.start import (
    begin_from,
    check_start,
    find_start,
    open_start,
    said_of_start,
)

Progress = Callable[[int, int | None], None]

LR_PLOT = "lr_find.png"
"""What `find_lr` leaves: a folder that holds nothing else is still free for a run."""
LR_STEPS = 100
"""Batches of a search for a learning rate, as fastai has it."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Parameters
    ----------
    folder
        The run folder.
    report
        Scores on the validation faces, with the weights that were kept.
    interrupted
        Whether Ctrl-C ended it.
    epochs
        Epochs done.
    """

    folder: Path
    report: Report
    interrupted: bool
    epochs: int


class HistoryFile(Callback):
    """Write history.csv after each epoch."""

    order = 57

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_epoch(self) -> None:
        """Write all rows anew: the file is never half a row."""
        write_text(self.path, pd.DataFrame(self.learn.epoch_log.rows).to_csv(index=False))


def train(
    recipe: Recipe,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train what `recipe` says into a new run folder.

    Parameters
    ----------
    recipe
        Every choice.
    folder
        The run folder; made if it is not there.
    cache
        Where fetched and parsed data is kept.
    reporter
        Told of batches and epochs.
    overwrite
        Whether a run that stands in `folder` may go. It stays until the new one is ready to train.
    progress
        Told of bytes while data is fetched.

    Raises
    ------
    UserError
        If the folder is taken or in use, or recipe or data are wrong.
    RunError
        If the folder can't be written.
    """
    if recipe.data.folds is not None and recipe.data.fold is None:
        raise UserError("data.folds asks for several runs; set data.fold to one of them, or use train_folds")
    check_free(folder, overwrite)
    check_machine(recipe)
    with locked(folder):
        table, parts, learn = _prepare(recipe, folder, cache, progress)
        start = open_start(recipe)
        notes = []
        if start is not None:
            notes.append(said_of_start(start, check_start(start, recipe, table, parts)))
            begin_from(learn, start, table)
        watchers = logging_callbacks(recipe, folder)
        if is_taken(folder):
            clear(folder)
        write_text(folder / "config.yaml", dump_recipe(recipe))
        write_json(folder / "data.json", describe_data(table, parts))
        _tell(reporter, learn, parts)
        for note in notes:
            reporter.note(note)
        return _fit(learn, recipe, table, parts, folder, reporter, watchers, None)


def resume(folder: Path, cache: Path, reporter: Reporter, *, progress: Progress | None = None) -> Outcome:
    """Go on with an interrupted run from its last checkpoint, to the result it would have had.

    Raises
    ------
    UserError
        If there is no run in `folder`, it is in use, or its data has changed since.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: there is no run to go on with (no config.yaml)")
    with locked(folder):
        recipe = load_recipe(str(folder / "config.yaml"))
        state = read_tensors(folder / "checkpoints" / LAST)
        table, parts, learn = _prepare(recipe, folder, cache, progress)
        if read_json(folder / "data.json") != describe_data(table, parts):
            raise UserError(
                f"{folder}: {recipe.data.source} is not the data that this run began with; train anew"
            )
        _tell(reporter, learn, parts)
        watchers = logging_callbacks(recipe, folder)
        return _fit(learn, recipe, table, parts, folder, reporter, watchers, state)


def describe_data(table: FaceTable, parts: Split) -> dict[str, Any]:
    """Return what data.json holds: where the faces came from, their hash, and the whole split."""
    return {**describe_table(table), "split": parts.to_dict()}


def describe_table(table: FaceTable) -> dict[str, Any]:
    """Return what tells a table from another: source, hashes, and how many rows the recipe left of it."""
    about = {"source": table.source, "sha256": table.digest, "rows": len(table)}
    return about if table.fixes is None else {**about, "fixes": table.fixes}


def find_lr(
    recipe: Recipe, folder: Path, cache: Path, progress: Progress | None = None
) -> tuple[float, Path]:
    """Run fastai's learning rate finder.

    Returns
    -------
    tuple[float, Path]
        The rate it suggests (its "valley"), and where the plot was saved.
    """
    check_machine(recipe)
    table, _, learn = _prepare(recipe, folder, cache, progress)
    if (start := open_start(recipe)) is not None:
        begin_from(learn, start, table)
    learn.remove_cbs([ScheduleByStep, AverageWeights, FindLabelShift])
    learn.add_cb(StopDiverged(LR_STEPS // 3))
    # fastai writes the weights to put back into `model_dir`
    with learn.no_logging(), tempfile.TemporaryDirectory() as learn.model_dir:
        suggestion = float(learn.lr_find(num_it=LR_STEPS, stop_div=False, show_plot=False).valley)
    losses = [float(loss) for loss in learn.recorder.losses]
    plot = folder / LR_PLOT
    save_png(plot, lr_find_figure([float(lr) for lr in learn.recorder.lrs], losses, suggestion))
    return suggestion, plot


# --- the steps of a run --------------------------------------------------------------------------


def _prepare(
    recipe: Recipe, folder: Path, cache: Path, progress: Progress | None
) -> tuple[FaceTable, Split, Learner]:
    """Seed everything, then load the faces, split them and build the learner, always in this order."""
    set_seed(recipe.seed, reproducible=True)
    table = load_table(recipe.data, cache, recipe.seed, progress)
    parts = split_by(table, recipe.data, recipe.seed)
    return table, parts, build_learner(recipe, table, parts, folder)


def _fit(
    learn: Learner,
    recipe: Recipe,
    table: FaceTable,
    parts: Split,
    folder: Path,
    reporter: Reporter,
    watchers: list[Callback],
    state: dict[str, Any] | None,
) -> Outcome:
    log, interrupt = EpochLog(reporter), Interrupt()
    checkpoint = Checkpoint(folder / "checkpoints", recipe.training.checkpoint_every)
    callbacks = [log, HistoryFile(folder / "history.csv"), checkpoint, StopOnInterrupt(interrupt), *watchers]
    start: AbstractContextManager[None] = nullcontext()
    if state is not None:
        callbacks.append(Resume(state))
        start = epochs_from(learn, state["epoch"])
    try:
        with start, learn.no_logging(), interrupt:
            learn.fit(recipe.training.epochs, cbs=callbacks)
    except LandmarksError as error:  # fastai has put the callback's name before our line
        raise type(error)(str(error).rpartition(":\n\t")[2]) from error
    best = folder / "checkpoints" / BEST
    kept = read_tensors(best)["weights"] if best.is_file() else weights_to_keep(learn)
    learn.model.load_state_dict(kept)
    # the one would validate the last average, which may not be what is kept, the other in less precision
    # than anyone who runs the model
    learn.remove_cbs([AverageWeights, Autocast])
    report = _write_results(learn, table, parts, folder, log.rows)
    return Outcome(folder, report, interrupt.asked, len(log.rows))


def _write_results(
    learn: Learner, table: FaceTable, parts: Split, folder: Path, rows: list[dict[str, float]]
) -> Report:
    faces = table.rows(parts.valid)
    predicted, scales = predict_valid(learn, table.size)
    # what the training faces taught is too bold for people who were not among them
    factor = scale_factor(predicted, faces.points, scales)
    report = evaluate_points(
        predicted, faces.points, table.schema, faces.complete, table.size, factor * scales
    )
    metrics = report.to_dict()
    write_json(folder / "metrics.json", {"faces": "validation", **metrics})
    if rows:
        save_png(folder / "curves.png", history_figure(pd.DataFrame(rows)))
    few = np.linspace(0, len(faces) - 1, min(16, len(faces))).astype(np.int64)
    save_png(folder / "samples.png", judged_sheet(faces, predicted, report.nme, few))
    learn.header = {
        **learn.header,
        "metrics": metrics["overall"],
        "scale_factor": factor,
        "label_shift": round(augmentation(learn.dls).label_shift, 6),
    }
    _write_models(learn, folder)
    write_text(folder / "README.md", model_card(learn.header, report, describe_data(table, parts)))
    return report


def _write_models(learn: Learner, folder: Path) -> None:
    """Write the model three times: for our own commands, for fastai, and for everything else."""
    header = ModelHeader.from_dict(learn.header, folder / MODEL_NAME)
    learn.model.cpu().eval().to(memory_format=torch.contiguous_format)
    save_model(folder / MODEL_NAME, learn.model.state_dict(), header)
    for metric in learn.metrics:
        metric.reset()
    with replacing(folder / "model.pkl") as part:
        learn.export(part.absolute())
    export_onnx(learn.model, header, folder / "model.onnx")


def predict_valid(learn: Learner, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Predict the validation faces: points (M, K, 2) and Laplace scales (M, K), NaN where there are none.

    Both are in pixels of the source images, which are `size` px wide; the scales are the network's own.
    """
    scaled, _ = learn.get_preds(ds_idx=1)
    whole = scaled.as_subclass(Tensor).float()
    points: NDArray[np.float32] = unscale_points(whole[..., :2], size).numpy()
    if whole.shape[-1] == 2:
        return points, np.full(points.shape[:2], np.nan, np.float32)
    return points, whole[..., 2].exp().numpy() * np.float32(size)


def _tell(reporter: Reporter, learn: Learner, parts: Split) -> None:
    autocast = getattr(learn, "autocast", None)
    precision = "float32" if autocast is None else str(autocast.dtype).removeprefix("torch.")
    reporter.note(
        f"{len(parts.train):,} faces to train, {len(parts.valid):,} to validate ({parts.kind} split);"
        f" on {learn.dls.device} in {precision}"
    )


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something which may not go."""
    if is_taken(folder) and not overwrite:
        raise UserError(
            f"{folder} holds something already; choose another --out, or use --overwrite or --resume"
        )


def check_machine(recipe: Recipe) -> None:
    """Refuse what can't be trained here before the faces are fetched, which may take minutes."""
    resnet(recipe.model.arch)
    torch_device(recipe.training.device)
    if recipe.model.start is not None:
        find_start(recipe.model.start)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder: two runs in one folder would mix their files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder} is in use by another run; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(
            f"{folder}: can't be made or written: {error.strerror}; choose another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # nothing came of it: leave no empty folder


def clear(folder: Path) -> None:
    """Empty a folder."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def is_taken(folder: Path) -> bool:
    """Tell whether something stands in the way of a new run in `folder`."""
    if not folder.is_dir():
        return folder.exists()
    return any(entry.name != LR_PLOT for entry in folder.iterdir())


def next_folder(runs: Path, name: str) -> Path:
    """Return runs/NAME, or runs/NAME-2, runs/NAME-3 … where that is taken."""
    number = 1
    while is_taken(folder := runs / (name if number == 1 else f"{name}-{number}")):
        number += 1
    return folder
