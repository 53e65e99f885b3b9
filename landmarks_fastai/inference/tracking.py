"""From one frame to the next: each face keeps its number, and its square comes from its last points.

Knows a detector, a predictor and the order of frames; the detector runs only where it must. Knows nothing
about files or drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.framing import Square, apart
from landmarks_fastai.inference.faces import Detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.smoothing import SteadyFace

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

REFINE = 1
"""How often a new face's square is laid anew before its points count; measured in benchmarks/refine.md."""

DETECT_EVERY = 25
"""Frames from one look for new faces to the next, while all is well."""

AHEAD = 0.2
"""How far, as a share of its side, a square is moved on at most before the face is seen there."""

DOUBLE = 0.25
"""Of two tracked faces whose squares are less `apart`, one has slid onto the other."""

SAME = 0.5
"""A detected square that is less apart from a tracked face's holds that face."""

RETURN = 1.5
"""A found face that is less apart from where one was lost is that one, come back."""

REMEMBERED = 2.0
"""Seconds in which a lost face may come back; meanwhile every frame is looked at for it."""

LOST = 0.6
"""A face is lost where its points' mean confidence is less than this share of what it was at best.

Best is not the same for every model and every face. Of the default recipe's, nothing but a background has
left 40 to 60 %, a face half covered 75 %.
"""

MISSED = 3
"""After so many looks that don't find it, a face ends whose points are still confident."""


@dataclass(frozen=True)
class TrackedFace:
    """A face in a frame.

    Parameters
    ----------
    number
        The same in every frame that shows this face.
    points
        (K, 2) float32, x then y, px of the frame, steadied where that was asked for.
    confidence
        (K,) float32, as `Landmarks.confidence`.
    """

    number: int
    points: Floats
    confidence: Floats


@dataclass(frozen=True, eq=False)
class _Sight:
    """What a frame shows in a square: points, and the square around them."""

    square: Square
    points: Floats
    confidence: Floats

    @property
    def sureness(self) -> float:
        """Mean confidence; 0 where the model does not know it."""
        return float(np.nan_to_num(self.confidence.mean()))


class _Track:
    """What is remembered of a face. What the detector finds in one frame only may be none."""

    begun: int
    found: int
    """Frames in which the detector found it first, since it was lost if it was, and last."""
    surest: float
    """Mean confidence at best, since then."""
    square: Square
    time: float
    face: TrackedFace
    """Where, when and how it was seen last."""
    velocity: tuple[float, float]
    """Of the square, px a second."""

    def __init__(self, number: int, steady: SteadyFace | None) -> None:
        self.number = number
        self.steady = steady
        self.counted = False  # whether it was ever found in two frames, which makes the number its own

    def begin(self, frame: int, sight: _Sight, time: float) -> None:
        """Be found, or found again after it was lost."""
        self.begun = self.found = frame
        self.surest, self.velocity = 0.0, (0.0, 0.0)
        self._take(sight, time)

    @property
    def settled(self) -> bool:
        """Whether it was found again since it began."""
        return self.found > self.begun

    def go_on(self, sight: _Sight, time: float) -> None:
        """Be seen again."""
        (x, y), (before_x, before_y), elapsed = sight.square.middle, self.square.middle, time - self.time
        self.velocity = (x - before_x) / elapsed, (y - before_y) / elapsed
        self._take(sight, time)

    def expected(self, time: float) -> Square:
        """Return the square for the next frame: moved on as it moved last, but by no more than `AHEAD`."""
        right, down = (speed * (time - self.time) for speed in self.velocity)
        share = min(1.0, AHEAD * self.square.side / (math.hypot(right, down) or 1.0))
        return self.square.moved(share * right, share * down)

    def _take(self, sight: _Sight, time: float) -> None:
        self.square, self.time, self.surest = sight.square, time, max(self.surest, sight.sureness)
        points = sight.points
        if self.steady is not None:
            points = self.steady(points, time, sight.confidence)
        self.face = TrackedFace(self.number, points, sight.confidence)


