"""Measure how much time each step of annotating a video takes.

    python benchmarks/video.py --model runs/default/model.onnx --model runs/default/model.safetensors

Draws a clip of 640 x 360 pixels with one moving face at 25 frames per second, and times each step alone and
the whole command on the CPU, three times each. Writes video.json and video.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results
from numpy.typing import NDArray

from landmarks_fastai.commands.video import annotate_video
from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.geometry import Crop, extract_crop
from landmarks_fastai.inference.detectors.base import Detector
from landmarks_fastai.inference.face_detection import DEFAULT_DETECTOR, open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.utils.download import default_cache_dir
from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.video.writer import VideoWriter
from landmarks_fastai.visualization.landmarks import draw_landmarks

SIZE, FPS, FRAMES = (640, 360), 25, 250
TIME_BASE = Fraction(1, 12800)
RUNS = 3
WHOLE = "whole command, steps in parallel"
BACKENDS = {".onnx": "ONNX Runtime", ".safetensors": "torch"}

Image = NDArray[np.uint8]
T = TypeVar("T")


def write_clip(path: Path) -> None:
    """Write ten seconds of a moving synthetic face with camera noise."""
    photo, _ = draw_synthetic_photo(3, (800, 450))
    rng = np.random.default_rng(0)
    with VideoWriter(path, SIZE, Fraction(FPS), TIME_BASE) as writer:
        for index in range(FRAMES):
            phase = 2 * np.pi * index / FRAMES
            left, top = 80 + 60 * np.sin(2 * phase), 45 + 30 * np.cos(3 * phase)
            frame = extract_crop(photo, Crop(left, top, SIZE[0]), SIZE[0], 3)[: SIZE[1]]
            noisy = frame + rng.normal(0, 3, frame.shape)
            writer.write(noisy.clip(0, 255).astype(np.uint8), Fraction(index, FPS))


def time_steps(clip: Path, tracker: Tracker, out: Path) -> dict[str, float]:
    """Return the seconds of each step, one after the other."""
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = step()
        seconds[name] = time.perf_counter() - start
        return result

    def decode() -> list[tuple[Fraction, Image]]:
        with VideoReader(clip) as reader:
            return [(frame.time, frame.image) for frame in reader]

    def track() -> list[Landmarks]:
        return [tracker(image, float(seconds)) for seconds, image in frames]

    def draw() -> list[Image]:
        return [draw_landmarks(image, faces) for (_, image), faces in zip(frames, tracked, strict=True)]

    def encode() -> None:
        with VideoWriter(out, SIZE, Fraction(FPS), TIME_BASE) as writer:
            for (seconds, _), image in zip(frames, drawn, strict=True):
                writer.write(image, seconds)

    frames = timed("decode", decode)
    tracked = timed("track and predict", track)
    drawn = timed("draw", draw)
    timed("encode", encode)
    return seconds


def measure(clip: Path, out: Path, predictor: Predictor, detector: Detector) -> dict[str, float]:
    """Return the seconds of each step and of the whole command, and the number of detections."""
    tracker = Tracker(predictor, detector)
    result = time_steps(clip, tracker, out)
    result["detections"] = tracker.detections
    start = time.perf_counter()
    video = annotate_video(clip, out, Tracker(predictor, detector), overwrite=True)
    result[WHOLE] = time.perf_counter() - start
    assert (video.frames, video.tracks) == (FRAMES, 1)
    return result


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    backends = {name: result for name, result in results.items() if name != "setting"}
    first = next(iter(backends.values()))
    rows = []
    for step in first:
        if step != "detections":
            milliseconds = [1000 * np.sort(result[step]) / FRAMES for result in backends.values()]
            rows.append([step, *(f"{np.median(ms):.1f} ({ms[0]:.1f}, {ms[-1]:.1f})" for ms in milliseconds)])
    rates = [f"{FRAMES / np.median(result[WHOLE]):.0f}" for result in backends.values()]
    return markdown_page(
        "Time of each step of video processing",
        f"`python benchmarks/video.py`: a video of {SIZE[0]} × {SIZE[1]} px with {FRAMES} frames, {FPS}"
        f" frames per second and one synthetic face; {setting['machine']}, {setting['cores']} cores, detector"
        f" {setting['detector']}. Milliseconds per frame: median of {RUNS} runs (minimum, maximum).",
        markdown_table(
            ["step", *(BACKENDS.get(name, name) for name in backends)], [*rows, ["frames per second", *rates]]
        ),
        f"The detector ran {first['detections'][0]} times in {FRAMES} frames.",
    )


FILES = ResultFiles("video", render)


def main() -> None:
    """Time every model, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--model", required=True, type=Path, action="append", help="model file; repeatable")
    parser.add_argument("--detector", default=DEFAULT_DETECTOR)
    options, files = parser.parse()
    detector = open_detector(options.detector, default_cache_dir())
    results: dict[str, Any] = {
        "setting": {
            "machine": describe_machine(),
            "cores": os.cpu_count(),
            "frames": FRAMES,
            "detector": options.detector,
        }
    }
    with tempfile.TemporaryDirectory() as folder:
        clip, out = Path(folder, "clip.mp4"), Path(folder, "out.mp4")
        write_clip(clip)
        for model in options.model:
            predictor = Predictor.open(model, "cpu")
            runs = []
            for _ in range(RUNS):
                runs.append(measure(clip, out, predictor, detector))
                print(model.suffix, runs[-1], flush=True)
            # a run folder or a released model is opened from its .safetensors file
            results[model.suffix or ".safetensors"] = {name: [run[name] for run in runs] for name in runs[0]}
    files.write(results)


if __name__ == "__main__":
    main()
