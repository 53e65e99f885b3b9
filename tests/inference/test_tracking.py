"""Faces keep their numbers from frame to frame, and the detector runs no more than it must.

The picture is a scene that we know: a stand-in predictor and detector see what it shows at each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from landmarks_fastai.calibration import scale_of_chance
from landmarks_fastai.framing import LEAN, Square, apart, turn_points
from landmarks_fastai.inference.faces import Boxes
from landmarks_fastai.inference.modelfile import ModelHeader
from landmarks_fastai.inference.predictor import Landmarks, Predictor
from landmarks_fastai.inference.smoothing import SteadyFace
from landmarks_fastai.inference.tracking import REMEMBERED, TrackedFace, Tracker
from landmarks_fastai.schema import schema_from_names

FPS = 25
IMAGE = np.zeros((240, 320, 3), np.uint8)
MEAN = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.75]])
HEADER = ModelHeader(
    arch="a",
    head={},
    channels=3,
    input_size=32,
    mean=[0.5] * 3,
    std=[0.5] * 3,
    schema=schema_from_names("three", ["left_eye", "right_eye", "mouth"]),
    mean_face=[tuple(place) for place in MEAN.tolist()],
)

Place = tuple[float, float] | tuple[float, float, float]
"""The middle of a face's square, and its side where that is not 60."""


@dataclass
class Scene:
    """What a frame shows: faces by name, those in front first."""

    places: dict[str, Square] = field(default_factory=dict)
    confidence: float = 0.8
    nothing: float = 0.02
    """Mean confidence of points where no face is."""
    unfound: frozenset[str] = frozenset()
    """Faces that are to be seen, and that the detector misses."""
    ghosts: list[Square] = field(default_factory=list)
    """Squares that the detector takes for faces."""
    searches: list[int] = field(default_factory=list)
    """Frames that the detector was shown."""
    frame: int = -1

    def shows(self, places: Mapping[str, Place]) -> None:
        self.frame += 1
        self.places = {}
        for name, (x, y, *side) in places.items():
            square = Square(x - (side or [60])[0] / 2, y - (side or [60])[0] / 2, (side or [60])[0])
            if all(apart(square, front) > 0.4 for front in self.places.values()):  # else it is hidden
                self.places[name] = square

    def detect(self, image: NDArray[np.uint8]) -> Boxes:
        self.searches.append(self.frame)
        found = [square for name, square in self.places.items() if name not in self.unfound] + self.ghosts
        return Boxes(np.array([square.edges for square in found]).reshape(-1, 4), np.ones(len(found)))


class Seer(Predictor):
    """Finds the points of the face that is nearest to a square, if it is near enough to be seen in it."""

    def __init__(self, scene: Scene, header: ModelHeader = HEADER) -> None:
        super().__init__(header, lambda crops: ())
        self.scene = scene

    def predict_squares(
        self, image: NDArray[np.uint8], squares: Sequence[Square], flip: bool = False, refine: int = 0
    ) -> Landmarks:
        points, scales = np.empty((len(squares), 3, 2), np.float32), np.empty((len(squares), 3), np.float32)
        for row, square in enumerate(squares):
            nearest = min(self.scene.places.values(), key=lambda face: apart(face, square), default=None)
            seen = nearest is not None and apart(nearest, square) < 0.5
            shown = nearest if nearest is not None and seen else square
            points[row] = MEAN * shown.side + (shown.left - 0.5, shown.top - 0.5)
            confidence = self.scene.confidence if seen else self.scene.nothing
            scales[row] = scale_of_chance(confidence, square.side)
        return Landmarks(points, scales, tuple(squares))


def watch(
    scene: Scene, tracker: Tracker, frames: Iterable[Mapping[str, Place]], fps: float = FPS
) -> list[dict[str, int]]:
    """Return for each frame which number each face of the scene got; a number without a face is "?"."""
    numbers = []
    for places in frames:
        scene.shows(places)
        faces = tracker(IMAGE, scene.frame / fps)
        assert len({face.number for face in faces}) == len(faces)
        numbers.append({who(scene, face): face.number for face in faces})
        assert len(numbers[-1]) == len(faces), "two numbers for one face"
    return numbers


