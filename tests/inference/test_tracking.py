"""Tracking in known scenes: track IDs persist, and the detector runs no more often than needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from helpers.scene import (
    FPS,
    HEADER,
    IMAGE,
    MEAN_SHAPE,
    Position,
    Scene,
    ScenePredictor,
    landmarks_in_crops,
    track,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.geometry import ROLL_TOLERANCE, Crop, rotate_points
from landmarks_fastai.inference.detectors.base import Detections
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.smoothing import LandmarkSmoother
from landmarks_fastai.inference.tracking import DEFAULT_INTERVAL, REIDENTIFY_SECONDS, Tracker
from landmarks_fastai.landmarks import Landmarks


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def tracker(scene: Scene) -> Tracker:
    return Tracker(ScenePredictor(scene), scene.detect, smooth=False)


def path(start: Position, end: Position, count: int) -> list[Position]:
    """Return `count` equally spaced positions on a line."""
    return [tuple(position) for position in np.linspace(start, end, count).tolist()]


# --- detection -----------------------------------------------------------------------------------


def test_detector_runs_at_start_and_then_in_intervals(scene: Scene, tracker: Tracker) -> None:
    results = track(scene, tracker, [{"a": position} for position in path((60, 60), (260, 180), 76)])
    assert results == [{"a": 0}] * 76
    # a first detection must be confirmed in the next frame
    assert scene.detection_frames == [0, 1, 26, 51]
    assert tracker.detections == 4


def test_detector_without_faces_runs_in_every_frame(scene: Scene, tracker: Tracker) -> None:
    assert track(scene, tracker, [{}] * 5 + [{"a": (100, 100)}] * 5) == [{}] * 5 + [{"a": 0}] * 5
    assert scene.detection_frames == [0, 1, 2, 3, 4, 5, 6]


def test_tracker_returns_landmarks_of_current_frame(scene: Scene, tracker: Tracker) -> None:
    for x in (100.0, 104.0, 109.5):
        scene.advance({"a": (x, 80, 50)})
        faces = tracker(IMAGE, scene.frame / FPS)
        assert faces.track_ids == (0,)
        np.testing.assert_allclose(faces.points[0], MEAN_SHAPE * 50 + (x - 25.5, 54.5), atol=1e-4)
        np.testing.assert_allclose(faces.confidence[0], 0.8)


def test_tracker_without_faces_returns_empty_landmarks(tracker: Tracker, scene: Scene) -> None:
    scene.advance({})
    faces = tracker(IMAGE, 0.0)
    assert len(faces) == 0
    assert faces.schema == HEADER.landmark_schema


def test_new_face_is_tracked_from_next_detection(scene: Scene, tracker: Tracker) -> None:
    one, two = {"a": (80, 100)}, {"a": (80, 100), "b": (220, 100)}
    results = track(scene, tracker, [one] * 5 + [two] * 25)
    assert results == [{"a": 0}] * 26 + [{"a": 0, "b": 1}] * 4
    assert scene.detection_frames == [0, 1, 26, 27]


def test_confident_face_survives_missed_detections(scene: Scene, tracker: Tracker) -> None:
    frames = [{"a": (100, 100)}] * 30
    for undetected in ("", "a", "", "a"):
        scene.undetected = frozenset(undetected)
        # at most two detections in a row miss it
        assert track(scene, tracker, frames + frames[:20]) == [{"a": 0}] * 50
    assert scene.detection_frames == [0, 1, *range(26, 200, 25)]


def test_confident_track_that_is_never_detected_ends(scene: Scene, tracker: Tracker) -> None:
    scene.background_confidence = scene.confidence
    results = track(scene, tracker, [{"a": (100, 100)}] * 30 + [{}] * 100)
    assert results == [{"a": 0}] * 30 + [{"?": 0}] * 71 + [{}] * 29
    assert scene.detection_frames[:6] == [0, 1, 26, 51, 76, 101]


def test_track_without_confidence_ends_at_first_missed_detection(scene: Scene, tracker: Tracker) -> None:
    scene.confidence = scene.background_confidence = float("nan")
    results = track(scene, tracker, [{"a": (100, 100)}] * 30 + [{}] * 30)
    # without confidence, only the next detection can show that the face has left
    assert results == [{"a": 0}] * 30 + [{"?": 0}] * 21 + [{}] * 9
    # if it was missed in a few frames only, the track continues
    scene.undetected = frozenset("a")
    track(scene, tracker, [{"a": (100, 100)}] * 3)
    scene.undetected = frozenset()
    assert track(scene, tracker, [{"a": (100, 100)}] * 25) == [{"a": 0}] * 25


@pytest.mark.parametrize("maximum", [0.9, 0.4])
@pytest.mark.parametrize(("fraction", "continues"), [(0.7, True), (0.5, False)])
def test_track_is_lost_when_confidence_falls_relative_to_its_maximum(
    scene: Scene, tracker: Tracker, maximum: float, fraction: float, continues: bool
) -> None:
    scene.confidence = maximum
    track(scene, tracker, [{"a": (100, 100)}] * 5)
    scene.confidence, scene.undetected = fraction * maximum, frozenset("a")
    assert track(scene, tracker, [{"a": (100, 100)}] * 3) == [{"a": 0} if continues else {}] * 3
    # a detection continues the track and resets the maximum
    scene.undetected = frozenset()
    assert track(scene, tracker, [{"a": (100, 100)}] * 5) == [{"a": 0}] * 5
    assert scene.detection_frames == ([0, 1] if continues else [0, 1, 5, 6, 7, 8, 9])


def test_tracker_drops_unconfirmed_track_and_reuses_its_id(scene: Scene) -> None:
    tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=False, detection_interval=1)
    for step in range(10):
        scene.false_detections = [Crop(150 + 10 * step, 150, 50)] * (step % 2)
        unconfirmed = {"?": 1} if step % 2 else {}
        assert track(scene, tracker, [{"a": (100, 60)}]) == [{"a": 0} | unconfirmed]
    scene.false_detections = []
    results = track(scene, tracker, [{"a": (100, 60)}, {"a": (100, 60), "b": (250, 160)}])
    assert results == [{"a": 0}, {"a": 0, "b": 1}]


def test_false_detection_near_lost_face_does_not_keep_its_id(scene: Scene, tracker: Tracker) -> None:
    scene.background_confidence = scene.confidence
    both, one = {"a": (100, 60), "b": (250, 160)}, {"a": (100, 60)}
    track(scene, tracker, [both] * 5)
    scene.background_confidence = 0.02
    track(scene, tracker, [one])
    scene.false_detections, scene.background_confidence = [Crop(200, 140, 60)], scene.confidence
    assert track(scene, tracker, [one]) == [{"a": 0, "?": 1}]
    scene.false_detections = []
    assert track(scene, tracker, [one, both]) == [{"a": 0}, {"a": 0, "b": 1}]


# --- track IDs -----------------------------------------------------------------------------------


def test_lost_face_is_searched_for_in_every_frame_and_keeps_its_id(scene: Scene, tracker: Tracker) -> None:
    both, one = {"a": (80, 100), "b": (220, 100)}, {"a": (80, 100)}
    results = track(scene, tracker, [both] * 3 + [one] * 10 + [both] * 5)
    assert results == [{"a": 0, "b": 1}] * 3 + [{"a": 0}] * 10 + [{"a": 0, "b": 1}] * 5
    assert scene.detection_frames == [0, 1, *range(3, 15)]


def test_face_that_returns_late_has_new_id(scene: Scene, tracker: Tracker) -> None:
    both, one = {"a": (80, 100), "b": (220, 100)}, {"a": (80, 100)}
    absent = int(REIDENTIFY_SECONDS * FPS) + 1
    results = track(scene, tracker, [both] * 3 + [one] * absent + [both] * 26)
    assert results[-1] == {"a": 0, "b": 2}
    # after REIDENTIFY_SECONDS it is no longer searched for in every frame
    assert scene.detection_frames == [0, 1, *range(3, 2 + absent), 26 + absent, 27 + absent]


def test_face_that_leaves_image_ends_while_other_continues(scene: Scene, tracker: Tracker) -> None:
    positions = path((200, 100), (360, 100), 40)
    results = track(scene, tracker, [{"a": (80, 100), "b": position} for position in positions])
    # its center leaves the image at x = 320
    assert results[:29] == [{"a": 0, "b": 1}] * 29
    assert results[30:] == [{"a": 0}] * 10


def test_face_at_edge_of_image_is_followed(scene: Scene, tracker: Tracker) -> None:
    positions = path((160, 120), (2, 238), 60)
    frames = [{"a": position} for position in [*positions, *reversed(positions)]]
    assert track(scene, tracker, frames) == [{"a": 0}] * 120
    assert scene.detection_frames == [0, 1, 26, 51, 76, 101]


@settings(max_examples=40)
@given(
    speed=st.floats(1.5, 4), front=st.sampled_from(["a", "b"]), gap=st.floats(-25, 25), rests=st.booleans()
)
@example(speed=3.0, front="b", gap=0.0, rests=False)
@example(speed=3.0, front="a", gap=0.0, rests=False)
def test_crossing_faces_keep_their_ids(speed: float, front: str, gap: float, rests: bool) -> None:
    scene = Scene()
    tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=False)
    count = int(200 / speed)
    positions = {
        "a": [(60 + speed * step, 100) for step in range(count)],
        "b": [(160 if rests else 260 - speed * step, 100 + gap) for step in range(count)],
    }
    names = sorted(positions, key=lambda name: name != front)
    frames = [{name: positions[name][step] for name in names} for step in range(count)]
    results = track(scene, tracker, frames)
    assert results[0] == {name: index for index, name in enumerate(names)}
    assert all(set(result.items()) <= set(results[0].items()) for result in results)
    assert results[-1] == results[0]


def test_neighboring_faces_do_not_exchange_ids(scene: Scene, tracker: Tracker) -> None:
    rng = np.random.default_rng(0)
    frames = [{"a": (100 + x, 100), "b": (142 + y, 104)} for x, y in rng.uniform(-5, 5, (100, 2)).tolist()]
    assert track(scene, tracker, frames) == [{"a": 0, "b": 1}] * 100
    assert scene.detection_frames == [0, 1, 26, 51, 76]


def test_cut_to_other_scene_starts_new_ids(scene: Scene, tracker: Tracker) -> None:
    first, second = {"a": (80, 80), "b": (200, 100)}, {"c": (140, 180, 100), "d": (280, 60, 30)}
    results = track(scene, tracker, [first] * 5 + [second] * 5)
    assert results == [{"a": 0, "b": 1}] * 5 + [{"c": 2, "d": 3}] * 5
    assert scene.detection_frames[:3] == [0, 1, 5]


def test_two_returning_faces_keep_their_own_ids(scene: Scene, tracker: Tracker) -> None:
    both = {"a": (100, 100), "b": (160, 100)}
    track(scene, tracker, [both] * 5 + [{}] * 5)
    # b, which is detected first, is also near enough to where a was lost
    assert track(scene, tracker, [{"b": (150, 100), "a": (92, 100)}] * 3) == [{"a": 0, "b": 1}] * 3


def test_hidden_face_does_not_take_over_track_of_other_face(scene: Scene, tracker: Tracker) -> None:
    neighbors = {"a": (100, 100), "b": (130, 100)}
    assert track(scene, tracker, [neighbors] * 5) == [{"a": 0, "b": 1}] * 5
    # a is hidden, and its crop shows b
    assert track(scene, tracker, [{"b": (128, 100)}] * 3) == [{"b": 1}] * 3


def test_overlapping_detections_of_one_face_are_one_track(scene: Scene, tracker: Tracker) -> None:
    scene.false_detections = [Crop(75, 75, 55), Crop(87, 87, 50), Crop(60, 90, 60)]
    assert track(scene, tracker, [{"a": (100, 100)}] * 30) == [{"a": 0}] * 30


# --- without following ---------------------------------------------------------------------------


def test_tracker_without_follow_detects_in_every_frame(scene: Scene) -> None:
    tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=False, follow=False)
    frames = [{"a": (60 + 5 * step, 100), "b": (250 - 5 * step, 110)} for step in range(15)]
    assert track(scene, tracker, frames) == [{"a": 0, "b": 1}] * 15
    assert scene.detection_frames == list(range(15))
    # its detections are accepted, whatever the landmarks
    scene.false_detections = [Crop(20, 180, 50)]
    assert track(scene, tracker, frames[-1:]) == [{"a": 0, "b": 1, "?": 2}]


def test_tracker_of_model_without_mean_shape_does_not_follow(scene: Scene) -> None:
    predictor = ScenePredictor(scene, HEADER.model_copy(update={"mean_shape": None}))
    tracker = Tracker(predictor, scene.detect)
    assert track(scene, tracker, [{"a": (100, 100)}] * 5) == [{"a": 0}] * 5
    assert scene.detection_frames == list(range(5))


# --- smoothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", [True, False])
def test_smoothing_halves_jitter_of_each_track(follow: bool) -> None:
    rng = np.random.default_rng(0)
    frames = [
        {"a": (100 + x, 100 + y), "b": (220 + y, 100 - x)} for x, y in rng.normal(0, 0.5, (50, 2)).tolist()
    ]

    def measure_jitter(smooth: bool) -> float:
        scene = Scene()
        tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=smooth, follow=follow)
        points = []
        for positions in frames:
            scene.advance(positions)
            points.append(tracker(IMAGE, scene.frame / FPS).points)
        return float(np.diff(points, n=2, axis=0).std())

    assert measure_jitter(True) < 0.5 * measure_jitter(False)


class JitteringMouth(ScenePredictor):
    """Predicts a mouth that jitters and has less confidence."""

    def predict_crops(
        self, image: NDArray[np.uint8], crops: Sequence[Crop], flip: bool = False, refine: int = 0
    ) -> Landmarks:
        predicted = super().predict_crops(image, crops, flip, refine)
        predicted.points[:, 2] += 3 * (self.scene.frame % 2)
        predicted.scales[:, 2] *= 4
        return landmarks_in_crops(predicted.points, predicted.scales, crops)


def test_smoothing_uses_confidence_of_each_landmark() -> None:
    def track_face(smooth: bool) -> list[Landmarks]:
        scene = Scene()
        tracker = Tracker(JitteringMouth(scene), scene.detect, smooth=smooth, follow=False)
        results = []
        for _ in range(10):
            scene.advance({"a": (100, 100)})
            results.append(tracker(IMAGE, scene.frame / FPS))
        return results

    raw, smoother = track_face(smooth=False), LandmarkSmoother()
    expected = [
        smoother(faces.points[0], index / FPS, faces.confidence[0]) for index, faces in enumerate(raw)
    ]
    smoothed = track_face(smooth=True)
    np.testing.assert_array_equal([faces.points[0] for faces in smoothed], expected)
    assert raw[0].confidence[0, 2] < 0.5 * raw[0].confidence[0, 0]


# --- frame times ---------------------------------------------------------------------------------

SPEED = 6.0
"""Pixels per frame of the moving face."""


def track_at(times: Sequence[float], smooth: bool = False) -> list[Landmarks]:
    """Track a face that moves to the right by `SPEED` from frame to frame, at the given times."""
    scene = Scene()
    tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=smooth)
    results = []
    for index, time in enumerate(times):
        scene.advance({"a": (80 + SPEED * index, 100)})
        results.append(tracker(IMAGE, time))
    return results


@pytest.mark.parametrize(
    "times",
    [
        [0.0] * 30,
        [index // 2 / 25 for index in range(30)],  # each time occurs twice
        [*(index / 25 for index in range(15)), *(index / 25 for index in range(15))],  # joined recordings
        [1e6, *(index / 25 for index in range(29))],  # a clock that was set back
        [index * 1e-320 for index in range(30)],
    ],
)
@pytest.mark.parametrize("smooth", [False, True])
def test_tracker_equal_or_decreasing_times_keep_the_track(times: list[float], smooth: bool) -> None:
    results = track_at(times, smooth)
    assert [faces.track_ids for faces in results] == [(0,)] * len(times)
    found = np.array([faces.points[0].mean(axis=0) for faces in results])
    assert np.isfinite(found).all()
    expected = np.array([faces.points[0].mean(axis=0) for faces in track_at(range(30))])
    # the landmarks follow the face, and smoothing does not hold them where they were
    np.testing.assert_allclose(found, expected, atol=SPEED if smooth else 1e-3)


def test_tracker_equal_times_are_smoothed_like_the_frames_before() -> None:
    regular = track_at([index / 25 for index in range(30)], smooth=True)
    repeated = track_at([min(index, 20) / 25 for index in range(30)], smooth=True)
    for expected, found in zip(regular, repeated, strict=True):
        np.testing.assert_allclose(found.points, expected.points, atol=1e-3)


def test_tracker_first_two_frames_of_equal_time_are_one_default_interval_apart() -> None:
    regular = track_at([index * DEFAULT_INTERVAL for index in range(3)], smooth=True)
    equal = track_at([0.0] * 3, smooth=True)
    np.testing.assert_allclose(equal[-1].points, regular[-1].points, atol=1e-4)


# --- roll ----------------------------------------------------------------------------------------


class RotatingFace(Predictor):
    """Predicts a face with a given roll, and records the crops."""

    def __init__(self) -> None:
        super().__init__(HEADER, lambda crops: ())
        self.roll = 0.0
        self.crops: list[Crop] = []

    def predict_crops(
        self, image: NDArray[np.uint8], crops: Sequence[Crop], flip: bool = False, refine: int = 0
    ) -> Landmarks:
        self.crops += crops
        points = rotate_points(MEAN_SHAPE, self.roll, (0.5, 0.5)) * 60 + (100, 80) - 0.5
        repeated = np.repeat(points[None].astype(np.float32), len(crops), 0)
        return landmarks_in_crops(repeated, np.full((len(crops), 3), 0.5, np.float32), crops)


def test_crop_follows_roll_of_face() -> None:
    predictor = RotatingFace()
    detections = Detections(np.array([[100.0, 80, 160, 140]]), np.ones(1))
    tracker = Tracker(predictor, lambda image: detections, smooth=False)
    for frame in range(25):
        predictor.roll, previous = 6.0 * frame, predictor.roll
        predictor.crops.clear()
        faces = tracker(IMAGE, frame / FPS)
        assert faces.track_ids == (0,)
        if frame:
            expected = max(0.0, previous - ROLL_TOLERANCE)
            assert predictor.crops[0].roll == pytest.approx(expected, abs=math.degrees(1e-4))


# --- confidence ----------------------------------------------------------------------------------


def test_unconfident_face_starts_no_track_and_is_counted(scene: Scene) -> None:
    tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=False, min_confidence=0.5)
    scene.false_detections = [Crop(200, 100, 60)]  # with the background's confidence
    assert track(scene, tracker, [{"a": (60, 60)}] * 3) == [{"a": 0}] * 3
    assert tracker.discarded == 2  # once by each run of the detector, in frames 0 and 1


def test_face_of_exactly_the_minimum_confidence_is_tracked(scene: Scene) -> None:
    scene.advance({"a": (60, 60)})
    (face,) = ScenePredictor(scene).predict_crops(IMAGE, [scene.faces["a"]])
    minimum = float(face.face_confidence[0])
    tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=False, min_confidence=minimum)
    assert track(scene, tracker, [{"a": (60, 60)}] * 2) == [{"a": 0}] * 2
    assert tracker.discarded == 0


def test_confirmed_track_survives_lower_confidence(scene: Scene) -> None:
    tracker = Tracker(ScenePredictor(scene), scene.detect, smooth=False, min_confidence=0.75)
    assert track(scene, tracker, [{"a": (60, 60)}] * 3) == [{"a": 0}] * 3
    scene.confidence = 0.7  # above `LOST_CONFIDENCE` times the maximum
    assert track(scene, tracker, [{"a": (60, 60)}] * 40) == [{"a": 0}] * 40
    assert tracker.discarded == 0


# --- motion --------------------------------------------------------------------------------------


class RecordingPredictor(ScenePredictor):
    """Records the crops of each call; the landmarks are visible with the given probabilities."""

    def __init__(self, scene: Scene, visibility: Sequence[float] = (1, 1, 1)) -> None:
        super().__init__(scene)
        self.crops: list[list[Crop]] = []
        self.refinements: list[int] = []
        self.visibility = np.array([visibility], np.float32)

    def predict_crops(
        self, image: NDArray[np.uint8], crops: Sequence[Crop], flip: bool = False, refine: int = 0
    ) -> Landmarks:
        self.crops.append(list(crops))
        self.refinements.append(refine)
        found = super().predict_crops(image, crops, flip, refine)
        return replace(found, visibility=np.repeat(self.visibility, len(found), 0))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ((4.0, -3.0), (4.0, -3.0)),
        ((15.0, 20.0), (7.2, 9.6)),  # 25 px, limited to a fifth of the side of 60 px
        ((0.0, 0.0), (0.0, 0.0)),
    ],
)
@pytest.mark.parametrize("fps", [25, 50])
def test_crop_of_next_frame_is_extrapolated(
    scene: Scene, step: Position, expected: Position, fps: float
) -> None:
    predictor = RecordingPredictor(scene)
    tracker = Tracker(predictor, scene.detect, smooth=False)
    frames = [{"a": (100 + step[0] * frame, 120 + step[1] * frame)} for frame in range(4)]
    track(scene, tracker, frames, fps)
    followed = [crops[0] for crops in predictor.crops if crops][1:]  # the first crop is that of the detection
    np.testing.assert_allclose(followed[0].center, frames[0]["a"], atol=1e-3)  # still without a velocity
    crop = followed[-1]
    last_x, last_y = frames[2]["a"]
    np.testing.assert_allclose(crop.center, (last_x + expected[0], last_y + expected[1]), atol=1e-3)


def test_tracker_smooths_occluded_landmark_more(scene: Scene) -> None:
    moves = []
    for visibility in ((1, 1, 1), (0, 1, 1)):
        scene = Scene()
        tracker = Tracker(RecordingPredictor(scene, visibility), scene.detect)
        points = []
        for side in (60.0, 60.6):  # the shape grows, so that the centroid stays
            scene.advance({"a": (100, 120, side)})
            points.append(tracker(IMAGE, scene.frame / FPS).points[0])
        moves.append(np.hypot(*(points[1] - points[0]).T))
    assert moves[1][0] < 0.5 * moves[0][0]
    np.testing.assert_allclose(moves[1][2], moves[0][2], rtol=0.2)


def test_unconfirmed_track_releases_its_id(scene: Scene, tracker: Tracker) -> None:
    scene.false_detections = [Crop(200, 100, 60)]
    scene.advance({})
    assert tracker(IMAGE, 0.0).track_ids == (0,)
    scene.false_detections = []
    assert track(scene, tracker, [{}] + [{"a": (60, 60)}] * 3) == [{}] + [{"a": 0}] * 3


@pytest.mark.parametrize(("follow", "expected"), [(True, 1), (False, 0)])
def test_crop_of_detection_is_refined_only_if_crops_follow_landmarks(
    scene: Scene, follow: bool, expected: int
) -> None:
    predictor = RecordingPredictor(scene)
    tracker = Tracker(predictor, scene.detect, smooth=False, follow=follow)
    track(scene, tracker, [{"a": (60, 60)}])
    assert predictor.refinements[-1] == expected
