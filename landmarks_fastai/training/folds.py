"""Several runs on the same faces, so that each face is judged by a model that never saw its people.

Each fold is an ordinary run folder; this room puts them in order, and joins what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landmarks_fastai.config import Recipe, dump_recipe, load_recipe
from landmarks_fastai.data.source import load_table
from landmarks_fastai.data.split import Split, split_folds
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation import Report, evaluate_points
from landmarks_fastai.files import read_json, write_json, write_text
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.training.callbacks import Reporter
from landmarks_fastai.training.checkpoint import LAST
from landmarks_fastai.training.oof import FOLDS_NAME, OOF_NAME, OutOfFold, write_oof
from landmarks_fastai.training.run import (
    Progress,
    check_free,
    check_machine,
    clear,
    describe_table,
    is_taken,
    locked,
    resume,
    train,
)
from landmarks_fastai.training.start import check_start, open_start


@dataclass(frozen=True)
class FoldsOutcome:
    """What the folds came to.

    Parameters
    ----------
    folder
        The folder that holds their run folders.
    folds
        How many were asked for.
    done
        How many have ended.
    epochs
        Epochs done in the fold that Ctrl-C ended.
    report
        Scores on all faces, each by the model that did not see its people; None where Ctrl-C ended it.
    """

    folder: Path
    folds: int
    done: int
    epochs: int
    report: Report | None


def train_folds(
    recipe: Recipe,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> FoldsOutcome:
    """Train `data.folds` models into FOLDER/fold-1, FOLDER/fold-2 …, then judge all faces.

    Beside the folds stand config.yaml, folds.json (which have ended), oof.csv (all faces' points, see
    `write_oof`) and metrics.json (the scores of these).

    Parameters
    ----------
    recipe
        Every choice; `data.folds` is set and `data.fold` is not.
    folder, cache, reporter, overwrite, progress
        As for `train`.

    Raises
    ------
    UserError, RunError
        As `train`; also where there are fewer groups than folds.
    """
    check_free(folder, overwrite)
    check_machine(recipe)
    with locked(folder):
        table, parts = _load(recipe, cache, progress)
        if (start := open_start(recipe)) is not None:
            if folder.resolve() in start.path.resolve().parents:
                raise UserError(f"model.start {start.path}: it lies in the folder that is to be replaced")
            for part in parts:
                check_start(start, recipe, table, part)
        if is_taken(folder):
            clear(folder)
        write_text(folder / "config.yaml", dump_recipe(recipe))
        _write_state(folder, table, parts, 0)
        return _train_from(0, recipe, folder, cache, reporter, table, parts, progress)


def resume_folds(
    folder: Path, cache: Path, reporter: Reporter, *, progress: Progress | None = None
) -> FoldsOutcome:
    """Go on with the first fold that has not ended, from its last checkpoint where it has one.

    Raises
    ------
    UserError
        As `resume`.
    """
    with locked(folder):
        recipe = load_recipe(str(folder / "config.yaml"))
        table, parts = _load(recipe, cache, progress)
        state = read_json(folder / FOLDS_NAME)
        done = int(state.get("done", 0))
        if state != _state(table, parts, done):
            raise UserError(
                f"{folder}: {recipe.data.source} is not the data that this run began with; train anew"
            )
        return _train_from(done, recipe, folder, cache, reporter, table, parts, progress)


def is_folds(folder: Path) -> bool:
    """Tell whether a folder holds folds."""
    return (folder / FOLDS_NAME).is_file()


def fold_folder(folder: Path, number: int) -> Path:
    """Return the run folder of a fold, from 1."""
    return folder / f"fold-{number}"


# --- the steps -----------------------------------------------------------------------------------


def _load(recipe: Recipe, cache: Path, progress: Progress | None) -> tuple[FaceTable, list[Split]]:
    assert recipe.data.folds is not None, "the caller looks"
    table = load_table(recipe.data, cache, recipe.seed, progress)
    return table, split_folds(table, recipe.data.split, recipe.data.folds, recipe.seed)


def _state(table: FaceTable, parts: list[Split], done: int) -> dict[str, Any]:
    """Return what folds.json holds: the data, the rows in each fold, and how many folds have ended."""
    rows = [len(part.valid) for part in parts]
    return {**describe_table(table), "folds": len(parts), "rows_by_fold": rows, "done": done}


def _write_state(folder: Path, table: FaceTable, parts: list[Split], done: int) -> None:
    write_json(folder / FOLDS_NAME, _state(table, parts, done))


def _train_from(
    done: int,
    recipe: Recipe,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    table: FaceTable,
    parts: list[Split],
    progress: Progress | None,
) -> FoldsOutcome:
    for number in range(done + 1, len(parts) + 1):
        reporter.note(f"fold {number} of {len(parts)}")
        run = fold_folder(folder, number)
        if (run / "checkpoints" / LAST).is_file():
            outcome = resume(run, cache, reporter, progress=progress)
        else:  # it may have been interrupted before there was a checkpoint
            data = recipe.data.model_copy(update={"fold": number})
            alone = recipe.model_copy(update={"data": data})
            outcome = train(alone, run, cache, reporter, overwrite=True, progress=progress)
        if outcome.interrupted:
            return FoldsOutcome(folder, len(parts), number - 1, outcome.epochs, None)
        _write_state(folder, table, parts, number)
    return FoldsOutcome(folder, len(parts), len(parts), 0, _join(folder, table, parts, recipe))


def _join(folder: Path, table: FaceTable, parts: list[Split], recipe: Recipe) -> Report:
    """Predict each face by the model of its fold, write the points down and judge them."""
    fold = np.empty(len(table), np.int64)
    points = np.empty((len(table), len(table.schema), 2), np.float32)
    confidence = np.empty(points.shape[:2], np.float32)
    scales = np.empty(points.shape[:2], np.float32)
    for number, part in enumerate(parts, start=1):
        predictor = Predictor.open(fold_folder(folder, number), recipe.training.device)
        found = predictor.predict_crops(table.images[part.valid])
        fold[part.valid], points[part.valid] = number, found.points
        confidence[part.valid], scales[part.valid] = found.confidence, found.scales
    write_oof(folder / OOF_NAME, table, OutOfFold(fold, points, confidence))
    report = evaluate_points(points, table.points, table.schema, table.complete, table.size, scales)
    write_json(folder / "metrics.json", {"faces": "out of fold", **report.to_dict()})
    return report
