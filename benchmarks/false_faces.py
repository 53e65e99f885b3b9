"""Measure what is found in pictures without a face, and the confidence of faces that are not located.

    python benchmarks/false_faces.py --data facial-keypoints-detection.zip --frames faces68

200 pictures without a face (_common/faceless.py; they need scikit-image, scikit-learn and the extra web), and
video frames whose landmarks are known (_common/frames68.py), of identities that the models were not trained
on: unchanged, rotated, cut off by the border, and tiny. Writes false_faces.json and false_faces.md after each
measurement; results that are in false_faces.json are not measured again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.data import load_with_groups
from _common.faceless import FacelessPicture, faceless_pictures
from _common.frames68 import Frame68, match_frames, select_rows
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import Measurement, ResultFiles, Results, run_missing
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.evaluation.calibration import CONFIDENCE_RADIUS, confidence_from_scale
from landmarks_fastai.evaluation.metrics import inter_ocular_distance, nme, rmse
from landmarks_fastai.geometry import center_crop, rotate_points
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import OUTSIDE_CONFIDENCE, Predictor
from landmarks_fastai.inference.rejection import MIN_CONFIDENCE_RATIO, typical_confidence
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.images import read_image

Floats = NDArray[np.float64]
Scene = tuple[NDArray[np.uint8], Floats]
"""An image, and the (15, 2) labels of its face in pixels of the image."""

MODELS = ("resnet18", "resnet34")
DETECTORS = ("centerface", "dlib", "yunet")
RATIOS = (0.0, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
"""Thresholds of the confidence, relative to the typical confidence of the model."""

MAX_FRAMES = 100
MAX_RIGHT, MIN_WRONG = 0.10, 0.15
"""A face is right up to the first NME, and wrong above the second; between them, it is inaccurate."""

MEASURES = ("score", "confidence")
"""What may tell right faces from wrong ones: the score of the detector, and the confidence."""

CANVAS = 640, 360


# --- scenes --------------------------------------------------------------------------------------


def unchanged(frame: Frame68) -> Scene:
    """Return the image of a frame, and the labels."""
    return read_image(frame.image), frame.points


def rotated(frame: Frame68, degrees: float) -> Scene:
    """Rotate the image about the center of the face, clockwise."""
    center = frame.crop.center
    image = Image.fromarray(read_image(frame.image)).rotate(
        -degrees, Image.Resampling.BILINEAR, center=center
    )
    return np.asarray(image), rotate_points(frame.points + 0.5, degrees, center) - 0.5


def cut(frame: Frame68, edge: str, fraction: float) -> Scene:
    """Cut off the image, so that a fraction of the face's crop is beyond its left, top or bottom edge."""
    image, (x0, y0, _, y1) = read_image(frame.image), frame.crop.box
    depth = fraction * frame.crop.side
    if edge == "bottom":
        return image[: round(y1 - depth)], frame.points
    left = max(0, round(x0 + depth)) if edge == "left" else 0
    top = max(0, round(y0 + depth)) if edge == "top" else 0
    return image[top:, left:], frame.points - (left, top)


def tiny(frame: Frame68, side: int) -> Scene:
    """Paste the frame into a larger image, so small that the side of the face's crop is `side` pixels."""
    image = read_image(frame.image)
    size = np.maximum(1, np.rint(np.array(image.shape[1::-1]) * (side / frame.crop.side)).astype(int))
    offset = (np.array(CANVAS) - size) // 2
    canvas = Image.new("RGB", CANVAS, tuple(int(value) for value in image.mean(axis=(0, 1))))
    small = Image.fromarray(image).resize((int(size[0]), int(size[1])), Image.Resampling.LANCZOS)
    canvas.paste(small, (int(offset[0]), int(offset[1])))
    return np.asarray(canvas), (frame.points + 0.5) * (size / image.shape[1::-1]) - 0.5 + offset


SCENES: dict[str, Callable[[Frame68], Scene]] = {
    "unchanged": unchanged,
    "rotated by 45°": partial(rotated, degrees=45),
    "rotated by 90°": partial(rotated, degrees=90),
    "upside down": partial(rotated, degrees=180),
    **{
        f"{fraction:.0%} cut off, {edge}": partial(cut, edge=edge, fraction=fraction)
        for edge in ("left", "top", "bottom")
        for fraction in (0.3, 0.5)
    },
    **{f"tiny, {side} px": partial(tiny, side=side) for side in (32, 24, 16, 12)},
}


# --- measurements --------------------------------------------------------------------------------


@cache
def pictures() -> Sequence[FacelessPicture]:
    """Return the pictures without a face."""
    return tuple(faceless_pictures())


