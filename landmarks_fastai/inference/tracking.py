"""Tracking: each face of a video keeps its track ID, and its crop follows its landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.geometry import Crop, crop_distance
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.refinement import REFINEMENT_PASSES
from landmarks_fastai.inference.rejection import is_confident
from landmarks_fastai.inference.smoothing import LandmarkSmoother
from landmarks_fastai.landmarks import Landmarks

Image = NDArray[np.uint8]

DETECTION_INTERVAL = 25
"""Number of frames from one detection to the next while all tracks are stable."""

MAX_PREDICTED_SHIFT = 0.2
"""Maximum predicted motion of a crop between two frames, as a fraction of its side."""

DUPLICATE_DISTANCE = 0.25
"""Two tracks closer than this (`crop_distance`) follow the same face."""

MATCH_DISTANCE = 0.5
"""A detection closer than this to a track's crop is the face of that track."""

REIDENTIFY_DISTANCE = 1.5
"""A new face closer than this to where a track was lost continues that track."""

REIDENTIFY_SECONDS = 2.0
"""Seconds after which a lost track ends; until then, the detector runs on every frame."""

LOST_CONFIDENCE = 0.6
"""A track is lost when its mean confidence falls below this fraction of its maximum.

Relative, because the maximum depends on the model and the face. With the default config, a crop of background
has 40 to 60 % of the maximum and a half-occluded face 75 %.
"""

MAX_MISSED_DETECTIONS = 3
"""Number of detection intervals without a matching detection after which a confident track ends."""


DEFAULT_INTERVAL = 0.04
"""Seconds from a frame to the next one, if the time of the second frame of a video is not later."""

MIN_INTERVAL = 1e-6
"""Frames that are closer than this, in seconds, have the same time."""


class _Clock:
    """Times that increase from frame to frame, even where the given times do not.

    Duplicate and decreasing times occur in joined recordings and when a clock is set. Such a frame follows
    the previous one after as much time as that one followed its predecessor; a velocity could not be computed
    otherwise.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._offset, self._interval = 0.0, DEFAULT_INTERVAL

    def __call__(self, time: float) -> float:
        """Return the time of the next frame in seconds; the given one, unless any was not increasing."""
        now = time + self._offset
        if self._last is not None:
            if now - self._last < MIN_INTERVAL:
                now = self._last + self._interval
                self._offset = now - time
            self._interval = now - self._last
        self._last = now
        return now


@dataclass(frozen=True, eq=False)
class _Observation:
    """Landmarks of one face in a frame, and the crop around them."""

    crop: Crop
    landmarks: Landmarks

    @property
    def mean_confidence(self) -> float:
        """Mean confidence; 0 if the model does not estimate it."""
        return float(np.nan_to_num(self.landmarks.confidence.mean()))


class _Track:
    """State of one track.

    Parameters
    ----------
    track_id
        ID of the track.
    smoother
        Smooths its landmarks; None for no smoothing.
    """

    first_detected: int
    last_detected: int
    """Indices of the frames of the first and last detection since the track started or was last continued."""
    max_confidence: float
    """Maximum of the mean confidence since then."""
    crop: Crop
    time: float
    landmarks: Landmarks
    velocity: tuple[float, float]
    """Velocity of the crop's center in pixels per second."""

    def __init__(self, track_id: int, smoother: LandmarkSmoother | None) -> None:
        self.track_id = track_id
        self.smoother = smoother
        self.confirmed = False
        """Whether it was detected in two frames; a track that ends before releases its ID."""

    def start(self, frame: int, observation: _Observation, time: float) -> None:
        """Start, or continue after being lost, with a detected face."""
        self.first_detected = self.last_detected = frame
        self.max_confidence, self.velocity = 0.0, (0.0, 0.0)
        self._store(observation, time)

    @property
    def stable(self) -> bool:
        """Whether the face was detected again after its first detection."""
        return self.last_detected > self.first_detected

    def update(self, observation: _Observation, time: float) -> None:
        """Continue with the face's observation in the next frame."""
        (x, y), (last_x, last_y), elapsed = observation.crop.center, self.crop.center, time - self.time
        self.velocity = (x - last_x) / elapsed, (y - last_y) / elapsed
        self._store(observation, time)

    def predicted_crop(self, time: float) -> Crop:
        """Return the crop expected at `time`, from the last velocity, limited by `MAX_PREDICTED_SHIFT`."""
        dx, dy = (speed * (time - self.time) for speed in self.velocity)
        factor = min(1.0, MAX_PREDICTED_SHIFT * self.crop.side / (math.hypot(dx, dy) or 1.0))
        return self.crop.shifted(factor * dx, factor * dy)

    def _store(self, observation: _Observation, time: float) -> None:
        self.crop, self.time = observation.crop, time
        self.max_confidence = max(self.max_confidence, observation.mean_confidence)
        found = observation.landmarks
        points = found.points
        if self.smoother is not None:
            points = self.smoother(points[0], time, found.confidence[0], found.visibility[0])[None]
        self.landmarks = replace(found, points=points, track_ids=(self.track_id,))


