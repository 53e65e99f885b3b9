"""Measure how much temporal smoothing reduces the jitter of landmarks, and how far they lag.

    python benchmarks/smoothing.py --model runs/default/model.onnx [--tracks tracks.npz]

A synthetic face moves along known paths; every frame is resampled at subpixel positions and gets new camera
noise. The landmarks are predicted once and filtered in several ways. With --tracks the predictions are kept
in a file, and only missing ones are computed. Writes smoothing.json, smoothing.md and smoothing.png.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.moving_face import (
    HEIGHT,
    NOISE,
    OCCLUDED_SECONDS,
    SECONDS,
    WIDTH,
    Floats,
    Motion,
    Path2D,
    Scene,
    frame_times,
    track_face,
)
from _common.results import ResultFiles, Results
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.smoothing import Cutoffs, LandmarkSmoother, OneEuroFilter, face_size
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.visualization.figures import legend_below, new_figure, style_axes
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.style import STYLE

MOTIONS = {"still": Motion(0.0), "slow": Motion(0.5), "fast": Motion(2.0, frequency_factor=2.5)}
OCCLUDED_MOTIONS = {"still": Motion(0.0, occluded=True), "slow": Motion(0.5, occluded=True)}
FPS = 25
"""Frame rate of the occlusions, the simulated landmarks and the figure."""

SEEDS = {FPS: (0, 1, 2), 15: (0,), 60: (0,)}
"""Seeds of the noise for each frame rate."""

LANDMARK_CUTOFFS = Cutoffs(minimum=4.0, speed=3.0, derivative=2.0)
"""For the filter on each landmark alone, tuned like those of `LandmarkSmoother`: stronger smoothing lags by
more than a frame, weaker smoothing does not halve the jitter of slow motion."""

PLOTTED = KAGGLE15.names.index("nose_tip")

UNFILTERED, SMOOTHED, ALONE = "unfiltered", "smoothed", "each landmark alone"

CONCLUSIONS = """
Jitter from noise is the part that differs between seeds. On the still and the slow path, smoothing reduces
the jitter by more than half; at 25 frames per second, the lag on the slow path is a third of a frame. On the
fast path, it reduces the jitter from noise by more than half as well, but not the total jitter: most of the
rest is the lag of the filter, which varies where the path turns, and therefore counts as jitter. The crop of
the next frame is predicted from the velocity of the face. With an earlier model, the jitter on this path was
0.43 px without this prediction, and 0.25 px with it.

