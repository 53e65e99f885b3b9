"""Opening the models and the detector that the options choose, and printing which models are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from landmarks_fastai.cli.options import RUNS

if TYPE_CHECKING:
    from landmarks_fastai.inference.detectors.base import Detector
    from landmarks_fastai.inference.predictor import Predictor
    from landmarks_fastai.inference.tracking import Tracker


def choose_models(models: Sequence[Path] | None) -> list[Path]:
    """Return the files of the given models, or of the default model, and print them.

    Parameters
    ----------
    models
        Run folders, model files or names of released models; None or empty for the default model, which is
        printed with the reason for its choice.
    """
    from landmarks_fastai.model_files.discovery import default_models, resolve_models

    if not models:
        default = default_models(RUNS)
        typer.echo(f"model: {', '.join(map(str, default.paths))} ({default.reason})")
        return default.paths
    paths = resolve_models(models)
    for path in paths:
        typer.echo(f"model: {path}")
    return paths


def open_predictor(
    models: Sequence[Path] | None, device: str, trust_pickle: bool, backend: str = "auto"
) -> Predictor:
    """Open models as one predictor; see `choose_models` and `Predictor.open`."""
    from landmarks_fastai.inference.ensemble import open_predictors

    return open_predictors(choose_models(models), device, trust_pickle, backend, typer.echo)


def warn_if_synthetic(predictor: Predictor) -> None:
    """Print a warning to stderr if a model was trained on synthetic data."""
    from landmarks_fastai.model_files.header import SYNTHETIC_WARNING

    if predictor.synthetic:
        typer.echo(f"warning: {SYNTHETIC_WARNING}", err=True)


def note_search(requested: str, chosen: str, remedy: str) -> None:
    """Print that the whole image is searched, if that was not requested."""
    from landmarks_fastai.inference.face_detection import SEARCH

    if chosen == SEARCH != requested:
        typer.echo(f"no face detector for these landmarks: searching the whole image; {remedy}")


def open_named_detector(name: str, predictor: Predictor, max_faces: int | None = None) -> Detector:
    """Open a detector for a model, and show the progress of a download; see `open_detector`."""
    from landmarks_fastai.cli.progress import data_progress
    from landmarks_fastai.inference.face_detection import open_detector

    with data_progress() as progress:
        return open_detector(name, progress=progress, predictor=predictor, max_faces=max_faces)


def open_tracker(
    models: Sequence[Path] | None,
    device: str,
    trust_pickle: bool,
    detector: str,
    smooth: bool,
    min_confidence: float | None = None,
    backend: str = "auto",
) -> Tracker:
    """Open a tracker for a video or camera; see `open_predictor` for the models."""
    from landmarks_fastai.inference.face_detection import FACE_DETECTORS, NO_DETECTOR, SEARCH, choose_detector
    from landmarks_fastai.inference.rejection import choose_min_confidence
    from landmarks_fastai.inference.tracking import Tracker

    predictor = open_predictor(models, device, trust_pickle, backend)
    warn_if_synthetic(predictor)
    name = choose_detector(detector, predictor.header)
    minimum = choose_min_confidence(min_confidence, predictor, name in FACE_DETECTORS)
    note_search(detector, name, "the landmarks are then tracked")
    # without a detector the center crop of every frame is used, as in the original project
    return Tracker(
        predictor,
        open_named_detector(name, predictor),
        smooth=smooth,
        follow=name != NO_DETECTOR,
        single=name == SEARCH,
        min_confidence=minimum,
    )