def predict(predictor: Predictor, detector: Detector, image: NDArray[np.uint8]) -> tuple[Floats, Landmarks]:
    """Return the scores of the detected faces, and their landmarks."""
    found = detector(image)
    return found.scores, predictor.predict_crops(image, found.crops, refine=predictor.default_refine)


def measure_pictures(predictor: Predictor, detector: Detector) -> dict[str, Any]:
    """Return the false faces in the pictures without a face, by kind of picture."""
    kinds: dict[str, Any] = {}
    for picture in pictures():
        kind = kinds.setdefault(picture.kind, {"pictures": 0, "scores": [], "confidences": []})
        scores, landmarks = predict(predictor, detector, picture.image)
        kind["pictures"] += 1
        kind["scores"] += np.round(scores, 3).tolist()
        kind["confidences"] += [round(value, 3) for value in landmarks.face_confidence.tolist()]
    return kinds


def measure_center_crops(predictor: Predictor) -> dict[str, float]:
    """Return percentiles of the confidence in the center crops of the pictures without a face."""
    values = []
    for picture in pictures():
        crop = center_crop(picture.image.shape[1], picture.image.shape[0])
        values += predictor.predict_crops(picture.image, [crop], refine=1).face_confidence.tolist()
    return {f"{rank}": round(float(np.percentile(values, rank)), 3) for rank in (50, 95, 99, 100)}


@dataclass(frozen=True)
class Detected:
    """A detected face: the detector's score, the confidence, and the NME (inter-ocular distance)."""

    score: float
    confidence: float
    error: float

    @property
    def quality(self) -> str:
        """right, inaccurate or wrong."""
        return "right" if self.error <= MAX_RIGHT else "wrong" if self.error > MIN_WRONG else "inaccurate"


def measure_scene(
    predictor: Predictor, detector: Detector, scene: Callable[[Frame68], Scene], frames: Sequence[Frame68]
) -> dict[str, Any]:
    """Return how many faces of a scene are right, inaccurate and wrong, by threshold of the confidence.

    All detections count, because those elsewhere in the image are wrong.
    """
    faces: list[Detected] = []
    for frame in frames:
        image, labels = scene(frame)
        scores, found = predict(predictor, detector, image)
        for score, face in zip(scores.tolist(), found, strict=True):
            errors = nme(face.points, labels[None], inter_ocular_distance(labels[None], KAGGLE15))
            faces.append(Detected(score, float(face.face_confidence[0]), float(errors[0])))
    typical = typical_confidence(predictor.header) or 0.0
    right, wrong = ([face for face in faces if face.quality == quality] for quality in ("right", "wrong"))
    return {
        "frames": len(frames),
        "right": {name: _percentile([getattr(one, name) for one in right], 5) for name in MEASURES},
        "wrong": {name: _percentile([getattr(one, name) for one in wrong], 95) for name in MEASURES},
        "kept": {
            str(ratio): Counter(face.quality for face in faces if face.confidence >= ratio * typical)
            for ratio in RATIOS
        },
    }


def _percentile(values: Sequence[float], rank: float) -> float | None:
    return round(float(np.percentile(values, rank)), 3) if values else None


def measure_outside(predictor: Predictor, detector: Detector, frames: Sequence[Frame68]) -> dict[str, float]:
    """Return confidence and accuracy of the landmarks that are predicted outside an image that is cut off."""
    confidences, accurate = [], []
    for name, scene in SCENES.items():
        for frame in frames if "cut off" in name else ():
            image, labels = scene(frame)
            for face in predict(predictor, detector, image)[1]:
                assert face.crops is not None
                outside = ((face.points < -0.5) | (face.points > np.array(image.shape[1::-1]) - 0.5)).any(-1)
                errors, side = np.abs(face.points - labels).max(axis=-1), face.crops[0].side
                confidences += confidence_from_scale(face.scales, side)[outside].tolist()
                accurate += (errors <= CONFIDENCE_RADIUS * side)[outside].tolist()
    return {
        "landmarks": len(accurate),
        "confidence": round(float(np.mean(confidences)), 3),
        "accurate": round(float(np.mean(accurate)), 3),
    }


# --- page ----------------------------------------------------------------------------------------

