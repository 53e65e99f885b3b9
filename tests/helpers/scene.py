"""A scene for tests of the tracker: its detector and predictor know which faces each frame shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from helpers.models import make_header
from landmarks_fastai.evaluation.calibration import confidence_from_scale, scale_from_confidence
from landmarks_fastai.geometry import Crop, crop_distance
from landmarks_fastai.inference.detectors.base import Detections
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.schemas import schema_from_names

FPS = 25
IMAGE = np.zeros((240, 320, 3), np.uint8)
MEAN_SHAPE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.75]])
HEADER = make_header(
    32, schema_from_names("three", ["left_eye", "right_eye", "mouth"]), mean_shape=MEAN_SHAPE.tolist()
)
DEFAULT_SIDE = 60.0

Position = tuple[float, ...]
"""Center x, y of a face's crop, and its side if that is not `DEFAULT_SIDE`."""


@dataclass
class Scene:
    """The content of a frame.

    Parameters
    ----------
    faces
        Crops of the visible faces by name, those in front first.
    confidence
        Confidence of the landmarks of a face.
    background_confidence
        Confidence of the landmarks where there is no face.
    undetected
        Faces that are visible but not found by the detector.
    false_detections
        Crops that the detector returns in addition to the faces.
    detection_frames
        Frames in which the detector has run.
    frame
        Index of the frame.
    """

    faces: dict[str, Crop] = field(default_factory=dict)
    confidence: float = 0.8
    background_confidence: float = 0.02
    undetected: frozenset[str] = frozenset()
    false_detections: list[Crop] = field(default_factory=list)
    detection_frames: list[int] = field(default_factory=list)
    frame: int = -1

    def advance(self, positions: Mapping[str, Position]) -> None:
        """Show the next frame with faces at the given positions; a face behind another one is hidden."""
        self.frame += 1
        self.faces = {}
        for name, (x, y, *rest) in positions.items():
            side = rest[0] if rest else DEFAULT_SIDE
            crop = Crop(x - side / 2, y - side / 2, side)
            if all(crop_distance(crop, front) > 0.4 for front in self.faces.values()):
                self.faces[name] = crop

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Return the visible faces, as a detector."""
        self.detection_frames.append(self.frame)
        crops = [crop for name, crop in self.faces.items() if name not in self.undetected]
        crops += self.false_detections
        return Detections(np.array([crop.box for crop in crops]).reshape(-1, 4), np.ones(len(crops)))

    def name_of(self, face: Landmarks) -> str:
        """Return the name of the face at the landmarks of one face; "?" if there is none."""
        center = face.points[0].mean(axis=0) + 0.5
        for name, crop in self.faces.items():
            expected = MEAN_SHAPE.mean(axis=0) * crop.side + (crop.left, crop.top)
            if np.hypot(*(expected - center)) < 0.25 * crop.side:
                return name
        return "?"


class ScenePredictor(Predictor):
    """Predicts the landmarks of the face nearest to a crop if it is visible there, else the mean shape."""

    def __init__(self, scene: Scene, header: ModelHeader = HEADER) -> None:
        super().__init__(header, lambda crops: ())
        self.scene = scene

    def predict_crops(
        self, image: NDArray[np.uint8], crops: Sequence[Crop], flip: bool = False, refine: int = 0
    ) -> Landmarks:
        points, scales = np.empty((len(crops), 3, 2), np.float32), np.empty((len(crops), 3), np.float32)
        for row, crop in enumerate(crops):
            faces = self.scene.faces.values()
            nearest = min(faces, key=lambda face: crop_distance(face, crop), default=None)
            visible = nearest is not None and crop_distance(nearest, crop) < 0.5
            face = nearest if nearest is not None and visible else crop
            points[row] = MEAN_SHAPE * face.side + (face.left - 0.5, face.top - 0.5)
            confidence = self.scene.confidence if visible else self.scene.background_confidence
            scales[row] = scale_from_confidence(confidence, crop.side)
        return landmarks_in_crops(points, scales, crops)


def landmarks_in_crops(
    points: NDArray[np.float32], scales: NDArray[np.float32], crops: Sequence[Crop]
) -> Landmarks:
    """Return landmarks with the confidences that correspond to their scales."""
    sides = np.array([crop.side for crop in crops])
    confidence = confidence_from_scale(scales, sides[:, None]).astype(np.float32)
    return Landmarks(points, HEADER.landmark_schema, confidence, scales, tuple(crops))


def track(
    scene: Scene, tracker: Tracker, frames: Iterable[Mapping[str, Position]], fps: float = FPS
) -> list[dict[str, int]]:
    """Show frames to a tracker, and return the track ID of each face in each frame, by `Scene.name_of`."""
    results = []
    for positions in frames:
        scene.advance(positions)
        faces = tracker(IMAGE, scene.frame / fps)
        assert faces.track_ids is not None or not len(faces)
        track_ids = faces.track_ids or ()
        assert len(set(track_ids)) == len(faces), "one track ID for two faces"
        results.append(
            {scene.name_of(face): track_id for face, track_id in zip(faces, track_ids, strict=True)}
        )
        assert len(results[-1]) == len(faces), "two track IDs for one face"
    return results
