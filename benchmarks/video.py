"""Where the time goes in a video: 640 x 360, 25 frames a second, one face, on a CPU.

    python benchmarks/video.py --model runs/default/model.onnx --model runs/default/model.safetensors

Draws a clip of a moving face, then times each step alone and the command whole, three times each. Writes
video.json and video.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from holdout import HERE, machine, write_results
from numpy.typing import NDArray

from landmarks_fastai.data.source import default_cache
from landmarks_fastai.data.synthetic import draw_picture
from landmarks_fastai.drawing import draw_points
from landmarks_fastai.framing import Square, cut_square
from landmarks_fastai.inference.faces import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import TrackedFace, Tracker
from landmarks_fastai.tasks.video import annotate_video
from landmarks_fastai.videofile import VideoReader
from landmarks_fastai.videowriter import VideoWriter

SIZE, FPS, FRAMES = (640, 360), 25, 250
RUNS = 3


def make_clip(path: Path) -> None:
    """Write ten seconds of a drawn face that moves, with a camera's noise."""
    picture, _ = draw_picture(3, (800, 450))
    rng = np.random.default_rng(0)
    with VideoWriter(path, SIZE, Fraction(FPS), Fraction(1, 12800)) as writer:
        for frame in range(FRAMES):
            turn = 2 * np.pi * frame / FRAMES
            left, top = 80 + 60 * np.sin(2 * turn), 45 + 30 * np.cos(3 * turn)
            square = cut_square(picture, Square(left, top, SIZE[0]), SIZE[0], 3)[: SIZE[1]]
            noisy = square + rng.normal(0, 3, square.shape)
            writer.write(noisy.clip(0, 255).astype(np.uint8), Fraction(frame, FPS))


def steps(clip: Path, tracker: Tracker, out: Path) -> dict[str, float]:
    """Return the seconds of each step, one after the other."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - begun
        return result

    def decode() -> list[tuple[Fraction, NDArray[np.uint8]]]:
        with VideoReader(clip) as reader:
            return [(frame.time, frame.image) for frame in reader]

    def track() -> list[list[TrackedFace]]:
        return [tracker(image, float(time)) for time, image in frames]

    def draw() -> list[NDArray[np.uint8]]:
        drawn = []
        for (_, image), faces in zip(frames, tracked, strict=True):
            for face in faces:
                image = draw_points(image, face.points, tracker.predictor.schema)
            drawn.append(image)
        return drawn

    def encode() -> None:
        with VideoWriter(out, SIZE, Fraction(FPS), Fraction(1, 12800)) as writer:
            for (time, _), image in zip(frames, drawn, strict=True):
                writer.write(image, time)

    frames = timed("decode", decode)
    tracked = timed("track and predict", track)
    drawn = timed("draw", draw)
    timed("encode", encode)
    return seconds


def main() -> None:
    """Time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, action="append", help="model file; repeatable")
    parser.add_argument("--detector", default="centerface")
    options = parser.parse_args()
    detect = open_detector(options.detector, default_cache())
    results: dict[str, Any] = {"setting": {"machine": machine(), "cores": os.cpu_count(), "frames": FRAMES}}
    with tempfile.TemporaryDirectory() as folder:
        clip, out = Path(folder, "clip.mp4"), Path(folder, "out.mp4")
        make_clip(clip)
        for model in options.model:
            predictor = Predictor.open(model, "cpu")
            rows = []
            for _ in range(RUNS):
                tracker = Tracker(predictor, detect)
                row = steps(clip, tracker, out)
                row["detections"] = tracker.detections
                whole = Tracker(predictor, detect)
                begun = time.perf_counter()
                outcome = annotate_video(clip, out, whole, predictor.schema, overwrite=True)
                row["the command, steps beside each other"] = time.perf_counter() - begun
                assert (outcome.frames, outcome.faces) == (FRAMES, 1)
                rows.append(row)
                print(model.suffix, row, flush=True)
            results[model.suffix] = {key: [row[key] for row in rows] for key in rows[0]}
    write_results("video", results)
    _write_table(results, options.detector)


def _write_table(results: dict[str, Any], detector: str) -> None:
    kinds = [key for key in results if key != "setting"]
    names = {".onnx": "ONNX Runtime", ".safetensors": "torch"}
    lines = [
        "# Where the time goes in a video",
        "",
        f"`python benchmarks/video.py`: {SIZE[0]} × {SIZE[1]}, {FPS} frames a second, one drawn face,"
        f" {FRAMES} frames; {results['setting']['machine']}, {results['setting']['cores']} cores,"
        f" detector {detector}. Milliseconds a frame, the middle one of {RUNS} runs (the least, the most).",
        "",
        f"| step | {' | '.join(names.get(kind, kind) for kind in kinds)} |",
        f"| --- |{' --- |' * len(kinds)}",
    ]
    first = results[kinds[0]]
    for step in first:
        if step == "detections":
            continue
        cells = []
        for kind in kinds:
            each = sorted(1000 * seconds / FRAMES for seconds in results[kind][step])
            cells.append(f"{each[len(each) // 2]:.1f} ({each[0]:.1f}, {each[-1]:.1f})")
        lines.append(f"| {step} | {' | '.join(cells)} |")
    rates = [
        sorted(FRAMES / s for s in results[kind]["the command, steps beside each other"]) for kind in kinds
    ]
    lines.append(f"| frames a second | {' | '.join(f'{rate[len(rate) // 2]:.0f}' for rate in rates)} |")
    lines += ["", f"The detector ran {first['detections'][0]} times in {FRAMES} frames."]
    (HERE / "video.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