CONCLUSIONS = (
    "**The confidence of the landmarks tells false faces from true ones, the score of the detector does"
    " not.** A face upside down that CenterFace finds has either right landmarks and a high confidence, or"
    " wrong ones and a low confidence; their scores are alike. Animals that a detector takes for people have"
    " a low confidence.",
    f"**Detected faces with a mean confidence below {MIN_CONFIDENCE_RATIO:g} times the typical confidence of"
    " the model are discarded by default** (`--min-confidence`). The typical confidence is that of a landmark"
    " whose expected error is the mean error on the validation faces, because confidence means accuracy"
    " within a fixed distance, which a model trained on few faces reaches on none. The default excludes all"
    " false faces of these pictures, and no face of the unchanged frames. What it does not exclude: faces of"
    " which about a third is cut off, whose landmarks near the border are predicted inside the image instead"
    " of outside; and a few of less than 24 px.",
    f"**Landmarks outside the image have {OUTSIDE_CONFIDENCE:g} times the confidence** that follows from"
    " their scale, because the network sees repeated edge pixels there and does not know it.",
)


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    models = [name for name in MODELS if name in results]
    model = models[0]
    return markdown_page(
        "Pictures without a face, and faces that cannot be located",
        f"`python benchmarks/false_faces.py`: {setting['pictures']} pictures without a face, from"
        f" {setting['photos']} photos that come with Python packages, in up to 6 variants (part, size,"
        f" mirrored, colors), {setting['patches']} patches of photos, and {setting['drawn']} drawn pictures;"
        f" and {setting['frames']} video frames of identities that the models were not trained on;"
        f" {setting['machine']}. Confidence: the mean over the landmarks of a face, from 0 to 1.",
        *CONCLUSIONS,
        *([setting["missing"]] if setting["missing"] else []),
        "## Pictures without a face",
        "False faces of each detector: their number, and in parentheses the highest score of the detector and"
        f" the highest confidence of {model}.",
        _picture_table(results[model]["pictures"]),
        "Without a detector (`--detector none`), the center crops of the same pictures. Confidence:",
        _crop_table(results),
        "## Faces that are difficult to locate",
        f"Right: NME (inter-ocular distance) of at most {MAX_RIGHT:.0%}; wrong: more than {MIN_WRONG:.0%}, or"
        f" somewhere else in the image; {model}. *Lowest* and *highest*: the 5th and the 95th percentile. Cut"
        " off: the fraction of the face's crop that is beyond the edge of the image. Tiny: the side"
        f" of the face's crop in an image of {CANVAS[0]} × {CANVAS[1]} px. In parentheses, what remains with"
        " the default minimum confidence.",
        *(f"{name}:\n\n{_scene_table(scenes)}" for name, scenes in results[model]["scenes"].items()),
        "## Thresholds",
        "Recall: right faces that are kept, of those found without a threshold. Precision: faces that are not"
        " wrong, of all that are kept in the pictures without a face and in all scenes. The default is bold.",
        *(
            f"{name}, {detector}:\n\n{_threshold_table(results[name], detector)}"
            for name in models
            for detector in results[name]["scenes"]
        ),
        "## Landmarks outside the image",
        "In the frames that are cut off. Accurate: within 2.5 % of the crop's side along x and along y.",
        markdown_table(
            ["model", "landmarks", "mean confidence from the scale", "accurate"],
            [
                [name, f"{row['landmarks']:,}", f"{row['confidence']:.2f}", f"{row['accurate']:.2f}"]
                for name in models
                for row in [results[name]["outside"]]
            ],
        ),
    )


def _picture_table(detectors: Mapping[str, Any]) -> str:
    kinds = list(next(iter(detectors.values())))
    rows = []
    for kind in kinds:
        cells = []
        for found in detectors.values():
            scores, confidences = found[kind]["scores"], found[kind]["confidences"]
            worst = f" ({max(scores):.2f}, {max(confidences):.2f})" if scores else ""
            cells.append(f"{len(scores)}{worst}")
        rows.append([kind, str(next(iter(detectors.values()))[kind]["pictures"]), *cells])
    return markdown_table(["kind", "pictures", *detectors], rows)


def _crop_table(results: Results) -> str:
    crops = {name: results[name]["center crops"] for name in MODELS if name in results}
    ranks = list(crops[MODELS[0]])
    header = ["model", *("highest" if rank == "100" else f"percentile {rank}" for rank in ranks)]
    return markdown_table(
        header, [[name, *(f"{row[rank]:.2f}" for rank in ranks)] for name, row in crops.items()]
    )


def _scene_table(scenes: Mapping[str, Any]) -> str:
    rows = []
    for name, scene in scenes.items():
        before, after = scene["kept"]["0.0"], scene["kept"][str(MIN_CONFIDENCE_RATIO)]
        counts = [
            f"{before.get(quality, 0)} ({after.get(quality, 0)})"
            for quality in ("right", "inaccurate", "wrong")
        ]
        values = [scene[quality][measure] for measure in MEASURES for quality in ("right", "wrong")]
        rows.append([name, str(scene["frames"]), *counts, *map(_confidence, values)])
    columns = [f"{end} {measure}" for measure in MEASURES for end in ("right: lowest", "wrong: highest")]
    return markdown_table(["scene", "faces", "right", "inaccurate", "wrong", *columns], rows)


