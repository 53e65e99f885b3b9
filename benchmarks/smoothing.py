"""How much steadier the filter makes the points of a video, and how far they lag behind for it.

    python benchmarks/smoothing.py --model runs/default/model.onnx [--points found.npz]

A still drawn face is moved along known paths, cut anew between the pixels for every frame, with a camera's
fresh noise; its points are found once and filtered several ways. With --points they are kept, and found only
where they do not stand there. Writes smoothing.json, smoothing.md and smoothing.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from holdout import HERE, machine, write_results
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from landmarks_fastai.data.synthetic import draw_picture
from landmarks_fastai.drawing import STYLE, save_png
from landmarks_fastai.figures import dress, legend_below, new_figure
from landmarks_fastai.framing import Square, cut_square
from landmarks_fastai.inference.faces import Boxes
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.smoothing import Cutoffs, OneEuro, SteadyFace, face_size
from landmarks_fastai.inference.tracking import Tracker

Floats = NDArray[np.float64]
Way = Callable[[Floats], Floats]
"""Maps (N,) seconds to (N, 2) px."""

WIDTH, HEIGHT = 320, 240
ENLARGED = 3
"""How many times larger the face is drawn than it is filmed."""

NOISE = 6.0
"""Standard deviation of the camera's noise, gray levels of 255."""

SECONDS = 5.0
RATES = {25: (0, 1, 2), 15: (0,), 60: (0,)}
"""Frames a second, and the seeds of the noise."""

SWAYS = (((1.0, 0.19, 0.0), (0.5, 0.5, 1.0)), ((0.6, 0.26, 2.0), (0.3, 0.58, 0.5)))
"""Along x and along y: the sines' sizes, frequencies in Hz and phases."""


EACH = Cutoffs(still=4.0, speed=3.0, of_speed=2.0)
"""For the simpler filter, tuned as ours is: more than this lags a frame, less does not halve slow jitter."""

WORDS = """
What comes from noise is what differs from seed to seed. Where the face is still or slow, jitter falls by more
than half, with a third of a frame of lag at 25 frames a second. On the fast path what comes from noise falls
by more than half too, but the whole does not: most of what is left is the filter's own delay, which changes
where the path turns and so counts as jitter. The next square is led on by the face's velocity. An earlier
model, without that, gave points that jittered there by 0.43 px for 0.25.

The cutoffs were tuned on such clips with an earlier model: 128 settings of ours and 56 of the same filter on
each point alone. None of these took half the jitter from the slow path with a lag of less than 0.6 frames.
""".strip().split("\n")

POINT = 10
"""The nose's tip, which the figure shows."""


COVERED = (2.0, 3.6)
"""Seconds in which a hand passes over the lower half of a covered face."""

HAND = (0.22, (180, 140, 120))
"""Half of its side, as a share of the face's square, and its colour."""


@dataclass(frozen=True)
class Motion:
    """A smooth path, and whether a hand passes over the face.

    Parameters
    ----------
    speed
        The highest, in sides of the face's square a second.
    quick
        How many times faster than `SWAYS` it sways.
    covered
        Whether a hand passes.
    """

    speed: float
    quick: float = 1.0
    covered: bool = False

    def __call__(self, times: Floats) -> Floats:
        """Return (N, 2) places, in sides of the face's square."""
        minute = np.linspace(0, 60, 60_001)
        highest = np.hypot(*np.gradient(_sway(minute * self.quick), minute, axis=0).T).max()
        return np.asarray(_sway(times * self.quick) * (self.speed / highest))


MOTIONS = {"still": Motion(0.0), "slow": Motion(0.5), "fast": Motion(2.0, quick=2.5)}
HIDDEN = {"still": Motion(0.0, covered=True), "slow": Motion(0.5, covered=True)}


def _sway(times: Floats) -> Floats:
    axes = [
        sum(size * np.sin(2 * np.pi * rate * times + phase) for size, rate, phase in waves) for waves in SWAYS
    ]
    return np.stack(axes, axis=1)