def who(scene: Scene, face: TrackedFace) -> str:
    middle = face.points.mean(axis=0) + 0.5
    for name, square in scene.places.items():
        there = MEAN.mean(axis=0) * square.side + (square.left, square.top)
        if np.hypot(*(there - middle)) < 0.25 * square.side:
            return name
    return "?"


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def tracker(scene: Scene) -> Tracker:
    return Tracker(Seer(scene), scene.detect, smooth=False)


def line(start: Place, end: Place, count: int) -> list[Place]:
    return [tuple(place) for place in np.linspace(start, end, count).tolist()]


def test_the_detector_runs_at_first_and_every_so_often(scene: Scene, tracker: Tracker) -> None:
    numbers = watch(scene, tracker, [{"a": place} for place in line((60, 60), (260, 180), 76)])
    assert numbers == [{"a": 0}] * 76
    # what it finds first, it has to find again at once
    assert scene.searches == [0, 1, 26, 51]
    assert tracker.detections == 4


def test_without_faces_the_detector_looks_at_every_frame(scene: Scene, tracker: Tracker) -> None:
    assert watch(scene, tracker, [{}] * 5 + [{"a": (100, 100)}] * 5) == [{}] * 5 + [{"a": 0}] * 5
    assert scene.searches == [0, 1, 2, 3, 4, 5, 6]


def test_points_are_those_of_this_frame(scene: Scene, tracker: Tracker) -> None:
    for x in (100.0, 104.0, 109.5):
        scene.shows({"a": (x, 80, 50)})
        (face,) = tracker(IMAGE, scene.frame / FPS)
        np.testing.assert_allclose(face.points, MEAN * 50 + (x - 25.5, 54.5), atol=1e-4)
        np.testing.assert_allclose(face.confidence, 0.8)


def test_a_new_face_is_found_at_the_next_look(scene: Scene, tracker: Tracker) -> None:
    alone, both = {"a": (80, 100)}, {"a": (80, 100), "b": (220, 100)}
    numbers = watch(scene, tracker, [alone] * 5 + [both] * 25)
    assert numbers == [{"a": 0}] * 26 + [{"a": 0, "b": 1}] * 4
    assert scene.searches == [0, 1, 26, 27]


def test_a_lost_face_is_looked_for_at_once_and_known_again(scene: Scene, tracker: Tracker) -> None:
    here = {"a": (80, 100), "b": (220, 100)}
    gone = {"a": (80, 100)}
    numbers = watch(scene, tracker, [here] * 3 + [gone] * 10 + [here] * 5)
    assert numbers == [{"a": 0, "b": 1}] * 3 + [{"a": 0}] * 10 + [{"a": 0, "b": 1}] * 5
    assert scene.searches == [0, 1, *range(3, 15)]


def test_a_face_that_is_long_gone_is_a_new_one(scene: Scene, tracker: Tracker) -> None:
    here, gone = {"a": (80, 100), "b": (220, 100)}, {"a": (80, 100)}
    absent = int(REMEMBERED * FPS) + 1
    numbers = watch(scene, tracker, [here] * 3 + [gone] * absent + [here] * 26)
    assert numbers[-1] == {"a": 0, "b": 2}
    # from then on it was not looked for any more
    assert scene.searches == [0, 1, *range(3, 2 + absent), 26 + absent, 27 + absent]


def test_one_leaves_over_the_edge_and_the_other_stays(scene: Scene, tracker: Tracker) -> None:
    walk = line((200, 100), (360, 100), 40)
    numbers = watch(scene, tracker, [{"a": (80, 100), "b": place} for place in walk])
    # its middle leaves the picture at x = 320
    assert numbers[:29] == [{"a": 0, "b": 1}] * 29
    assert numbers[30:] == [{"a": 0}] * 10


def test_a_face_at_the_edge_is_followed(scene: Scene, tracker: Tracker) -> None:
    walk = line((160, 120), (2, 238), 60)
    assert watch(scene, tracker, [{"a": place} for place in [*walk, *reversed(walk)]]) == [{"a": 0}] * 120
    assert scene.searches == [0, 1, 26, 51, 76, 101]