@dataclass
class Tracker:
    """Follows the faces of a video; called with one frame after the other.

    Faces are told apart by where they are alone. So a number stays on where the scene changes to another
    face in the same place, or where somebody comes within two seconds to where another left.

    Parameters
    ----------
    predictor
        The model. One without a mean face can't follow.
    detector
        Where faces are.
    smooth
        Steady the points (`SteadyFace`).
    follow
        Take each face's next square from its last points. Else the detector looks at every frame, and its
        squares are taken as they are.
    detect_every
        Frames between two looks for new faces.
    """

    predictor: Predictor
    detector: Detector
    smooth: bool = True
    follow: bool = True
    detect_every: int = DETECT_EVERY
    detections: int = field(default=0, init=False)
    """How often the detector has run."""

    def __post_init__(self) -> None:
        """Begin without a face."""
        self.follow = self.follow and self.predictor.header.mean_face is not None
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._numbers = self._frame = self._looked = 0

    def __call__(self, image: Picture, time: float) -> list[TrackedFace]:
        """Find the faces of the next frame.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB.
        time
            Of the frame, in seconds; later than the frame's before.

        Returns
        -------
        list[TrackedFace]
            In the order of their numbers.
        """
        self._frame += 1
        before, self._tracks = self._tracks, []
        if self.follow:
            self._go_on(before, image, time)
        self._part_with([track for track in before if track not in self._tracks])
        self._lost = [track for track in self._lost if time - track.time <= REMEMBERED]
        settled = self._tracks and not self._lost and all(track.settled for track in self._tracks)
        if not settled or self._frame - self._looked >= self.detect_every:
            self._look_around(image, time)
        return [track.face for track in sorted(self._tracks, key=lambda track: track.number)]

    def _go_on(self, tracks: Sequence[_Track], image: Picture, time: float) -> None:
        """See the tracked faces again, if they are still there."""
        sights = self._see(image, [track.expected(time) for track in tracks])
        pairs = [(track, sight) for track, sight in zip(tracks, sights, strict=True) if sight is not None]
        # of two on one face, the one that had farther to go has slid onto it from a face that is hidden
        for track, sight in sorted(pairs, key=lambda pair: apart(pair[0].square, pair[1].square)):
            if sight.sureness >= LOST * track.surest and self._is_free(sight.square, DOUBLE):
                track.go_on(sight, time)
                self._tracks.append(track)

    def _look_around(self, image: Picture, time: float) -> None:
        """Let the detector find what is new or was lost, and doubt what it does not find."""
        self._looked = self._frame
        self.detections += 1
        squares = self.detector(image).squares
        patience = MISSED * self.detect_every
        for track in list(self._tracks):
            if any(apart(track.square, square) < SAME for square in squares):
                track.found, track.counted = self._frame, True
            # only confident points of what was found before speak against the detector
            elif not (track.settled and track.surest and self._frame - track.found < patience):
                self._tracks.remove(track)
                self._part_with([track])
        new = [square for square in squares if self._is_free(square, SAME)]
        sights = self._see(image, new, REFINE if self.follow else 0)
        seen = [sight for sight in sights if sight is not None and self._is_free(sight.square, DOUBLE)]
        # the nearest first, so that of two faces that come back neither takes the other's number
        pairs = [(apart(track.square, sight.square), track, sight) for track in self._lost for sight in seen]
        for distance, track, sight in sorted(pairs, key=lambda pair: pair[0]):
            if distance < RETURN and track in self._lost and sight in seen:
                self._lost.remove(track)
                seen.remove(sight)
                self._begin(track, sight, time)
        for sight in seen:
            if self._is_free(sight.square, DOUBLE):
                track = _Track(self._numbers, SteadyFace() if self.smooth else None)
                self._numbers += 1
                self._begin(track, sight, time)

    def _see(self, image: Picture, squares: Sequence[Square], refine: int = 0) -> list[_Sight | None]:
        """Find the points in each square; None where they can be no face's."""
        found = self.predictor.predict_squares(image, squares, refine=refine)
        if not self.follow:  # the squares are believed
            return [_Sight(*one) for one in zip(found.squares, found.points, found.confidence, strict=True)]
        sights: list[_Sight | None] = []
        for points, confidence in zip(found.points, found.confidence, strict=True):
            square = self.predictor.square_around(points)
            if square is None or not _in_sight(square, image):
                sights.append(None)
            else:
                sights.append(_Sight(square, points, confidence))
        return sights

    def _begin(self, track: _Track, sight: _Sight, time: float) -> None:
        """Take up a face that the detector found, a new one or one that comes back."""
        track.begin(self._frame, sight, time)
        self._tracks.append(track)

    def _part_with(self, tracks: Sequence[_Track]) -> None:
        """Remember faces that may come back; what was none gives its number to the next."""
        for track in tracks:
            if track.counted or not self.follow:
                self._lost.append(track)
            elif track.number == self._numbers - 1:
                self._numbers -= 1

    def _is_free(self, square: Square, distance: float) -> bool:
        """Tell whether no tracked face is that near."""
        return all(apart(square, track.square) >= distance for track in self._tracks)


def _in_sight(square: Square, image: Picture) -> bool:
    """Tell whether a square has its middle in the picture, and is not larger than it by far."""
    height, width = image.shape[:2]
    x, y = square.middle
    return bool(0 <= x <= width and 0 <= y <= height and square.side <= 2 * max(height, width))