@dataclass(frozen=True)
class Stage:
    """The picture that is filmed, and where the face lies in it."""

    picture: NDArray[np.uint8]
    face: Square

    @classmethod
    def draw(cls, predictor: Predictor) -> Stage:
        """Draw it, larger than it is filmed."""
        picture, points = draw_picture(0, (ENLARGED * WIDTH, ENLARGED * HEIGHT))
        face = predictor.square_around(points)
        assert face is not None
        return cls(picture, face)

    @property
    def side(self) -> float:
        """Of the face's square in the frames, px."""
        return self.face.side / ENLARGED

    def path(self, motion: Motion) -> Way:
        """Lead seconds to places, px."""
        return lambda times: self.side * motion(times)

    def frame(self, place: Floats) -> NDArray[np.uint8]:
        """Film the face, moved from the middle by so many px."""
        left, top = (
            start + self.face.side / 2 - ENLARGED * (length / 2 + moved)
            for start, length, moved in zip(
                (self.face.left, self.face.top), (WIDTH, HEIGHT), place, strict=True
            )
        )
        return cut_square(self.picture, Square(left, top, ENLARGED * WIDTH), WIDTH, 3)[:HEIGHT]

    def cover(self, frame: NDArray[np.uint8], place: Floats, time: float) -> NDArray[np.uint8]:
        """Return a frame with the hand on it, if it is there at that time; it goes with the face."""
        if not COVERED[0] <= time < COVERED[1]:
            return frame
        half, colour = HAND
        passed = (time - COVERED[0]) / (COVERED[1] - COVERED[0]) - 0.5
        middle = place + (WIDTH / 2, HEIGHT / 2) + self.side * np.array([passed, 0.28])
        left, top = np.rint(middle - half * self.side).astype(int).clip(0)
        right, bottom = np.rint(middle + half * self.side).astype(int)
        frame = frame.copy()
        frame[top:bottom, left:right] = colour
        return frame


def film(predictor: Predictor, stage: Stage, motion: Motion, fps: int, seed: int) -> Floats:
    """Move the face, and return (N, K, 3): each frame's points as they are found, and their confidence."""
    times = frame_times(fps)
    places = stage.path(motion)(times)
    rng = np.random.default_rng(seed)
    first = places[0] + (WIDTH / 2, HEIGHT / 2)
    box = np.array([[*(first - stage.side / 2), *(first + stage.side / 2)]])
    tracker = Tracker(predictor, lambda _: Boxes(box, np.ones(1)), smooth=False, detect_every=len(times) + 1)
    found = []
    for time, place in zip(times, places, strict=True):
        frame = stage.frame(place)
        if motion.covered:
            frame = stage.cover(frame, place, float(time))
        noisy = (frame + rng.normal(0, NOISE, frame.shape)).clip(0, 255).astype(np.uint8)
        (face,) = tracker(noisy, float(time))
        found.append(np.column_stack([face.points, face.confidence]).astype(np.float64))
    assert tracker.detections == 2, "the face was lost"  # it looks again at the second frame, to settle
    return np.array(found)


def frame_times(fps: int) -> Floats:
    """Return (N,) seconds."""
    return np.arange(round(SECONDS * fps)) / fps


class EachPoint:
    """The simpler filter that ours is compared with: One-Euro on each point's own place."""

    def __init__(self) -> None:
        self.filter, self.time = OneEuro(EACH), 0.0

    def __call__(self, points: Floats, time: float, confidence: Floats | None = None) -> Floats:
        """Steady, as `SteadyFace` does, but for the confidence."""
        elapsed, self.time = time - self.time, time
        return self.filter(points, elapsed, face_size(points))


class AsFound:
    """No filter."""

    def __call__(self, points: Floats, time: float, confidence: Floats | None = None) -> Floats:
        """Return the points."""
        return points


Filter = Callable[[Floats, float, Floats | None], NDArray[np.floating]]
FILTERS: dict[str, Callable[[], Filter]] = {
    "as found": AsFound,
    "steadied": SteadyFace,
    "each point alone": EachPoint,
}