The cutoffs were tuned on such clips with an earlier model: 128 settings of the filter in use, and 56 of a
filter on each landmark alone. None of the latter halved the jitter on the slow path with a lag of less than
0.6 frames.
"""


# --- filters -------------------------------------------------------------------------------------


class LandmarkFilter:
    """A simpler filter for comparison: a One-Euro filter on the position of each landmark."""

    def __init__(self) -> None:
        self.filter, self.time = OneEuroFilter(LANDMARK_CUTOFFS), 0.0

    def __call__(self, points: Floats, time: float, confidence: Floats | None = None) -> Floats:
        """Smooth like `LandmarkSmoother`, but ignore the confidence."""
        elapsed, self.time = time - self.time, time
        return self.filter(points, elapsed, face_size(points))


class NoFilter:
    """No smoothing."""

    def __call__(self, points: Floats, time: float, confidence: Floats | None = None) -> Floats:
        """Return the points unchanged."""
        return points


Filter = Callable[[Floats, float, Floats | None], NDArray[np.floating]]
FILTERS: dict[str, Callable[[], Filter]] = {
    UNFILTERED: NoFilter,
    SMOOTHED: LandmarkSmoother,
    ALONE: LandmarkFilter,
}


def apply_filter(name: str, clip: Floats, fps: int, use_confidence: bool = True) -> Floats:
    """Filter (N, K, 2) points, or (N, K, 3) with their confidence."""
    smoother = FILTERS[name]()
    use_confidence = use_confidence and clip.shape[2] == 3
    return np.array(
        [
            smoother(face[:, :2], frame / fps, face[:, 2] if use_confidence else None)
            for frame, face in enumerate(clip)
        ],
        np.float64,
    )


# --- measurements --------------------------------------------------------------------------------


def jitter(errors: Floats) -> float:
    """Return the root mean square of the second difference over time of (N, K, 2) errors."""
    return float(np.sqrt((np.diff(errors, n=2, axis=0) ** 2).mean()))


def lag(positions: Floats, path: Path2D, fps: int) -> float:
    """Return the delay in frames of (N, 2) positions behind a path, by least squares with a free offset."""
    times = np.arange(len(positions)) / fps

    def misfit(frames: float) -> float:
        residuals = positions - path(times - frames / fps)
        return float(((residuals - residuals.mean(axis=0)) ** 2).sum())

    return float(minimize_scalar(misfit, bounds=(-3, 8), method="bounded", options={"xatol": 1e-4}).x)


def mean_scores(errors: list[Floats]) -> dict[str, float]:
    """Return the mean jitter and RMS error of several clips, pixels."""
    return {
        "jitter": float(np.mean([jitter(error) for error in errors])),
        "error": float(np.mean([np.sqrt((error**2).mean()) for error in errors])),
    }


def measure(clips: list[Floats], path: Path2D, fps: int, moves: bool) -> dict[str, dict[str, float]]:
    """Compare the filters on clips of one motion with the noise of several seeds."""
    moved = path(frame_times(fps))[:, None]
    # a constant error of a landmark is not jitter, and therefore part of the reference
    references = [moved + (clip[..., :2] - moved).mean(axis=0) for clip in clips]
    rows = {}
    for name in FILTERS:
        filtered = [apply_filter(name, clip, fps) for clip in clips]
        row = mean_scores(
            [points - reference for points, reference in zip(filtered, references, strict=True)]
        )
        if len(clips) > 1:
            deviations = np.array(filtered) - np.mean(filtered, axis=0)
            deviations *= np.sqrt(len(clips) / (len(clips) - 1))
            row["jitter from noise"] = float(np.sqrt(np.mean([jitter(each) ** 2 for each in deviations])))
        if moves:
            row["lag"] = float(np.mean([lag(points.mean(axis=1), path, fps) for points in filtered]))
        rows[name] = row
    return rows


def measure_occluded(clips: list[Floats], path: Path2D) -> dict[str, dict[str, float]]:
    """Compare no filter and smoothing without and with confidence while the face is occluded."""
    times = frame_times(FPS)
    start, end = OCCLUDED_SECONDS
    moved, occluded = path(times)[:, None], (times >= start) & (times < end + 0.2)
    rows = {}
    for label, name, use_confidence in (
        (UNFILTERED, UNFILTERED, True),
        ("smoothed without confidence", SMOOTHED, False),
        (SMOOTHED, SMOOTHED, True),
    ):
        errors = []
        for clip in clips:
            reference = moved + (clip[..., :2] - moved)[~occluded].mean(axis=0)
            errors.append((apply_filter(name, clip, FPS, use_confidence) - reference)[occluded])
        rows[label] = mean_scores(errors)
    return rows


def mouth_lag(name: str, face: Floats, side: float, noise: float) -> float:
    """Return the lag in frames of a mouth that opens by 15 % of the face in 0.2 s, and closes again."""

    def opening(times: Floats) -> Floats:
        phase = times % 1.5
        steps = [(1 - np.cos(np.pi * np.clip((phase - start) / 0.2, 0, 1))) / 2 for start in (0.4, 0.9)]
        return np.stack([np.zeros_like(times), 0.15 * side * (steps[0] - steps[1])], axis=1)

    lags = []
    for seed in range(5):
        points = face + np.random.default_rng(seed).normal(0, noise, (6 * FPS, *face.shape))
        points[:, -1] += opening(np.arange(6 * FPS) / FPS)
        lags.append(lag(apply_filter(name, points, FPS)[:, -1], opening, FPS))
    return float(np.mean(lags))


def tilt_lag(name: str, face: Floats, noise: float) -> float:
    """Return the lag in frames of the landmarks of a head that tilts by 12 degrees to either side."""

    def tilted(times: Floats) -> Floats:
        rotation = np.exp(1j * np.radians(12) * np.sin(2 * np.pi * 0.35 * times))
        points = ((face - face.mean(axis=0)) @ (1, 1j)) * rotation[:, None]
        return np.stack([points.real, points.imag], axis=-1).reshape(len(times), -1)

    frames = 6 * FPS
    clean = tilted(np.arange(frames) / FPS).reshape(frames, *face.shape)
    noisy = clean + np.random.default_rng(0).normal(0, noise, clean.shape)
    return lag(apply_filter(name, noisy, FPS).reshape(frames, -1), tilted, FPS)


def measure_all(scene: Scene, clip: Callable[[str, Motion, int, int], Floats]) -> Results:
    """Return all results; `clip` returns the predictions of (name, motion, frame rate, seed)."""
    results: Results = {
        "setting": {
            "machine": describe_machine(),
            "side": scene.side,
            "noise": NOISE,
            "seconds": SECONDS,
        }
    }
    for fps, seeds in SEEDS.items():
        for name, motion in MOTIONS.items():
            clips = [clip(name, motion, fps, seed) for seed in seeds]
            results[f"{fps} {name}"] = measure(clips, scene.path(motion), fps, moves=motion.speed > 0)
    for name, motion in OCCLUDED_MOTIONS.items():
        clips = [clip(f"occluded {name}", motion, FPS, seed) for seed in SEEDS[FPS]]
        results[f"occluded {name}"] = measure_occluded(clips, scene.path(motion))
    still = clip("still", MOTIONS["still"], FPS, 0)[..., :2]
    face, noise = still.mean(axis=0), float(still.std(axis=0).mean())
    results["simulated"] = {
        name: {"mouth": mouth_lag(name, face, scene.side, noise), "tilt": tilt_lag(name, face, noise)}
        for name in FILTERS
    }
    return results


# --- page and figure -----------------------------------------------------------------------------


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    return markdown_page(
        "Temporal smoothing: jitter and lag",
        f"`python benchmarks/smoothing.py`: a synthetic face, whose crop has a side of {setting['side']:.0f}"
        f" px, moves in frames of {WIDTH} × {HEIGHT} px for {setting['seconds']:g} s along sums of sines,"
        f" with camera noise of {setting['noise']:g} gray levels. The released ResNet18, tracked from frame"
        f" to frame; means over the seeds of the noise ({len(SEEDS[FPS])} at {FPS} frames per second,"
        " otherwise 1). The reference of a landmark is the path plus the mean error of the landmark. Jitter:"
        " RMS of the second difference of the error over time, px. Lag of the centroid of the landmarks"
        " behind the path, by least squares, frames. Error: RMS, px, including the distance due to lag."
        " Speeds are maxima, in sides of the crop per second.",
        _motion_table(results),
        "![x of the tip of the nose, unfiltered and smoothed; jitter and lag](smoothing.png)",
        f"Simulated landmarks at {FPS} frames per second, with noise of the same size: lag in frames of a"
        " mouth that opens in 0.2 s, and of all landmarks of a head that tilts by 12° to either side at"
        " 0.35 Hz.",
        markdown_table(
            ["filter", "mouth", "tilt"],
            [
                [name, f"{row['mouth']:.2f}", f"{row['tilt']:.2f}"]
                for name, row in results["simulated"].items()
            ],
        ),
        "A hand passes over the lower half of the face: jitter and error of all landmarks during this time,"
        f" px, at {FPS} frames per second. The confidence indicates which landmarks are occluded.",
        markdown_table(
            ["motion", "filter", "jitter", "error"],
            [
                [motion, name, f"{row['jitter']:.3f}", f"{row['error']:.2f}"]
                for motion in OCCLUDED_MOTIONS
                for name, row in results[f"occluded {motion}"].items()
            ],
        ),
        CONCLUSIONS,
    )


def _motion_table(results: Results) -> str:
    rows = []
    for fps in SEEDS:
        for name, motion in MOTIONS.items():
            of_motion = results[f"{fps} {name}"]
            for label, row in of_motion.items():
                cells = [str(fps), f"{name}, {motion.speed:g}", label]
                for what in ("jitter", "jitter from noise"):
                    cells += _jitter_cells(row, of_motion[UNFILTERED], what)
                cells += [f"{row['lag']:.2f}" if "lag" in row else "", f"{row['error']:.2f}"]
                rows.append(cells)
    return markdown_table(
        [
            "fps",
            "motion, speed",
            "filter",
            "jitter",
            "reduced by",
            "jitter from noise",
            "reduced by",
            "lag",
            "error",
        ],
        rows,
    )


def _jitter_cells(row: Mapping[str, float], unfiltered: Mapping[str, float], what: str) -> list[str]:
    """Return a jitter, and its reduction by the filter; empty cells where there is none."""
    if what not in row:
        return ["", ""]
    reduction = "" if row is unfiltered else f"{1 - row[what] / unfiltered[what]:.0%}"
    return [f"{row[what]:.3f}", reduction]


LINES: dict[str, dict[str, Any]] = {
    UNFILTERED: {"color": STYLE.series[1], "marker": "o", "markersize": 3, "linewidth": 0.9},
    SMOOTHED: {"color": STYLE.series[0], "marker": "o", "markersize": 3},
}


def draw_figure(path: Path, results: Results, clips: Mapping[str, Floats], scene: Scene) -> None:
    """Plot one landmark unfiltered and smoothed, and the jitter and lag of each motion as bars."""
    figure = new_figure(9.6, 5.2)
    grid = figure.add_gridspec(2, 3)
    for row, (name, title) in enumerate({"still": "still face", "slow": "slow path at a turn"}.items()):
        axes = figure.add_subplot(grid[row, :2])
        _draw_landmark(axes, clips[name], scene.path(MOTIONS[name]), whole=name == "still")
        style_axes(axes, f"x of the tip of the nose, {title}", "s", "px")
    for row, (what, unit) in enumerate({"jitter": "px", "lag": "frames"}.items()):
        axes = figure.add_subplot(grid[row, 2])
        names = [name for name in MOTIONS if what in results[f"{FPS} {name}"][SMOOTHED]]
        places = np.arange(len(names))
        for offset, (label, line) in zip((-0.2, 0.2), LINES.items(), strict=True):
            values = [results[f"{FPS} {name}"][label][what] for name in names]
            axes.bar(places + offset, values, 0.38, color=line["color"])
        if what == "jitter":
            half = [results[f"{FPS} {name}"][UNFILTERED][what] / 2 for name in names]
            axes.hlines(half, places - 0.4, places + 0.4, STYLE.ink, "dashed", lw=1)
        axes.set_xticks(places, names)
        style_axes(axes, what.capitalize(), "", unit)
        axes.grid(False, axis="x")
    legend_below(figure, 3)
    save_png(path, figure)


def _draw_landmark(axes: Any, points: Floats, path: Path2D, whole: bool) -> None:
    """Plot x of one landmark over two seconds of a still face, or around a turn of the path."""
    times = frame_times(FPS)
    moved = path(times)[:, None]
    reference = moved + (points - moved).mean(axis=0)
    turn = int(np.argmax(np.abs(moved[25:-25, 0, 0]))) + 25
    shown = slice(25, 75) if whole else slice(turn - 10, turn + 11)
    curves = {"reference": reference, **{name: apply_filter(name, points, FPS) for name in LINES}}
    for name, curve in curves.items():
        line = LINES.get(name, {"color": STYLE.ink, "linewidth": STYLE.line_width})
        label = name if whole else None  # one legend for both plots
        axes.plot(times[shown], curve[shown, PLOTTED, 0], label=label, **line)


FILES = ResultFiles("smoothing", render)


def main() -> None:
    """Render and track the clips, filter them, and write the results."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--model", required=True, type=Path, help="model file with Kaggle's 15 landmarks")
    parser.add_argument("--tracks", type=Path, help="keep the predictions in this .npz file, and reuse them")
    options, files = parser.parse()
    predictor = Predictor.open(options.model, "cpu")
    scene = Scene.draw(predictor)
    tracks = dict(np.load(options.tracks)) if options.tracks and options.tracks.is_file() else {}

    def clip(name: str, motion: Motion, fps: int, seed: int) -> Floats:
        key = f"{fps} {name} {seed}"
        if key not in tracks:
            print(key, flush=True)
            tracks[key] = track_face(predictor, scene, motion, fps, seed)
            if options.tracks:
                np.savez(options.tracks, **tracks)
        return tracks[key]

    results = measure_all(scene, clip)
    files.write(results)
    clips = {name: clip(name, motion, FPS, 0)[..., :2] for name, motion in MOTIONS.items()}
    draw_figure(files.folder / "smoothing.png", results, clips, scene)


if __name__ == "__main__":
    main()
