"""Predicting a shard: each image in a thread, and its files of results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from landmarks_fastai.batch_inference.results import ShardWriter, shard_writer
from landmarks_fastai.batch_inference.shards import FILES, DamagedArchiveError, Entry, Shard, read_shard
from landmarks_fastai.batch_inference.storage import UnreachableError, is_url
from landmarks_fastai.errors import LandmarksError, UserError
from landmarks_fastai.inference.refinement import Refine
from landmarks_fastai.inference.rejection import describe_discarded, predict_confident_faces
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.encoded_files import EncodedFile
from landmarks_fastai.utils.images import read_image
from landmarks_fastai.utils.processors import map_in_threads
from landmarks_fastai.utils.text import format_count, shorten

if TYPE_CHECKING:
    from landmarks_fastai.inference.detectors.base import Detector
    from landmarks_fastai.inference.predictor import Predictor

REQUESTS = 16
"""Number of remote files that are read at once."""

MAX_LOST = 0.5
"""A shard is not done if a larger part of its images could not be reached, or failed for no known reason: the
network, the storage or the GPU does not work."""

MAX_REASON = 200
"""Characters of the message of an internal error."""

NO_FACE = "no face"
UNREADABLE = "unreadable"
UNREACHABLE = "unreachable"
INTERNAL_ERROR = "internal error"
DAMAGED_ARCHIVE = "damaged archive"


class Stopped(Exception):  # noqa: N818 - not an error
    """The user has asked to stop; the shard is not done."""


@dataclass(frozen=True)
class Job:
    """What is done with each shard; it is sent to other processes.

    Parameters
    ----------
    out
        Folder of the results: a path or a URL.
    models
        Model files.
    device
        See `Predictor.open`.
    trust_pickle
        See `Predictor.open`.
    backend
        See `Predictor.open`.
    detector
        One of `DETECTORS`, or "search".
    refine
        See `Predictor.predict`.
    min_confidence
        Detected faces with less are discarded.
    """

    out: str
    models: tuple[str, ...]
    device: str
    trust_pickle: bool
    backend: str
    detector: str
    refine: Refine
    min_confidence: float


@dataclass
class ShardSummary:
    """What became of a shard.

    Parameters
    ----------
    index
        Its number.
    title
        Its name in messages.
    images
        Number of images with faces.
    faces
        Number of faces.
    no_face, unreadable
        Numbers of images without landmarks.
    others
        Number of members of an archive that are no images.
    begin, seconds
        When it began, in seconds since 1970, and its duration.
    error
        Why the shard is not done; "" if it is.
    """

    index: int
    title: str
    images: int = 0
    faces: int = 0
    no_face: int = 0
    unreadable: int = 0
    others: int = 0
    begin: float = 0.0
    seconds: float = 0.0
    error: str = ""

    @property
    def total(self) -> int:
        """The number of images, with or without landmarks."""
        return self.images + self.no_face + self.unreadable


class ShardPredictor:
    """Predicts shards and writes their files.

    Parameters
    ----------
    job
        What to do.
    predictor, detector
        The opened models and detector of the job; None to open them.
    """

    def __init__(
        self, job: Job, predictor: Predictor | None = None, detector: Detector | None = None
    ) -> None:
        from landmarks_fastai.inference.ensemble import open_predictors
        from landmarks_fastai.inference.face_detection import open_detector

        self._job = job
        self._predictor = predictor or open_predictors(
            [Path(model) for model in job.models], job.device, job.trust_pickle, job.backend
        )
        self._detector = detector or open_detector(job.detector, predictor=self._predictor)

    def __call__(self, index: int, shard: Shard, stopped: Callable[[], bool] = lambda: False) -> ShardSummary:
        """Predict a shard; a shard that cannot be read has no files of results.

        Parameters
        ----------
        index
            Its number.
        shard
            The shard.
        stopped
            Asked before each image; the shard is given up if it returns True.

        Raises
        ------
        Stopped
            If `stopped` returned True.
        RunError
            If the files cannot be written.
        """
        summary = ShardSummary(index, shard.title, begin=time.time())
        start = time.monotonic()
        try:
            with shard_writer(self._job.out, index, self._predictor.schema) as writer:
                for prediction in self._predictions(shard):
                    if stopped():
                        raise Stopped
                    _add(prediction, writer, summary)
                _check_cause(writer, summary)
        except (UserError, UnreachableError) as error:
            summary.error = str(error)
        summary.seconds = time.monotonic() - start
        return summary

    def _predictions(self, shard: Shard) -> Iterator[_Prediction | None]:
        """Yield what became of each image of a shard, in order; None for other members of an archive.

        Each thread does everything for one image. Remote files are read ahead in more threads, which wait.
        """
        loaded: Iterator[_Loaded | None]
        if shard.kind == FILES and any(map(is_url, shard.names)):
            loaded = map_in_threads(_load, _entries(shard), per_processor=1, threads=REQUESTS)
            return map_in_threads(self._predict, loaded)
        return map_in_threads(lambda entry: self._predict(_load(entry)), _entries(shard))

    def _predict(self, loaded: _Loaded | None) -> _Prediction | None:
        """Decode an image and predict its landmarks."""
        if loaded is None:
            return None
        try:
            if loaded.error is not None:
                raise loaded.error
            image = read_image(EncodedFile(loaded.name, loaded.data))
            kept, discarded = predict_confident_faces(
                self._predictor, self._detector, image, self._job.refine, self._job.min_confidence
            )
        except LandmarksError as error:
            kinds = {DamagedArchiveError: DAMAGED_ARCHIVE, UnreachableError: UNREACHABLE}
            reason = str(error).removeprefix(f"{loaded.name}: ")
            return _Prediction(loaded.name, None, kinds.get(type(error), UNREADABLE), reason)
        except Exception as error:  # a run of days must not end at the same image whenever it is resumed
            reason = f"{type(error).__name__}: {error}"
            return _Prediction(loaded.name, None, INTERNAL_ERROR, shorten(reason, MAX_REASON))
        if len(kept):
            return _Prediction(loaded.name, kept)
        reason = "none detected"
        if len(discarded):
            reason = describe_discarded(discarded, self._job.min_confidence)
        return _Prediction(loaded.name, None, NO_FACE, reason)


@dataclass(frozen=True)
class _Prediction:
    """The landmarks of an image, or why there are none."""

    name: str
    landmarks: Landmarks | None
    kind: str = ""
    reason: str = ""


@dataclass(frozen=True)
class _Loaded:
    """An image file in memory, or why there is none."""

    name: str
    data: bytes = b""
    error: LandmarksError | None = None


def _entries(shard: Shard) -> Iterator[Entry | DamagedArchiveError | None]:
    """Yield the images of a shard and, last, that an archive is damaged."""
    try:
        yield from read_shard(shard)
    except DamagedArchiveError as error:
        yield error


def _load(entry: Entry | DamagedArchiveError | None) -> _Loaded | None:
    if entry is None:
        return None
    if isinstance(entry, DamagedArchiveError):
        return _Loaded(entry.archive, error=entry)
    try:
        return _Loaded(entry.name, entry.load())
    except LandmarksError as error:
        return _Loaded(entry.name, error=error)


def _add(prediction: _Prediction | None, writer: ShardWriter, summary: ShardSummary) -> None:
    """Add what became of an image to the files and to the summary."""
    if prediction is None:
        summary.others += 1
    elif prediction.landmarks is not None:
        writer.add(prediction.name, prediction.landmarks)
        summary.images += 1
        summary.faces += len(prediction.landmarks)
    else:
        writer.reject(prediction.name, prediction.kind, prediction.reason)
        if prediction.kind == NO_FACE:
            summary.no_face += 1
        else:
            summary.unreadable += 1


def _check_cause(writer: ShardWriter, summary: ShardSummary) -> None:
    """Raise an UnreachableError if so many images failed that the cause is not in the images."""
    lost = [one for one in writer.rejected if one.kind in (UNREACHABLE, INTERNAL_ERROR)]
    if len(lost) > MAX_LOST * summary.total:
        count = format_count(summary.total, "image")
        raise UnreachableError(f"{lost[0].path}: {lost[0].reason}; so failed {len(lost):,} of {count}")