def _confidence(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _threshold_table(model: Results, detector: str) -> str:
    scenes, typical = model["scenes"][detector], model["typical confidence"]
    false = [value for kind in model["pictures"][detector].values() for value in kind["confidences"]]
    all_right = _total(scenes, 0.0, "right")
    rows = []
    for ratio in RATIOS:
        kept_false = sum(value >= ratio * typical for value in false)
        right, inaccurate, wrong = (
            _total(scenes, ratio, quality) for quality in ("right", "inaccurate", "wrong")
        )
        unchanged_kept = scenes["unchanged"]["kept"][str(ratio)].get("right", 0)
        unchanged_all = scenes["unchanged"]["kept"]["0.0"].get("right", 0)
        cells = [
            f"{ratio * typical:.2f} ({ratio:g})",
            str(kept_false),
            str(wrong),
            f"{unchanged_kept / unchanged_all:.1%}",
            f"{right / all_right:.1%}",
            f"{(right + inaccurate) / (right + inaccurate + wrong + kept_false):.1%}",
        ]
        rows.append([f"**{cell}**" for cell in cells] if ratio == MIN_CONFIDENCE_RATIO else cells)
    header = [
        "minimum confidence (relative)",
        "false faces",
        "wrong faces",
        "recall, unchanged",
        "recall, all scenes",
        "precision",
    ]
    return markdown_table(header, rows)


def _total(scenes: Mapping[str, Any], ratio: float, quality: str) -> int:
    return sum(scene["kept"][str(ratio)].get(quality, 0) for scene in scenes.values())


FILES = ResultFiles("false_faces", render)


def validation_frames(predictor: Predictor, dataset: LandmarkDataset, folder: Any) -> list[Frame68]:
    """Return frames of the validation rows of a released model, which are reconstructed from its config.

    Raises
    ------
    SystemExit
        If the error on these rows is not that in the header of the model.
    """
    config = predictor.header.config
    split = split_dataset(dataset, config["data"]["split"], config["data"]["valid_fraction"], config["seed"])
    valid = dataset.subset(split.valid)
    error = rmse(predictor.predict_batch(valid.images).points, valid.points)
    if abs(error - predictor.header.metrics["rmse"]) > 1e-4:
        raise SystemExit("the validation rows of the model cannot be reconstructed from this data")
    frames = select_rows(match_frames(folder, dataset), split.valid)
    return frames[:: -(-len(frames) // MAX_FRAMES)]


def open_detectors() -> tuple[dict[str, Detector], str]:
    """Open the detectors; return them, and a sentence about those that cannot be opened."""
    opened, missing = {}, ""
    for name in DETECTORS:
        try:
            opened[name] = open_detector(name)
        except LandmarksError:
            missing = f"{name} is not in the tables: its weights could not be downloaded here."
    return opened, missing


def measurements(
    predictors: Mapping[str, Predictor], detectors: Mapping[str, Detector], frames: Sequence[Frame68]
) -> Iterator[Measurement]:
    """Yield the measurements of each model."""
    for name, predictor in predictors.items():
        yield (name,), partial(measure_model, predictor, detectors, frames)


def measure_model(
    predictor: Predictor, detectors: Mapping[str, Detector], frames: Sequence[Frame68]
) -> dict[str, Any]:
    """Return all measurements of a model."""
    return {
        "typical confidence": typical_confidence(predictor.header),
        "pictures": {name: measure_pictures(predictor, one) for name, one in detectors.items()},
        "center crops": measure_center_crops(predictor),
        "scenes": {
            name: {scene: measure_scene(predictor, one, change, frames) for scene, change in SCENES.items()}
            for name, one in detectors.items()
        },
        "outside": measure_outside(predictor, detectors["centerface"], frames),
    }


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_frames()
    options, files = parser.parse()
    dataset, _ = load_with_groups(options.data)
    predictors = {name: Predictor.open(name, "cpu") for name in MODELS}
    frames = validation_frames(predictors[MODELS[0]], dataset, options.frames)
    detectors, missing = open_detectors()
    setting = {
        "pictures": len(pictures()),
        "photos": len({one.source for one in pictures() if not one.drawn and one.kind != "patches"}),
        "patches": sum(one.kind == "patches" for one in pictures()),
        "drawn": sum(one.drawn for one in pictures()),
        "frames": len(frames),
        "machine": describe_machine(),
        "missing": missing,
    }
    run_missing(files, setting, measurements(predictors, detectors, frames))


if __name__ == "__main__":
    main()