@settings(max_examples=40)
@given(
    speed=st.floats(1.5, 4), front=st.sampled_from(["a", "b"]), gap=st.floats(-25, 25), still=st.booleans()
)
@example(speed=3.0, front="b", gap=0.0, still=False)
@example(speed=3.0, front="a", gap=0.0, still=False)
def test_two_faces_that_cross_keep_their_numbers(speed: float, front: str, gap: float, still: bool) -> None:
    scene = Scene()
    tracker = Tracker(Seer(scene), scene.detect, smooth=False)
    count = int(200 / speed)
    ways = {
        "a": [(60 + speed * step, 100) for step in range(count)],
        "b": [(160 if still else 260 - speed * step, 100 + gap) for step in range(count)],
    }
    names = sorted(ways, key=lambda name: name != front)
    numbers = watch(scene, tracker, [{name: ways[name][step] for name in names} for step in range(count)])
    assert numbers[0] == {name: number for number, name in enumerate(names)}
    assert all(set(seen.items()) <= set(numbers[0].items()) for seen in numbers)
    assert numbers[-1] == numbers[0]


def test_two_faces_close_together_do_not_swap(scene: Scene, tracker: Tracker) -> None:
    rng = np.random.default_rng(0)
    places = [{"a": (100 + x, 100), "b": (142 + y, 104)} for x, y in rng.uniform(-5, 5, (100, 2)).tolist()]
    assert watch(scene, tracker, places) == [{"a": 0, "b": 1}] * 100
    assert scene.searches == [0, 1, 26, 51, 76]


def test_a_confident_face_goes_on_where_the_detector_misses_it(scene: Scene, tracker: Tracker) -> None:
    frames = [{"a": (100, 100)}] * 30
    for unfound in ("", "a", "", "a"):
        scene.unfound = frozenset(unfound)
        # two looks of two that miss it, if any
        assert watch(scene, tracker, frames + frames[:20]) == [{"a": 0}] * 50
    assert scene.searches == [0, 1, *range(26, 200, 25)]


def test_what_the_detector_never_finds_ends(scene: Scene, tracker: Tracker) -> None:
    scene.nothing = scene.confidence  # the points are sure of whatever they see
    numbers = watch(scene, tracker, [{"a": (100, 100)}] * 30 + [{}] * 100)
    assert numbers == [{"a": 0}] * 30 + [{"?": 0}] * 71 + [{}] * 29
    assert scene.searches[:6] == [0, 1, 26, 51, 76, 101]


def test_a_face_without_confidence_ends_where_the_detector_misses_it(scene: Scene, tracker: Tracker) -> None:
    scene.confidence = scene.nothing = float("nan")
    numbers = watch(scene, tracker, [{"a": (100, 100)}] * 30 + [{}] * 30)
    # nothing but the detector's next look tells that it is gone
    assert numbers == [{"a": 0}] * 30 + [{"?": 0}] * 21 + [{}] * 9
    # and where it was missed only once, it goes on
    scene.unfound = frozenset("a")
    watch(scene, tracker, [{"a": (100, 100)}] * 3)
    scene.unfound = frozenset()
    assert watch(scene, tracker, [{"a": (100, 100)}] * 25) == [{"a": 0}] * 25


@pytest.mark.parametrize("best", [0.9, 0.4])
@pytest.mark.parametrize(("share", "goes_on"), [(0.7, True), (0.5, False)])
def test_confidence_counts_against_the_face_at_its_best(
    scene: Scene, tracker: Tracker, best: float, share: float, goes_on: bool
) -> None:
    scene.confidence = best
    watch(scene, tracker, [{"a": (100, 100)}] * 5)
    scene.confidence, scene.unfound = share * best, frozenset("a")
    assert watch(scene, tracker, [{"a": (100, 100)}] * 3) == [{"a": 0} if goes_on else {}] * 3
    # what the detector finds is a face, and goes on from there
    scene.unfound = frozenset()
    assert watch(scene, tracker, [{"a": (100, 100)}] * 5) == [{"a": 0}] * 5
    assert scene.searches == ([0, 1] if goes_on else [0, 1, 5, 6, 7, 8, 9])


