"""Detected faces that are discarded because the model is not confident of their landmarks.

What a detector takes for a face may be something else, or a face of which the landmarks cannot be located:
too small, cut off, upside down. The mean confidence of the landmarks tells both from true faces; the score of
the detector does not. Measured in benchmarks/false_faces.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.calibration import confidence_from_scale
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from landmarks_fastai.inference.detectors.base import Detector
    from landmarks_fastai.inference.predictor import Predictor
    from landmarks_fastai.inference.refinement import Refine

MIN_CONFIDENCE_RATIO = 0.55
"""Default minimum confidence, relative to the typical confidence of the model. Measured in
benchmarks/false_faces.md."""

DEFAULT_IMAGE_SIZE = 96
"""Side in pixels of the images whose errors a header reports, if it does not say so: that of Kaggle's."""


def typical_confidence(header: ModelHeader) -> float | None:
    """Return the confidence of a landmark whose expected error is the mean error on the validation faces.

    None if the header has no mean error, or the mean error is 0.
    """
    error, size = header.metrics.get("l1"), header.metrics.get("image_size", DEFAULT_IMAGE_SIZE)
    if not (isinstance(error, (int, float)) and isinstance(size, (int, float)) and error > 0 and size > 0):
        return None
    return float(confidence_from_scale(error, size))


def default_min_confidence(header: ModelHeader) -> float:
    """Return the minimum confidence of detected faces that is used if none is given.

    `MIN_CONFIDENCE_RATIO` times the typical confidence, because confidence means accuracy within a fixed
    distance: a model trained on few faces has less of it on every face. 0 if that is not known.
    """
    typical = typical_confidence(header)
    return 0.0 if typical is None else MIN_CONFIDENCE_RATIO * typical


def choose_min_confidence(value: float | None, predictor: Predictor, face_detector: bool) -> float:
    """Return the minimum confidence of a face that is found in an image.

    Parameters
    ----------
    value
        That of the user; None for the default.
    predictor
        The model.
    face_detector
        Whether a face detector finds the faces. By default, nothing else is discarded: the center crop was
        chosen by the user, and the search of an image rejects what it has found by other means.

    Raises
    ------
    UserError
        If `value` is not from 0 to 1, or the model does not estimate confidence.
    """
    if value is None:
        return predictor.default_min_confidence if face_detector else 0.0
    if not 0 <= value <= 1:
        raise UserError(f"--min-confidence {value:g}: must be from 0 to 1")
    if value and not predictor.estimates_confidence:
        raise UserError("--min-confidence: this model does not estimate confidence; remove the option")
    return value


def is_confident(landmarks: Landmarks, min_confidence: float) -> NDArray[np.bool_]:
    """Return an (N,) mask of the faces whose confidence is at least `min_confidence`, or unknown."""
    return np.asarray(~(landmarks.face_confidence < min_confidence))


def predict_confident_faces(
    predictor: Predictor, detector: Detector, image: NDArray[np.uint8], refine: Refine, min_confidence: float
) -> tuple[Landmarks, Landmarks]:
    """Predict the detected faces of an (H, W, 3) image, and split them as `discard_unconfident` does.

    `refine` is that of `Predictor.predict`.
    """
    found = predictor.predict_crops(image, detector(image).crops, refine=refine)
    return discard_unconfident(found, min_confidence)


def discard_unconfident(landmarks: Landmarks, min_confidence: float) -> tuple[Landmarks, Landmarks]:
    """Split faces into those that are confident and the others; see `is_confident`."""
    kept = is_confident(landmarks, min_confidence)
    return landmarks[np.flatnonzero(kept)], landmarks[np.flatnonzero(~kept)]


def describe_discarded(discarded: Landmarks, min_confidence: float, noun: str = "face") -> str:
    """Return what was discarded, and why, in one line: "2 faces discarded: confidence 0.21, 0.33 …"."""
    values = ", ".join(f"{value:.2f}" for value in discarded.face_confidence[:3])
    more = ", …" if len(discarded) > 3 else ""
    return (
        f"{format_count(len(discarded), noun)} discarded: confidence {values}{more} is below"
        f" {min_confidence:.2f} (--min-confidence)"
    )


def describe_discarded_detections(count: int, min_confidence: float) -> str:
    """Return how many detections in the frames of a video were discarded, and why, in one line."""
    return (
        f"{format_count(count, 'detection')} discarded: confidence below {min_confidence:.2f}"
        " (--min-confidence)"
    )
