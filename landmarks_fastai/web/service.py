"""The service behind the page: landmarks of a photo or a video, as a drawing and as files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from landmarks_fastai.commands.landmark_files import (
    ImageResult,
    iter_landmarks,
    write_landmarks_csv,
    write_landmarks_json,
)
from landmarks_fastai.commands.predict import predict_faces
from landmarks_fastai.commands.video import annotate_video
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.face_detection import (
    AUTO,
    FACE_DETECTORS,
    NO_DETECTOR,
    SEARCH,
    choose_detector,
    open_detector,
)
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.rejection import (
    choose_min_confidence,
    describe_discarded,
    discard_unconfident,
)
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.discovery import RELEASED_DIR
from landmarks_fastai.model_files.header import MODEL_NAME, SYNTHETIC_WARNING
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.images import image_size, read_image
from landmarks_fastai.utils.progress import Progress
from landmarks_fastai.utils.text import format_count
from landmarks_fastai.visualization.landmarks import draw_landmarks, number_faces
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.web.limits import MEGABYTE, Limits

COLUMNS = ("face", "landmark", "x", "y", "confidence")
"""Columns of `Result.rows`."""


@dataclass(frozen=True)
class Result:
    """Landmarks of a photo or a video.

    Parameters
    ----------
    message
        Sentences for the user: what was predicted, or why nothing was.
    drawing, csv, json
        The drawing and the landmark files; None if no face was detected.
    rows
        Of a photo: the `COLUMNS` of each landmark as text; an unknown confidence is "–".
    """

    message: str
    drawing: Path | None = None
    csv: Path | None = None
    json: Path | None = None
    rows: Sequence[Sequence[str]] = ()


class LandmarkService:
    """Predicts the landmarks of photos and videos, called from one thread.

    Each model and detector is opened when it is first needed, and kept open.

    Parameters
    ----------
    models
        Run folders or model files, at least one; the first is the default.
    detector
        Name of the face detector; see `choose_detector`.
    limits
        Limits of the files that are accepted.
    """

    def __init__(self, models: Sequence[Path], detector: str = AUTO, limits: Limits | None = None) -> None:
        self._paths = dict(zip(model_names(models), models, strict=True))
        self.limits = limits or Limits()
        self._detector = detector
        self._predictors: dict[str, Predictor] = {}
        self._detectors: dict[str, Detector] = {}

    @property
    def models(self) -> list[str]:
        """Names by which the models are chosen, the default first."""
        return list(self._paths)

    def predict_photo(self, path: Path, model: str, out: Path) -> Result:
        """Predict and draw the landmarks of a photo, and write them to files.

        Parameters
        ----------
        path
            The photo.
        model
            One of `models`.
        out
            Folder for the results.

        Raises
        ------
        UserError
            If the photo cannot be used. Messages name files without their folders, which are temporary.
        RunError
            If a result cannot be written.
        """
        with self._hide_folders(path.parent, out):
            self._check_size(path)
            self._check_pixels(path, *image_size(path))
            image = read_image(path)
            predictor, detector = self.open(model)
            found = predict_faces(predictor, image, detector)
            minimum = self._min_confidence(predictor)
            landmarks, discarded = discard_unconfident(found, minimum)
            note = f" {_sentence(describe_discarded(discarded, minimum))}" if len(discarded) else ""
            if not len(landmarks):
                return _no_face_result(path, note)
            drawing = out / f"{path.stem}_landmarks.png"
            csv, json = out / "landmarks.csv", out / "landmarks.json"
            save_png(drawing, draw_landmarks(image, landmarks, captions=number_faces(landmarks)))
            height, width = image.shape[:2]
            results = [ImageResult(Path(path.name), (width, height), landmarks, drawing)]
            write_landmarks_csv(csv, results, predictor.predicts_visibility)
            write_landmarks_json(json, results, predictor.schema, predictor.predicts_visibility)
        message = f"{path.name}: {format_count(len(landmarks), 'face')}, {width} × {height} px.{note}"
        if np.isnan(landmarks.confidence).all():
            message += " This model does not estimate confidence."
        return Result(message, drawing, csv, json, list(_table_rows(landmarks)))

    def predict_video(self, path: Path, model: str, out: Path, progress: Progress | None = None) -> Result:
        """Track the faces of a video, draw their landmarks and write them to files.

        Parameters
        ----------
        path
            The video.
        model
            One of `models`.
        out
            Folder for the results.
        progress
            Called with the number of frames done and expected.

        Raises
        ------
        UserError
            If the video cannot be used, or exceeds `limits`; see `predict_photo` for the messages.
        RunError
            If a result cannot be written.
        """
        with self._hide_folders(path.parent, out):
            self._check_size(path)
            duration = self._check_video(path)
            predictor, detector = self.open(model)
            drawing = out / f"{path.stem}_landmarks.mp4"
            csv, json = out / "landmarks.csv", out / "landmarks.json"
            name = choose_detector(self._detector, predictor.header)
            video = annotate_video(
                path,
                drawing,
                Tracker(
                    predictor,
                    detector,
                    follow=name != NO_DETECTOR,
                    single=name == SEARCH,
                    min_confidence=self._min_confidence(predictor),
                ),
                end=self.limits.seconds,
                landmark_files=(csv, json),
                progress=progress,
            )
        notes = "".join(f" {_sentence(note)}" for note in video.notes)
        if not video.tracks:
            return _no_face_result(path, notes)
        faces, frames = format_count(video.tracks, "face"), format_count(video.frames, "frame")
        message = f"{path.name}: {faces} in {frames}.{notes}"
        if video.damage is not None:
            message += f" The file is damaged and could be read up to {video.seconds:.1f} s."
        if duration is None:
            message += f" The file does not state its duration; only its first {self.limits.seconds:g} s"
            message += " are processed."
        return Result(message, drawing, csv, json)

    def warning(self, model: str) -> str | None:
        """Return a warning about a model for its user, or None.

        Raises
        ------
        UserError
            See `open`.
        """
        with self._hide_folders():
            predictor, _ = self.open(model)
        return f"{SYNTHETIC_WARNING[0].upper()}{SYNTHETIC_WARNING[1:]}." if predictor.synthetic else None

    def open(self, model: str) -> tuple[Predictor, Detector]:
        """Open one of `models`, and the detector for it.

        Raises
        ------
        UserError
            If `model` is not one of `models`, or cannot be opened; see `Predictor.open`.
        RunError, UserError
            If the detector cannot be opened; see `open_detector`.
        """
        if model not in self._paths:
            raise UserError("no such model; choose one from the list")
        if model not in self._predictors:
            self._predictors[model] = Predictor.open(self._paths[model])
        predictor = self._predictors[model]
        name = choose_detector(self._detector, predictor.header)
        if name == SEARCH:  # belongs to one model
            return predictor, open_detector(name, predictor=predictor)
        if name not in self._detectors:
            self._detectors[name] = open_detector(name, default_cache_dir())
        return predictor, self._detectors[name]

    def _min_confidence(self, predictor: Predictor) -> float:
        """Return the minimum confidence of a face."""
        name = choose_detector(self._detector, predictor.header)
        return choose_min_confidence(self.limits.min_confidence, predictor, name in FACE_DETECTORS)

    def _check_size(self, path: Path) -> None:
        """Raise a UserError if a file is too large."""
        size, limit = path.stat().st_size / MEGABYTE, self.limits.megabytes
        if size > limit:
            raise UserError(f"{path.name}: {size:.1f} MB, but the limit is {limit:g} MB; reduce its size")

    def _check_pixels(self, path: Path, width: int, height: int) -> None:
        """Raise a UserError if an image has too many pixels; its size is known before it is decoded."""
        megapixels, limit = width * height / 1e6, self.limits.megapixels
        if megapixels > limit:
            raise UserError(
                f"{path.name}: {width} × {height} px are {megapixels:.1f} megapixels, but the limit is"
                f" {limit:g}; reduce its size"
            )

    def _check_video(self, path: Path) -> Fraction | None:
        """Check the size of the frames and the duration of a video before it is decoded.

        Returns
        -------
        Fraction or None
            The duration in seconds; None if unknown.

        Raises
        ------
        UserError
            If the frames are too large, or the video is too long.
        """
        from landmarks_fastai.video.reader import VideoReader

        with VideoReader(path) as reader:
            size, duration, limit = reader.size, reader.duration, self.limits.seconds
        self._check_pixels(path, *size)
        if duration is not None and duration > limit:
            raise UserError(
                f"{path.name}: {float(duration):.2f} s long, but the limit is {limit:g} s; trim it first"
            )
        return duration

    @contextmanager
    def _hide_folders(self, *folders: Path) -> Iterator[None]:
        """Remove folders from error messages: the user of the page knows only the names of the files."""
        hidden = {*folders, default_cache_dir(), *(path.parent for path in self._paths.values())}
        try:
            yield
        except LandmarksError as error:
            text = str(error)
            # the longest first, since one may be inside the other
            for folder in sorted(map(str, hidden), key=len, reverse=True):
                text = text.replace(f"{folder}{os.sep}", "")
            raise type(error)(text) from error


def model_names(models: Sequence[Path]) -> list[str]:
    """Return the names of models on the page, which do not show where on the server they are.

    A run is named by its folder, another model by its file, with as many parent folders as are necessary to
    distinguish it from the others; a released model by its architecture.
    """
    paths = [path.parent if path.name == MODEL_NAME else path for path in models]
    names = []
    for index, path in enumerate(paths):
        if path.parent == RELEASED_DIR:
            names.append(f"{path.stem} (released)")
            continue
        parts = path.absolute().parts
        others = [other.absolute().parts for other in paths[:index] + paths[index + 1 :]]
        length = 1
        while any(parts[-length:] == other[-length:] for other in others) and length < len(parts):
            length += 1
        names.append("/".join(parts[-length:]))
    return names


def _table_rows(landmarks: Landmarks) -> Iterator[list[str]]:
    """Yield the `COLUMNS` of each landmark, rounded for display."""
    for index, face in enumerate(landmarks):
        for name, x, y, confidence in iter_landmarks(face):
            shown = "–" if confidence is None else f"{confidence:.2f}"
            yield [str(index), name, f"{x:.1f}", f"{y:.1f}", shown]


def _no_face_result(path: Path, note: str = "") -> Result:
    return Result(f"{path.name}: no face detected; try a file with a larger or more frontal face.{note}")


def _sentence(note: str) -> str:
    """Return a note of a command, without the option that it names, as a sentence."""
    text = note.removesuffix(" (--min-confidence)")
    return f"{text[:1].upper()}{text[1:]}."