def test_what_the_detector_finds_only_once_uses_up_no_number(scene: Scene) -> None:
    tracker = Tracker(Seer(scene), scene.detect, smooth=False, detect_every=1)
    for step in range(10):
        scene.ghosts = [Square(150 + 10 * step, 150, 50)] * (step % 2)
        ghost = {"?": 1} if step % 2 else {}
        assert watch(scene, tracker, [{"a": (100, 60)}]) == [{"a": 0} | ghost]
    scene.ghosts = []
    numbers = watch(scene, tracker, [{"a": (100, 60)}, {"a": (100, 60), "b": (250, 160)}])
    assert numbers == [{"a": 0}, {"a": 0, "b": 1}]


def test_a_ghost_near_where_a_face_was_lost_does_not_last(scene: Scene, tracker: Tracker) -> None:
    scene.nothing = scene.confidence
    both, gone = {"a": (100, 60), "b": (250, 160)}, {"a": (100, 60)}
    watch(scene, tracker, [both] * 5)
    scene.nothing = 0.02
    watch(scene, tracker, [gone])
    scene.ghosts, scene.nothing = [Square(200, 140, 60)], scene.confidence
    assert watch(scene, tracker, [gone]) == [{"a": 0, "?": 1}]
    scene.ghosts = []
    assert watch(scene, tracker, [gone, both]) == [{"a": 0}, {"a": 0, "b": 1}]


def test_a_cut_to_another_scene(scene: Scene, tracker: Tracker) -> None:
    first, second = {"a": (80, 80), "b": (200, 100)}, {"c": (140, 180, 100), "d": (280, 60, 30)}
    numbers = watch(scene, tracker, [first] * 5 + [second] * 5)
    assert numbers == [{"a": 0, "b": 1}] * 5 + [{"c": 2, "d": 3}] * 5
    assert scene.searches[:3] == [0, 1, 5]


def test_of_two_that_come_back_each_gets_its_own_number(scene: Scene, tracker: Tracker) -> None:
    both = {"a": (100, 100), "b": (160, 100)}
    watch(scene, tracker, [both] * 5 + [{}] * 5)
    # b, found first, is also near enough to where a was lost
    assert watch(scene, tracker, [{"b": (150, 100), "a": (92, 100)}] * 3) == [{"a": 0, "b": 1}] * 3


def test_of_two_on_one_face_the_one_that_was_there_stays(scene: Scene, tracker: Tracker) -> None:
    near = {"a": (100, 100), "b": (130, 100)}
    assert watch(scene, tracker, [near] * 5) == [{"a": 0, "b": 1}] * 5
    # a is hidden, and what looks for it sees b
    assert watch(scene, tracker, [{"b": (128, 100)}] * 3) == [{"b": 1}] * 3


def test_two_squares_of_one_face_are_one_face(scene: Scene, tracker: Tracker) -> None:
    scene.ghosts = [Square(75, 75, 55), Square(87, 87, 50), Square(60, 90, 60)]
    assert watch(scene, tracker, [{"a": (100, 100)}] * 30) == [{"a": 0}] * 30


def test_without_following_the_detector_looks_at_every_frame(scene: Scene) -> None:
    tracker = Tracker(Seer(scene), scene.detect, smooth=False, follow=False)
    walk = [{"a": (60 + 5 * step, 100), "b": (250 - 5 * step, 110)} for step in range(15)]
    assert watch(scene, tracker, walk) == [{"a": 0, "b": 1}] * 15
    assert scene.searches == list(range(15))
    # its squares are believed, whatever the points say
    scene.ghosts = [Square(20, 180, 50)]
    assert watch(scene, tracker, walk[-1:]) == [{"a": 0, "b": 1, "?": 2}]