def steadied(name: str, clip: Floats, fps: int, sure: bool = True) -> Floats:
    """Filter (N, K, 2) points, or (N, K, 3) with their confidence, which is used if `sure`."""
    steady = FILTERS[name]()
    return np.array(
        [
            steady(face[:, :2], frame / fps, face[:, 2] if sure and face.shape[1] == 3 else None)
            for frame, face in enumerate(clip)
        ],
        np.float64,
    )


def jitter(errors: Floats) -> float:
    """RMS of the second difference over time of (N, K, 2) errors."""
    return float(np.sqrt((np.diff(errors, n=2, axis=0) ** 2).mean()))


def lag(places: Floats, path: Way, fps: int) -> float:
    """Return by how many frames (N, 2) places follow a path, wherever they lie beside it."""
    times = np.arange(len(places)) / fps

    def misfit(frames: float) -> float:
        rest = places - path(times - frames / fps)
        return float(((rest - rest.mean(axis=0)) ** 2).sum())

    return float(minimize_scalar(misfit, bounds=(-3, 8), method="bounded", options={"xatol": 1e-4}).x)


def measure(clips: list[Floats], path: Way, fps: int, moves: bool) -> dict[str, dict[str, float]]:
    """Compare the filters on one motion, filmed with noise of several seeds."""
    moved = path(frame_times(fps))[:, None]
    # what is always wrong with a point is no jitter, so it counts as true
    truths = [moved + (clip[..., :2] - moved).mean(axis=0) for clip in clips]
    rows = {}
    for name in FILTERS:
        found = [steadied(name, clip, fps) for clip in clips]
        errors = [points - truth for points, truth in zip(found, truths, strict=True)]
        row = {
            "jitter": float(np.mean([jitter(error) for error in errors])),
            "rms": float(np.mean([np.sqrt((error**2).mean()) for error in errors])),
        }
        if len(clips) > 1:
            spread = np.array(found) - np.mean(found, axis=0)
            spread *= np.sqrt(len(clips) / (len(clips) - 1))
            row["jitter of noise"] = float(np.sqrt(np.mean([jitter(each) ** 2 for each in spread])))
        if moves:
            row["lag"] = float(np.mean([lag(points.mean(axis=1), path, fps) for points in found]))
        rows[name] = row
    return rows


def measure_hidden(clips: list[Floats], path: Way, fps: int) -> dict[str, dict[str, float]]:
    """Compare, on a covered face, the points as found and steadied with and without their confidence."""
    times = frame_times(fps)
    moved, hidden = path(times)[:, None], (times >= COVERED[0]) & (times < COVERED[1] + 0.2)
    rows = {}
    for kind, name, sure in (
        ("as found", "as found", True),
        ("confidence not used", "steadied", False),
        ("steadied", "steadied", True),
    ):
        errors = []
        for clip in clips:
            truth = moved + (clip[..., :2] - moved)[~hidden].mean(axis=0)
            errors.append((steadied(name, clip, fps, sure) - truth)[hidden])
        rows[kind] = {
            "jitter": float(np.mean([jitter(error) for error in errors])),
            "rms": float(np.mean([np.sqrt((error**2).mean()) for error in errors])),
        }
    return rows


def mouth_lag(name: str, face: Floats, side: float, noise: float, fps: int = 25) -> float:
    """Return how many frames a mouth lags that opens in 0.2 s, by 15 % of the face, and closes again."""

    def opened(times: Floats) -> Floats:
        turn = times % 1.5
        stages = [(1 - np.cos(np.pi * np.clip((turn - start) / 0.2, 0, 1))) / 2 for start in (0.4, 0.9)]
        return np.stack([np.zeros_like(times), 0.15 * side * (stages[0] - stages[1])], axis=1)

    lags = []
    for seed in range(5):
        points = face + np.random.default_rng(seed).normal(0, noise, (6 * fps, *face.shape))
        points[:, -1] += opened(np.arange(6 * fps) / fps)
        lags.append(lag(steadied(name, points, fps)[:, -1], opened, fps))
    return float(np.mean(lags))


