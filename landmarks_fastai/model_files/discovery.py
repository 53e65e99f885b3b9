"""Where models are: in run folders, in folders of cross-validation folds, and among the released models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import MODEL_NAME
from landmarks_fastai.model_files.run_marker import check_run_folder, trained_on_synthetic

RELEASED_DIR = Path(__file__).resolve().parents[2] / "models"
if not RELEASED_DIR.is_dir():  # installed from a wheel, which contains one released model
    RELEASED_DIR = Path(__file__).resolve().parents[1] / "models"

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

    In order of preference: the newest run in `runs` that was trained on real data (all folds if it is a
    cross-validation), the released ResNet18, the newest run on synthetic data. Runs of another format version
    are ignored; the reason names them.

    Raises
    ------
    UserError
        If there is no model at all, or a fold of the newest run has none.
    """
    trained, ignored = _trained_models(Path(runs))
    note = "".join(f"; {folder} is ignored, because another version wrote it" for folder in ignored)
    for model in trained:
        if not _is_synthetic(model):
            return DefaultModel(_with_all_folds(model, Path(runs)), f"the newest run in {runs}{note}")
    released = released_models()
    if released:
        why = "was trained on real data" if trained else "has finished"
        return DefaultModel(released[:1], f"the released model, because no run in {runs} {why}{note}")
    if not trained:
        raise UserError(f"{runs}: no trained model found; {TRAIN_HINT}{note}")
    return DefaultModel(_with_all_folds(trained[0], Path(runs)), f"the newest run in {runs}{note}")


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


def _trained_models(runs: Path) -> tuple[list[Path], list[Path]]:
    """Return the model of every run and fold in `runs`, newest first, and the runs that cannot be read."""
    patterns = (f"*/{MODEL_NAME}", f"*/fold-*/{MODEL_NAME}")
    models = [path for pattern in patterns for path in runs.glob(pattern) if path.is_file()]
    readable = [model for model in models if _is_readable(model.parent)]
    ignored = sorted({model.parent for model in models} - {model.parent for model in readable})
    return sorted(readable, key=lambda path: path.stat().st_mtime_ns, reverse=True), ignored


def _is_readable(run: Path) -> bool:
    try:
        check_run_folder(run)
    except UserError:
        return False
    return True


def _is_synthetic(model: Path) -> bool:
    """Return True if a model was trained on synthetic data; an unreadable data.json counts as real data."""
    try:
        return trained_on_synthetic(model.parent)
    except UserError:
        return False


def _with_all_folds(model: Path, runs: Path) -> list[Path]:
    run = model.parent
    return resolve_models([run if run.parent == runs else run.parent])


def _folds(folder: Path) -> list[Path]:
    """Return the fold folders of a cross-validation in order; none if the folder itself contains a model."""
    if (folder / MODEL_NAME).is_file():
        return []
    folds = [path for path in folder.glob("fold-*") if path.name.removeprefix("fold-").isdigit()]
    return sorted(folds, key=lambda path: int(path.name.removeprefix("fold-")))