def test_a_model_without_a_mean_face_does_not_follow(scene: Scene) -> None:
    old = Seer(scene, HEADER.model_copy(update={"mean_face": None}))
    tracker = Tracker(old, scene.detect)
    assert watch(scene, tracker, [{"a": (100, 100)}] * 5) == [{"a": 0}] * 5
    assert scene.searches == list(range(5))


@pytest.mark.parametrize("follow", [True, False])
def test_smoothing_steadies_each_face_by_its_number(scene: Scene, follow: bool) -> None:
    rng = np.random.default_rng(0)
    shaken = [
        {"a": (100 + x, 100 + y), "b": (220 + y, 100 - x)} for x, y in rng.normal(0, 0.5, (50, 2)).tolist()
    ]

    def shake(smooth: bool) -> float:
        own = Scene()
        tracker = Tracker(Seer(own), own.detect, smooth=smooth, follow=follow)
        points = []
        for places in shaken:
            own.shows(places)
            points.append([face.points for face in tracker(IMAGE, own.frame / FPS)])
        return float(np.diff(points, n=2, axis=0).std())

    assert shake(True) < 0.5 * shake(False)


def test_smoothing_knows_how_sure_each_point_is() -> None:
    class Unsure(Seer):
        """Is less sure of the mouth, which shakes."""

        def predict_squares(
            self, image: NDArray[np.uint8], squares: Sequence[Square], flip: bool = False, refine: int = 0
        ) -> Landmarks:
            found = super().predict_squares(image, squares, flip, refine)
            found.points[:, 2] += 3 * (self.scene.frame % 2)
            found.scales[:, 2] *= 4
            return found

    def follow(smooth: bool) -> list[TrackedFace]:
        own = Scene()
        tracker = Tracker(Unsure(own), own.detect, smooth=smooth, follow=False)
        faces = []
        for _ in range(10):
            own.shows({"a": (100, 100)})
            faces += tracker(IMAGE, own.frame / FPS)
        return faces

    found, steady = follow(smooth=False), SteadyFace()
    wanted = [steady(face.points, index / FPS, face.confidence) for index, face in enumerate(found)]
    np.testing.assert_array_equal([face.points for face in follow(smooth=True)], wanted)
    assert found[0].confidence[2] < 0.5 * found[0].confidence[0]


class Whirl(Predictor):
    """Finds a face that turns by 6° a frame, and remembers the squares in which it was asked for it."""

    def __init__(self) -> None:
        super().__init__(HEADER, lambda crops: ())
        self.angle = 0.0
        self.asked: list[Square] = []

    def predict_squares(
        self, image: NDArray[np.uint8], squares: Sequence[Square], flip: bool = False, refine: int = 0
    ) -> Landmarks:
        self.asked += squares
        points = turn_points(MEAN, self.angle, (0.5, 0.5)) * 60 + (100, 80) - 0.5
        many = np.repeat(points[None].astype(np.float32), len(squares), 0)
        return Landmarks(many, np.full((len(squares), 3), 0.5, np.float32), tuple(squares))


def test_a_square_turns_with_its_face() -> None:
    whirl = Whirl()
    tracker = Tracker(whirl, lambda image: Boxes(np.array([[100.0, 80, 160, 140]]), np.ones(1)), smooth=False)
    for frame in range(25):
        whirl.angle, last = np.deg2rad(6 * frame), whirl.angle
        whirl.asked.clear()
        faces = tracker(IMAGE, frame / FPS)
        assert [face.number for face in faces] == [0]
        if frame:
            assert whirl.asked[0].turn == pytest.approx(max(0.0, last - LEAN), abs=1e-4)


def test_apart() -> None:
    one = Square(10, 20, 40)
    assert apart(one, one) == 0
    assert apart(one, Square(10 + 12, 20 + 16, 40)) == pytest.approx(0.5)
    # the same middle, e times larger
    assert apart(Square(-50, -50, 100), Square(-50 * np.e, -50 * np.e, 100 * np.e)) == pytest.approx(1)
    assert apart(one, Square(10, 20, 40, 1.0)) == apart(one, Square(10, 20, 40))
    assert apart(one, Square(0, 0, 55)) == apart(Square(0, 0, 55), one)