def tilt_lag(name: str, face: Floats, noise: float, fps: int = 25) -> float:
    """Return how many frames the points of a head lag that tilts by 12 degrees to either side."""

    def tilted(times: Floats) -> Floats:
        turn = np.exp(1j * np.radians(12) * np.sin(2 * np.pi * 0.35 * times))
        middle = face.mean(axis=0)
        points = ((face - middle) @ (1, 1j)) * turn[:, None]
        return np.stack([points.real, points.imag], axis=-1).reshape(len(times), -1)

    frames = 6 * fps
    clean = tilted(np.arange(frames) / fps).reshape(frames, *face.shape)
    noisy = clean + np.random.default_rng(0).normal(0, noise, clean.shape)
    return lag(steadied(name, noisy, fps).reshape(frames, -1), tilted, fps)


def main() -> None:
    """Film, filter and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="model file with Kaggle's 15 points")
    parser.add_argument(
        "--points", type=Path, help="keep the found points here (.npz), and take them from here"
    )
    options = parser.parse_args()
    predictor = Predictor.open(options.model, "cpu")
    stage = Stage.draw(predictor)
    found = dict(np.load(options.points)) if options.points and options.points.is_file() else {}
    results: dict[str, Any] = {
        "setting": {"machine": machine(), "side": stage.side, "noise": NOISE, "seconds": SECONDS}
    }
    for fps, seeds in RATES.items():
        for name, motion in MOTIONS.items():
            for seed in seeds:
                key = f"{fps} {name} {seed}"
                if key not in found:
                    print(key, flush=True)
                    found[key] = film(predictor, stage, motion, fps, seed)
                    if options.points:
                        np.savez(options.points, **found)
            clips = [found[f"{fps} {name} {seed}"] for seed in seeds]
            results[f"{fps} {name}"] = measure(clips, stage.path(motion), fps, moves=motion.speed > 0)
    for name, motion in HIDDEN.items():
        clips = []
        for seed in RATES[25]:
            key = f"25 hidden {name} {seed}"
            if key not in found:
                print(key, flush=True)
                found[key] = film(predictor, stage, motion, 25, seed)
                if options.points:
                    np.savez(options.points, **found)
            clips.append(found[key])
        results[f"hidden {name}"] = measure_hidden(clips, stage.path(motion), 25)
    still = found["25 still 0"][..., :2]
    face, noise = still.mean(axis=0), float(still.std(axis=0).mean())
    results["on points alone"] = {
        name: {
            "mouth": mouth_lag(name, face, stage.side, noise),
            "tilt": tilt_lag(name, face, noise),
        }
        for name in FILTERS
    }
    write_results("smoothing", results)
    _write_table(results)
    _draw(results, {name: found[f"25 {name} 0"][..., :2] for name in MOTIONS}, stage.path)


def _write_table(results: dict[str, Any]) -> None:
    setting = results["setting"]
    lines = [
        "# Steadier points, and what they lag",
        "",
        f"`python benchmarks/smoothing.py`: a drawn face, its square {setting['side']:.0f} px, moves through"
        f" {WIDTH} × {HEIGHT} px for {setting['seconds']:g} s along sums of sines, with camera noise of"
        f" {setting['noise']:g} gray levels; the released ResNet18, followed from frame to frame; means over"
        f" the noise's seeds ({len(RATES[25])} at 25 frames a second, else 1). True is the path, beside which"
        " a point may lie by what is wrong with it on average. Jitter: RMS of the second difference over time"
        " of the error, px. Lag: of the points' middle behind the path, by least squares, in frames. Error:"
        " RMS, px, the lag's distance included. Speeds are the highest, in squares a second.",
        "",
        "| fps | motion | filter | jitter | falls by | of it from noise | falls by | lag | error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for fps in RATES:
        for name, motion in MOTIONS.items():
            rows = results[f"{fps} {name}"]
            for kind, row in rows.items():
                cells = [str(fps), f"{name}, {motion.speed:g}", kind]
                for what in ("jitter", "jitter of noise"):
                    if what in row:
                        share = 1 - row[what] / rows["as found"][what]
                        cells += [f"{row[what]:.3f}", "" if kind == "as found" else f"{share:.0%}"]
                    else:
                        cells += ["", ""]
                cells += [f"{row['lag']:.2f}" if "lag" in row else "", f"{row['rms']:.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "On points alone, at 25 frames a second, with noise of the same size: by how many frames a mouth lags"
        " that opens in 0.2 s, and all the points of a head that tilts by 12° to either side at 0.35 Hz.",
        "",
        "| filter | mouth | tilt |",
        "| --- | --- | --- |",
    ]
    for kind, row in results["on points alone"].items():
        lines.append(f"| {kind} | {row['mouth']:.2f} | {row['tilt']:.2f} |")
    lines += [
        "",
        "A hand passes over the lower half of the face: jitter and error, px, of all points while it does, at"
        " 25 frames a second. The confidence says which points are hidden.",
        "",
        "| motion | filter | jitter | error |",
        "| --- | --- | --- | --- |",
    ]
    for name in HIDDEN:
        for kind, row in results[f"hidden {name}"].items():
            lines.append(f"| {name} | {kind} | {row['jitter']:.3f} | {row['rms']:.2f} |")
    lines += ["", *WORDS]
    (HERE / "smoothing.md").write_text("\n".join(lines) + "\n")


def _draw(results: dict[str, Any], clips: dict[str, Floats], way: Callable[[Motion], Way]) -> None:
    """Draw one point's way, and the bars of jitter and lag."""
    figure = new_figure(9.6, 5.2)
    grid = figure.add_gridspec(2, 3)
    looks: dict[str, dict[str, Any]] = {
        "as found": {"color": STYLE.series[1], "marker": "o", "markersize": 3, "linewidth": 0.9},
        "steadied": {"color": STYLE.series[0], "marker": "o", "markersize": 3},
    }
    fps = 25
    for row, (name, title) in enumerate({"still": "a still face", "slow": "the slow path turns"}.items()):
        points, moved = clips[name], way(MOTIONS[name])(frame_times(fps))[:, None]
        truth = moved + (points - moved).mean(axis=0)
        middle = int(np.argmax(np.abs(moved[25:-25, 0, 0]))) + 25
        part = slice(middle - 10, middle + 11) if name == "slow" else slice(25, 75)
        axes = figure.add_subplot(grid[row, :2])
        times = frame_times(fps)[part]
        labels = {"true": "true"} | {kind: kind for kind in looks} if row == 0 else {}
        axes.plot(
            times,
            truth[part, POINT, 0],
            color=STYLE.ink,
            linewidth=STYLE.line_width,
            label=labels.get("true"),
        )
        for kind, look in looks.items():
            axes.plot(times, steadied(kind, points, fps)[part, POINT, 0], label=labels.get(kind), **look)
        dress(
            axes, f"x of the nose's tip where {title}" if row else f"x of the nose's tip, {title}", "s", "px"
        )
    kinds = ("as found", "steadied")
    for row, (what, unit) in enumerate({"jitter": "px", "lag": "frames"}.items()):
        axes = figure.add_subplot(grid[row, 2])
        names = [name for name in MOTIONS if what in results[f"{fps} {name}"]["steadied"]]
        for shift, kind in enumerate(kinds):
            values = [results[f"{fps} {name}"][kind][what] for name in names]
            axes.bar(np.arange(len(names)) + 0.4 * shift - 0.2, values, 0.38, color=looks[kind]["color"])
        axes.set_xticks(range(len(names)), names)
        dress(axes, what.capitalize(), "", unit)
        if row == 0:
            half = [results[f"{fps} {name}"]["as found"][what] / 2 for name in names]
            axes.hlines(
                half, np.arange(len(names)) - 0.4, np.arange(len(names)) + 0.4, STYLE.ink, "dashed", lw=1
            )
        axes.grid(False, axis="x")
    legend_below(figure, 3)
    save_png(HERE / "smoothing.png", figure)


if __name__ == "__main__":
    main()