@dataclass
class Tracker:
    """Tracks the faces of a video; call it with one frame after the other.

    Faces are distinguished by position alone: a track ID continues when a cut replaces one face by another in
    the same place, or when somebody enters within two seconds where another person left.

    Parameters
    ----------
    predictor
        The model. Without a mean shape its crops cannot follow the landmarks.
    detector
        Finds the faces.
    smooth
        Smooth the landmarks (`LandmarkSmoother`).
    follow
        Derive each crop from the landmarks of the previous frame. If False, the detector runs on every frame
        and its crops are used unchanged.
    detection_interval
        Number of frames from one detection to the next while all tracks are stable.
    single
        The detector finds one object at most, whose detection does not start a second track.
    min_confidence
        A track is started, or continued after it was lost, only with at least this confidence
        (`Landmarks.face_confidence`).
    """

    predictor: Predictor
    detector: Detector
    smooth: bool = True
    follow: bool = True
    detection_interval: int = DETECTION_INTERVAL
    single: bool = False
    min_confidence: float = 0.0
    detections: int = field(default=0, init=False)
    """Number of times the detector has run."""
    discarded: int = field(default=0, init=False)
    """Number of detected faces that `min_confidence` excluded; a face counts each time it is detected."""

    def __post_init__(self) -> None:
        """Start without tracks."""
        self.follow = self.follow and self.predictor.header.mean_shape is not None
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._next_id = self._frame = self._last_detection = 0
        self._clock = _Clock()

    def __call__(self, image: Image, time: float) -> Landmarks:
        """Track the faces of the next frame.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB.
        time
            Time of the frame in seconds. If it is not later than that of the previous frame, the frames are
            assumed to follow each other as before.

        Returns
        -------
        Landmarks
            Landmarks with track IDs, sorted by track ID.
        """
        self._frame += 1
        time = self._clock(time)
        previous, self._tracks = self._tracks, []
        if self.follow:
            self._follow(previous, image, time)
        self._retire([track for track in previous if track not in self._tracks])
        self._lost = [track for track in self._lost if time - track.time <= REIDENTIFY_SECONDS]
        stable = self._tracks and not self._lost and all(track.stable for track in self._tracks)
        if not stable or self._frame - self._last_detection >= self.detection_interval:
            self._detect(image, time)
        tracks = sorted(self._tracks, key=lambda track: track.track_id)
        return Landmarks.concatenate([track.landmarks for track in tracks], self.predictor.schema)

    def _follow(self, tracks: Sequence[_Track], image: Image, time: float) -> None:
        """Predict the tracked faces in this frame and keep the tracks whose face is still there."""
        observations = self._observe(image, [track.predicted_crop(time) for track in tracks])
        pairs = [
            (track, observed)
            for track, observed in zip(tracks, observations, strict=True)
            if observed is not None
        ]
        # of two tracks on one face, the one whose crop moved farther came from another, now occluded face
        for track, observed in sorted(pairs, key=lambda pair: crop_distance(pair[0].crop, pair[1].crop)):
            confident = observed.mean_confidence >= LOST_CONFIDENCE * track.max_confidence
            if confident and self._is_free(observed.crop, DUPLICATE_DISTANCE):
                track.update(observed, time)
                self._tracks.append(track)

    def _detect(self, image: Image, time: float) -> None:
        """Run the detector to confirm, end, continue and start tracks."""
        self._last_detection = self._frame
        self.detections += 1
        crops = self.detector(image).crops
        self._confirm(crops)
        if self.single and self._tracks:
            return
        new = [crop for crop in crops if self._is_free(crop, MATCH_DISTANCE)]
        observations = self._observe(image, new, REFINEMENT_PASSES if self.follow else 0)
        candidates = [
            observed
            for observed in self._discard_unconfident(observations)
            if self._is_free(observed.crop, DUPLICATE_DISTANCE)
        ]
        for observed in self._continue_lost(candidates, time):
            if self._is_free(observed.crop, DUPLICATE_DISTANCE):
                track = _Track(self._next_id, LandmarkSmoother() if self.smooth else None)
                self._next_id += 1
                self._start(track, observed, time)

    def _discard_unconfident(self, observations: Sequence[_Observation | None]) -> list[_Observation]:
        """Return the faces of at least `min_confidence`, and count the others."""
        faces = [one for one in observations if one is not None]
        kept = [one for one in faces if is_confident(one.landmarks, self.min_confidence)[0]]
        self.discarded += len(faces) - len(kept)
        return kept

    def _confirm(self, crops: Sequence[Crop]) -> None:
        """Confirm the tracks that match a detected crop, and end those that were missed too often."""
        patience = MAX_MISSED_DETECTIONS * self.detection_interval
        for track in list(self._tracks):
            if any(crop_distance(track.crop, crop) < MATCH_DISTANCE for crop in crops):
                track.last_detected, track.confirmed = self._frame, True
            # a missed detection is tolerated only for a stable, confident track
            elif not (track.stable and track.max_confidence and self._frame - track.last_detected < patience):
                self._tracks.remove(track)
                self._retire([track])

    def _continue_lost(self, candidates: Sequence[_Observation], time: float) -> list[_Observation]:
        """Continue lost tracks with the nearest candidates, and return the candidates that remain."""
        remaining = list(candidates)
        # the nearest pair first, so that of two returning faces neither takes the other's ID
        pairs = [
            (crop_distance(track.crop, one.crop), track, one) for track in self._lost for one in remaining
        ]
        for distance, track, observed in sorted(pairs, key=lambda pair: pair[0]):
            if distance < REIDENTIFY_DISTANCE and track in self._lost and observed in remaining:
                self._lost.remove(track)
                remaining.remove(observed)
                self._start(track, observed, time)
        return remaining

    def _observe(self, image: Image, crops: Sequence[Crop], refine: int = 0) -> list[_Observation | None]:
        """Predict the landmarks in each crop; None where they cannot belong to a face."""
        predicted = self.predictor.predict_crops(image, crops, refine=refine)
        observations: list[_Observation | None] = []
        for landmarks in predicted:
            assert landmarks.crops is not None
            crop = self.predictor.crop_around(landmarks.points[0]) if self.follow else landmarks.crops[0]
            plausible = crop is not None and (not self.follow or _is_plausible(crop, image))
            observations.append(_Observation(crop, landmarks) if crop is not None and plausible else None)
        return observations

    def _start(self, track: _Track, observation: _Observation, time: float) -> None:
        """Start a new track, or continue a lost one."""
        track.start(self._frame, observation, time)
        self._tracks.append(track)

    def _retire(self, tracks: Sequence[_Track]) -> None:
        """Keep lost tracks for reidentification; an unconfirmed track releases its ID."""
        for track in tracks:
            if track.confirmed or not self.follow:
                self._lost.append(track)
            elif track.track_id == self._next_id - 1:
                self._next_id -= 1

    def _is_free(self, crop: Crop, distance: float) -> bool:
        """Return True if no current track is closer than `distance`."""
        return all(crop_distance(crop, track.crop) >= distance for track in self._tracks)


def _is_plausible(crop: Crop, image: Image) -> bool:
    """Return True if the crop is centered inside the image and at most twice as large as the image."""
    height, width = image.shape[:2]
    x, y = crop.center
    return bool(0 <= x <= width and 0 <= y <= height and crop.side <= 2 * max(height, width))
