"""A synthetic video of a face that moves along a known path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.geometry import Crop, extract_crop
from landmarks_fastai.inference.detectors.base import Detections
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import Tracker

Floats = NDArray[np.float64]
Path2D = Callable[[Floats], Floats]
"""Maps (N,) seconds to (N, 2) pixels."""

WIDTH, HEIGHT = 320, 240
ENLARGEMENT = 3
"""The face is drawn larger than in the frames by this factor."""

NOISE = 6.0
"""Standard deviation of the camera noise, gray levels."""

SECONDS = 5.0

WAVES = (((1.0, 0.19, 0.0), (0.5, 0.5, 1.0)), ((0.6, 0.26, 2.0), (0.3, 0.58, 0.5)))
"""Amplitude, frequency in Hz and phase of the sines along x and along y."""

OCCLUDED_SECONDS = (2.0, 3.6)
"""Start and end of the time in which a hand passes over the lower half of the face, seconds."""

HAND_HALF_SIDE, HAND_COLOR = 0.22, (180, 140, 120)
"""Half side of the hand as a fraction of the face's crop, and its color."""


@dataclass(frozen=True)
class Motion:
    """A smooth path, optionally with a hand that passes over the face.

    Parameters
    ----------
    speed
        Highest speed, in sides of the face's crop per second.
    frequency_factor
        Factor of the frequencies of `WAVES`.
    occluded
        Whether a hand passes over the face.
    """

    speed: float
    frequency_factor: float = 1.0
    occluded: bool = False

    def __call__(self, times: Floats) -> Floats:
        """Return the (N, 2) position at (N,) seconds, in sides of the face's crop."""
        minute = np.linspace(0, 60, 60_001)
        velocity = np.gradient(_waves(minute * self.frequency_factor), minute, axis=0)
        return np.asarray(_waves(times * self.frequency_factor) * (self.speed / np.hypot(*velocity.T).max()))


def _waves(times: Floats) -> Floats:
    axes = [
        sum(amplitude * np.sin(2 * np.pi * frequency * times + phase) for amplitude, frequency, phase in axis)
        for axis in WAVES
    ]
    return np.stack(axes, axis=1)


@dataclass(frozen=True)
class Scene:
    """The photo from which the frames are cropped, and the crop of the face in it."""

    photo: NDArray[np.uint8]
    face: Crop

    @classmethod
    def draw(cls, predictor: Predictor) -> Scene:
        """Draw a scene; the crop of its face is like those that the predictor was trained on."""
        photo, points = draw_synthetic_photo(0, (ENLARGEMENT * WIDTH, ENLARGEMENT * HEIGHT))
        face = predictor.crop_around(points)
        assert face is not None
        return cls(photo, face)

    @property
    def side(self) -> float:
        """Side of the face's crop, pixels of the frames."""
        return self.face.side / ENLARGEMENT

    def path(self, motion: Motion) -> Path2D:
        """Return the path of a motion in pixels of the frames."""
        return lambda times: self.side * motion(times)

    def frame(self, position: Floats) -> NDArray[np.uint8]:
        """Return the frame with the face moved from the center by (x, y) pixels."""
        left, top = (
            start + self.face.side / 2 - ENLARGEMENT * (length / 2 + moved)
            for start, length, moved in zip(
                (self.face.left, self.face.top), (WIDTH, HEIGHT), position, strict=True
            )
        )
        return extract_crop(self.photo, Crop(left, top, ENLARGEMENT * WIDTH), WIDTH, 3)[:HEIGHT]

    def add_hand(self, frame: NDArray[np.uint8], position: Floats, time: float) -> NDArray[np.uint8]:
        """Return a frame with the hand if it is visible at that time; it moves with the face."""
        start, end = OCCLUDED_SECONDS
        if not start <= time < end:
            return frame
        progress = (time - start) / (end - start) - 0.5
        center = position + (WIDTH / 2, HEIGHT / 2) + self.side * np.array([progress, 0.28])
        left, top = np.rint(center - HAND_HALF_SIDE * self.side).astype(int).clip(0)
        right, bottom = np.rint(center + HAND_HALF_SIDE * self.side).astype(int)
        frame = frame.copy()
        frame[top:bottom, left:right] = HAND_COLOR
        return frame


def track_face(predictor: Predictor, scene: Scene, motion: Motion, fps: int, seed: int) -> Floats:
    """Render and track the moving face; return (N, K, 3) predicted x, y and confidence for N frames."""
    times = frame_times(fps)
    positions = scene.path(motion)(times)
    rng = np.random.default_rng(seed)
    center = positions[0] + (WIDTH / 2, HEIGHT / 2)
    box = np.array([[*(center - scene.side / 2), *(center + scene.side / 2)]])
    tracker = Tracker(
        predictor,
        lambda _: Detections(box, np.ones(1)),
        smooth=False,
        detection_interval=len(times) + 1,
    )
    predictions = []
    for time, position in zip(times.tolist(), positions, strict=True):
        frame = scene.frame(position)
        if motion.occluded:
            frame = scene.add_hand(frame, position, time)
        noisy = (frame + rng.normal(0, NOISE, frame.shape)).clip(0, 255).astype(np.uint8)
        (face,) = tracker(noisy, time)
        predictions.append(np.column_stack([face.points[0], face.confidence[0]]).astype(np.float64))
    assert tracker.detections == 2, "the face was lost"  # the second frame confirms the track
    return np.array(predictions)


def frame_times(fps: int) -> Floats:
    """Return the (N,) seconds of the frames."""
    return np.arange(round(SECONDS * fps)) / fps
