"""Measure how well the visibility of landmarks is predicted, and whether predicting it costs accuracy.

    python benchmarks/visibility.py

Trains on synthetic faces, half of which an object partly covers, and evaluates other ones. The smoothing of
videos is measured with the same models on faces that move while a block passes over them. Writes
visibility.json and visibility.md after each run; results that are in visibility.json are not computed again.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import ResultFiles, Results, run_missing
from numpy.typing import NDArray

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.annotations import VISIBLE
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.evaluation.calibration import calibrate_visibility
from landmarks_fastai.evaluation.visibility import evaluate_visibility, score_visibility
from landmarks_fastai.geometry import Crop, extract_crop
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.smoothing import LandmarkSmoother
from landmarks_fastai.training.run import train_run
from landmarks_fastai.utils.text import format_count

SEEDS = (0, 1, 2)
COUNT, EVALUATED, OCCLUSION = 800, 400, 0.5
EPOCHS, SIZE = 8, 48
WITH, WITHOUT = "predicted", "not predicted (`model.visibility=false`)"
HEADS = ("simcc", "soft-argmax", "lin-relu-lin", "linear")

CLIPS, FRAMES, FPS, NOISE = 12, 60, 25, 6.0
"""Number of moving faces, frames of each, frame rate and standard deviation of the noise in gray levels."""

FRAME = 96
"""Side of the frames, pixels."""

FILTERS = ("unfiltered", "smoothed by confidence", "smoothed by confidence and visibility")

Floats = NDArray[np.float64]


def measure(head: str, visibility: bool, seed: int) -> dict[str, Any]:
    """Train one model, and return its scores on other faces, and those of smoothing if it is the first."""
    settings = [
        "data.source=synthetic",
        f"data.count={COUNT}",
        f"data.occlusion={OCCLUSION}",
        f"model.head={head}",
        f"model.input_size={SIZE}",
        f"model.visibility={str(visibility).lower()}",
        f"training.epochs={EPOCHS}",
        "training.device=cpu",
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train_run(load_config("default", {"seed": seed}, settings), run, cache=Path(folder) / "cache")
        predictor = Predictor.open(run, "cpu")
    faces = draw_synthetic_faces(EVALUATED, seed=1000 + seed, occlusion=OCCLUSION)
    predicted = predictor.predict_batch(faces.images)
    report = evaluate_visibility(predicted, faces)
    assert report is not None
    result: dict[str, Any] = {
        "visible_px": report.visible.mean_distance,
        "occluded_px": report.occluded.mean_distance,
    }
    if report.prediction is not None:
        scores = report.prediction.occluded
        result |= {
            # if no landmark is predicted to be occluded, the precision is undefined
            "precision": scores.precision if math.isfinite(scores.precision) else None,
            "recall": scores.recall,
            "average_precision": scores.average_precision,
            "average_precision_visible": report.prediction.visible.average_precision,
            "occluded_fraction": 1 - report.prediction.observed,
            "ece": report.prediction.ece,
            "ece_uncalibrated": _uncalibrated_ece(
                predictor, predicted.visibility, faces.visibility == VISIBLE
            ),
        }
        if head == HEADS[0]:
            result["smoothing"] = measure_smoothing(predictor, seed)
    return result


def _uncalibrated_ece(predictor: Predictor, visibility: NDArray[np.float32], visible: Any) -> float:
    slope, intercept = predictor.header.visibility_calibration
    raw = calibrate_visibility(visibility, (1 / slope, -intercept / slope))
    return score_visibility(raw.ravel(), visible.ravel()).ece


# --- smoothing -----------------------------------------------------------------------------------


def measure_smoothing(predictor: Predictor, seed: int) -> dict[str, dict[str, float]]:
    """Return jitter and error of the visible and the occluded landmarks of moving faces, by filter."""
    faces = draw_synthetic_faces(CLIPS, 5000 + seed, size=3 * FRAME)
    clips = [_predict_clip(predictor, faces, row, seed) for row in range(CLIPS)]
    predicted, true, visible = (np.stack(parts) for parts in zip(*clips, strict=True))
    results = {}
    for name in FILTERS:
        errors = np.stack([_smooth(name, clip) for clip in predicted]) - true
        jitter = np.diff(errors, n=2, axis=1)
        scores = {}
        for part, mask in (("occluded", ~visible), ("visible", visible)):
            throughout = mask[:, 2:] & mask[:, 1:-1] & mask[:, :-2]  # in all three frames of a difference
            scores[f"{part}_jitter"] = float(np.sqrt((jitter[throughout] ** 2).mean()))
            scores[f"{part}_error"] = float(np.sqrt((errors[mask] ** 2).mean()))
        results[name] = scores
    return results


def _predict_clip(
    predictor: Predictor, faces: LandmarkDataset, row: int, seed: int
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Move one of the faces, which are three times as large as the frames, and a block in front of it.

    Returns
    -------
    tuple of NDArray
        (F, K, 4) predicted x, y, confidence and visibility, (F, K, 2) true positions, (F, K) visible.
    """
    rng = np.random.default_rng([seed, row])
    points, times = faces.points[row].astype(np.float64), np.arange(FRAMES) / FPS
    path = 9 * np.stack([np.sin(2 * np.pi * 0.4 * times), np.cos(2 * np.pi * 0.3 * times)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    width, height, color = rng.uniform(60, 110), 130, int(rng.uniform(20, 230))
    top = round(rng.uniform(low[1] - 20, points[:, 1].mean()))
    centers = np.linspace(low[0] - width / 2, high[0] + width / 2, FRAMES)
    frames, true, visible = [], [], []
    for shift, center in zip(path, centers.tolist(), strict=True):
        image = faces.images[row].copy()
        left, right = (max(round(center + side * width / 2), 0) for side in (-1, 1))
        image[top : top + height, left:right] = color
        frame = extract_crop(image, Crop(*shift.tolist(), 3 * FRAME), FRAME, 1).astype(np.float64)
        frames.append((frame + rng.normal(0, NOISE, frame.shape)).clip(0, 255).astype(np.uint8))
        true.append((points + 0.5 - shift) / 3 - 0.5)
        x, y = np.rint(points).T
        visible.append((x < left) | (x >= right) | (y < top) | (y >= top + height))
    landmarks = predictor.predict_batch(np.stack(frames))
    values = [landmarks.confidence[..., None], landmarks.visibility[..., None]]
    predicted = np.concatenate([landmarks.points, *values], axis=2).astype(np.float64)
    return predicted, np.array(true), np.array(visible)


def _smooth(name: str, predicted: Floats) -> Floats:
    """Filter the frames of a clip."""
    if name == FILTERS[0]:
        return predicted[..., :2]
    smoother: Callable[..., NDArray[np.float32]] = LandmarkSmoother()
    visibility = predicted[..., 3] if name == FILTERS[2] else [None] * len(predicted)
    frames = [
        smoother(frame[:, :2], index / FPS, frame[:, 2], probability)
        for index, (frame, probability) in enumerate(zip(predicted, visibility, strict=True))
    ]
    return np.array(frames, np.float64)


# --- page ----------------------------------------------------------------------------------------


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    runs = {name: list(results.get(name, {}).values()) for name in (WITH, WITHOUT)}
    accuracy = markdown_table(
        ["visibility", "visible landmarks, px", "occluded landmarks, px"],
        [
            [name, *(mean_and_std([run[part] for run in values]) for part in ("visible_px", "occluded_px"))]
            for name, values in runs.items()
            if values
        ],
    )
    heads = {"simcc": runs[WITH]} | {head: [run] for head, run in results.get("heads", {}).items()}
    columns = ("average_precision", "precision", "recall", "ece_uncalibrated", "ece")
    detection = markdown_table(
        ["head", "average precision", "precision", "recall", "calibration error, raw", "calibrated"],
        [
            [f"{head} ({len(values)} seeds)" if len(values) > 1 else head]
            + [_mean_and_std([run[column] for run in values]) for column in columns]
            for head, values in heads.items()
            if values
        ],
    )
    fraction = np.mean([run["occluded_fraction"] for run in runs[WITH]])
    smoothing = [run["smoothing"] for run in runs[WITH]]
    parts = ("occluded_jitter", "occluded_error", "visible_jitter", "visible_error")
    filters = markdown_table(
        ["", *(part.replace("_", ", ") + ", px" for part in parts)],
        [
            [name, *(mean_and_std([run[name][part] for run in smoothing]) for part in parts)]
            for name in FILTERS
        ],
    )
    return markdown_page(
        "Visibility",
        f"`python benchmarks/visibility.py`: {COUNT} synthetic faces for training and validation, and"
        f" {EVALUATED} other ones for evaluation; an object (a bar, a hand, a mask or sunglasses) is in front"
        f" of {OCCLUSION:.0%} of them and covers {fraction:.1%} of all landmarks. The default config at"
        f" {SIZE} px for {EPOCHS} epochs; {setting['machine']}. Mean ± standard deviation over"
        f" {format_count(len(runs[WITH]), 'seed')} (of faces and training) where more than one was run.",
        "## Accuracy of the positions",
        "Mean distance to the label in px of the 96 px images. Occluded landmarks train the positions in both"
        " cases.",
        accuracy,
        "## Predicted visibility",
        "Finding the occluded landmarks, at a probability of 0.5. A random order has an average precision of"
        f" {fraction:.3f}. The calibration error is measured before and after Platt scaling on the validation"
        " rows.",
        detection,
        "## Smoothing",
        f"{CLIPS} faces that move slowly along a path while a block passes over them; {FRAMES} frames each at"
        f" {FPS} frames per second, with new noise in every frame. Jitter is the root mean square of the"
        " second difference over time, error the RMS error, of each coordinate in px of 96 px frames.",
        filters,
    )


def _mean_and_std(values: list[float | None]) -> str:
    """Return mean and standard deviation of the defined values."""
    known = [value for value in values if value is not None]
    return mean_and_std(known) if known else "–"


FILES = ResultFiles("visibility", render)


def main() -> None:
    """Run what is missing, and write the page."""
    _, files = BenchmarkParser(__doc__, FILES).parse()
    setting = {"machine": describe_machine()}
    runs = [
        ((name, str(seed)), partial(measure, HEADS[0], name == WITH, seed))
        for seed in SEEDS
        for name in (WITH, WITHOUT)
    ]
    runs += [(("heads", head), partial(measure, head, True, SEEDS[0])) for head in HEADS[1:]]
    run_missing(files, setting, runs)


if __name__ == "__main__":
    main()
