"""Where models are: in run folders, in folders of cross-validation folds, and among the released models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.out_of_fold import FOLDS_NAME
from landmarks_fastai.model_files.header import MODEL_NAME
from landmarks_fastai.model_files.run_marker import (
    FOLD,
    check_run_folder,
    fold_number,
    trained_on_synthetic,
    why_unreadable,
)
from landmarks_fastai.utils.json_reader import read_json_object

PACKAGE_DIR = Path(__file__).resolve().parents[1]
RELEASED_DIR = PACKAGE_DIR / "models"
if not RELEASED_DIR.is_dir():  # a checkout: only in an installed package are the models inside of it
    RELEASED_DIR = PACKAGE_DIR.parent / "models"

SHOWN_FOLDERS = 3
"""Largest number of ignored folders that are named."""

TRAIN_HINT = "train one with: landmarks-fastai train --config quick"


@dataclass(frozen=True)
class DefaultModel:
    """The models used when none is named, and why.

    Parameters
    ----------
    paths
        One model file, or one for each fold of a cross-validation.
    reason
        Why these were chosen, for the user.
    """

    paths: list[Path]
    reason: str


def default_models(runs: str | Path) -> DefaultModel:
    """Return the models to use when none is named.

    In order of preference: the newest run in `runs` that was trained on real data (all finished folds if it
    is a cross-validation), the released ResNet18, the newest run on synthetic data. Runs of another format
    version, damaged runs and unfinished folds are ignored; the reason names them.

    Raises
    ------
    UserError
        If there is no model at all.
    """
    trained, ignored = _trained_models(Path(runs))
    note = _about_ignored(ignored)
    for model in trained:
        if not _is_synthetic(model):
            return DefaultModel(_with_folds(model, trained, Path(runs)), f"the newest run in {runs}{note}")
    released = released_models()
    if released:
        why = "was trained on real data" if trained else "has finished"
        return DefaultModel(released[:1], f"the released model, because no run in {runs} {why}{note}")
    if not trained:
        raise UserError(f"{runs}: no trained model found; {TRAIN_HINT}{note}")
    return DefaultModel(_with_folds(trained[0], trained, Path(runs)), f"the newest run in {runs}{note}")


def available_models(runs: str | Path) -> list[Path]:
    """Return all models to choose from: the default first, then trained ones (newest first), then released.

    Raises
    ------
    UserError
        If there is none.
    """
    default = default_models(runs).paths
    return list(dict.fromkeys([*default, *_trained_models(Path(runs))[0], *released_models()]))


def released_models() -> list[Path]:
    """Return the models that come with the package, the ResNet18 first."""
    return sorted(RELEASED_DIR.glob("*.safetensors"))


def resolve_models(paths: Sequence[str | Path]) -> list[Path]:
    """Return the model files that `paths` name; a folder with fold-1, fold-2 … stands for all of its folds.

    Raises
    ------
    UserError
        If one is missing or is named twice.
    """
    models: list[Path] = []
    for path in map(Path, paths):
        for model in map(resolve_model, _folds(path) or [path]):
            if model in models:
                raise UserError(f"{model}: given twice; name each model once")
            models.append(model)
    return models


def resolve_model(path: str | Path) -> Path:
    """Return the model file that `path` names: a file, a run folder, or the name of a released model.

    Raises
    ------
    UserError
        If there is none, or the run folder has another format version.
    """
    path = Path(path)
    if path.is_dir():
        check_run_folder(path)
        model = path / MODEL_NAME
        if not model.is_file():
            raise UserError(f"{path}: no {MODEL_NAME} in this folder; name a finished run")
        return model
    if path.is_file():
        return path
    released = {model.stem: model for model in released_models()}
    if str(path) in released:
        return released[str(path)]
    names = f", or name a released model: {', '.join(released)}" if released else ""
    raise UserError(f"{path}: no such model file; {TRAIN_HINT}{names}")


def _trained_models(runs: Path) -> tuple[list[Path], dict[Path, str]]:
    """Return the model of every run and fold in `runs`, newest first, and why other folders are ignored."""
    models, ignored = list[Path](), dict[Path, str]()
    for folder in sorted(runs.glob("*")):
        for model in [folder / MODEL_NAME, *(fold / MODEL_NAME for fold in _folds(folder))]:
            if not model.is_file():
                continue
            reason = why_unreadable(model.parent)
            if reason is None and _is_unfinished_fold(model.parent):
                reason = "its training has not finished"
            if reason is None:
                models.append(model)
            else:
                ignored[model.parent] = reason
    return sorted(models, key=lambda path: path.stat().st_mtime_ns, reverse=True), ignored


def _is_unfinished_fold(run: Path) -> bool:
    """Return True for a fold that its cross-validation does not count as finished."""
    state, number = run.parent / FOLDS_NAME, fold_number(run)
    if number is None or run not in _folds(run.parent) or not state.is_file():
        return False
    try:
        done = read_json_object(state).get("done")
    except UserError:
        return False
    return isinstance(done, int) and number > done


def _about_ignored(ignored: dict[Path, str]) -> str:
    """Return the end of a sentence that names the folders that are ignored."""
    notes = [f"; {folder} is ignored, because {reason}" for folder, reason in ignored.items()]
    more = len(notes) - SHOWN_FOLDERS
    return "".join(notes[:SHOWN_FOLDERS]) + (f"; so are {more:,} more folders" if more > 0 else "")


def _is_synthetic(model: Path) -> bool:
    """Return True if a model was trained on synthetic data; an unreadable data.json counts as real data."""
    try:
        return trained_on_synthetic(model.parent)
    except UserError:
        return False


def _with_folds(model: Path, trained: Sequence[Path], runs: Path) -> list[Path]:
    """Return a model with those of the other folds, in order, if it is that of a fold."""
    if model.parent.parent == runs:
        return [model]
    folds = [fold / MODEL_NAME for fold in _folds(model.parent.parent)]
    return [fold for fold in folds if fold in trained]


def _folds(folder: Path) -> list[Path]:
    """Return the fold folders of a cross-validation in order; none if the folder itself contains a model."""
    if (folder / MODEL_NAME).is_file():
        return []
    numbered = [(fold_number(path), path) for path in folder.glob(f"{FOLD}*")]
    return [path for _, path in sorted((number, path) for number, path in numbered if number is not None)]
