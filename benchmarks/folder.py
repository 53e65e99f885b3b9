"""Measure how many images per second `predict` reaches in a folder, and the share of each step.

    python benchmarks/folder.py --frames FOLDER --model resnet18.onnx --before CHECKOUT

Every run is a fresh process that predicts the first images of FOLDER, small color frames of one face each,
and measures the seconds without its start: with several images at a time, with one at a time, without
drawings, and with the package in CHECKOUT, an earlier version, in alternation. Writes folder.json, folder.md.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results
from _common.versions import CHECKOUT, run_version
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schemas import IBUG68
from landmarks_fastai.utils.images import read_image
from landmarks_fastai.visualization.landmarks import draw_landmarks
from landmarks_fastai.visualization.saving import encode_png

RUNS = 5
IMAGES, MANY_IMAGES = 150, 1000
STEP_IMAGES = 100
DRAWING_SIZE, DRAWN_FACE = (1920, 1080), 600
"""Size of the large image, and width in pixels of the face with 68 landmarks that is drawn on it."""

PREDICT = """
import json, sys, tempfile, time
from pathlib import Path
from landmarks_fastai.commands.predict import predict_images
from landmarks_fastai.commands.prediction_folder import Existing, open_folder
from landmarks_fastai.commands.prediction_outputs import Outputs
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.utils.interrupt import Interrupt

frames, model, count, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
images = sorted((Path(frames) / "images").iterdir())[:count]
try:
    from landmarks_fastai.commands.prediction_pipeline import sessions_for
except ImportError:  # an earlier version
    from contextlib import nullcontext as sessions_for
with sessions_for(count if options.get("threads") != 1 else 1):
    predictor, detector = Predictor.open(model, "cpu"), open_detector("centerface")

def predict(images):
    out, outputs = Path(tempfile.mkdtemp()), Outputs(json=False, csv=True)
    with open_folder(out, {}, outputs, Existing.REFUSE) as folder:
        summary = predict_images(predictor, images, folder, detector=detector, interrupt=Interrupt(),
                                 found=lambda result: None, failed=print, **options)
        folder.finish(outputs, predictor.schema, False)
    assert summary.predicted == len(images)

predict(images[:10])
start = time.perf_counter()
predict(images)
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text()  # of Linux
memory = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({"rate": count / seconds, "memory": memory}))
"""

MODES: dict[str, dict[str, Any]] = {
    "several images at a time": {},
    "one image at a time": {"threads": 1},
    "several at a time, --no-draw": {"draw": False},
}
BEFORE = "version before"


def measure_rates(frames: Path, model: Path, before: Path | None) -> dict[str, list[float]]:
    """Return the images per second of each mode and run."""
    rates: dict[str, list[float]] = {}
    for _ in range(RUNS):
        for name, options in MODES.items():
            result = run_version(CHECKOUT, PREDICT, frames, model, IMAGES, json.dumps(options))
            rates.setdefault(name, []).append(result["rate"])
        if before is not None:
            result = run_version(before, PREDICT, frames, model, IMAGES // 2, "{}")
            rates.setdefault(BEFORE, []).append(result["rate"])
        print({name: round(values[-1], 1) for name, values in rates.items()}, flush=True)
    return rates


def measure_memory(frames: Path, model: Path) -> dict[str, float]:
    """Return the peak memory in MiB by the number of images."""
    return {
        str(count): run_version(CHECKOUT, PREDICT, frames, model, count, "{}")["memory"]
        for count in (IMAGES, MANY_IMAGES)
    }


def measure_steps(frames: Path, model: Path) -> dict[str, list[float]]:
    """Return the milliseconds per image of each step, one after the other in one thread, for each run."""
    predictor, detector = Predictor.open(model, "cpu"), open_detector("centerface")
    paths = sorted((frames / "images").iterdir())[:STEP_IMAGES]
    steps: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        start = time.perf_counter()
        results = [function(*each) for each in zip(*arguments, strict=True)]
        steps.setdefault(name, []).append(1000 * (time.perf_counter() - start) / len(results))
        return results

    for run in range(RUNS + 1):
        images = timed("read and decode", read_image, paths)
        crops = timed("detect the face", lambda image: detector(image).crops, images)
        landmarks = timed(
            "landmarks, with refinement",
            lambda *pair: predictor.predict_crops(*pair, refine=predictor.default_refine),
            images,
            crops,
        )
        drawn = timed("draw", draw_landmarks, images, landmarks)
        timed("encode as PNG", encode_png, drawn)
        if run == 0:
            steps.clear()  # the first run warms up
    return steps


def measure_drawing() -> dict[str, list[float]]:
    """Return the milliseconds to draw 68 landmarks on a large image, with and without a copy of it."""
    image = np.full((DRAWING_SIZE[1], DRAWING_SIZE[0], 3), 120, np.uint8)
    landmarks = Landmarks.from_points(_face_points() * DRAWN_FACE + (300, 250), IBUG68)
    times: dict[str, list[float]] = {}
    for _ in range(4 * RUNS):
        for name, in_place in (("on a copy", False), ("in place", True)):
            start = time.perf_counter()
            draw_landmarks(image, landmarks, in_place=in_place)
            times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
    return times


def _face_points() -> NDArray[np.float64]:
    """Return (68, 2) points in a square of side 1, at about the places of the landmarks of a face."""
    angles = np.linspace(0, np.pi, 17)
    jaw = np.stack([0.5 - 0.5 * np.cos(angles), 0.35 + 0.65 * np.sin(angles)], axis=1)

    def ring(x: float, y: float, width: float, height: float, count: int) -> NDArray[np.float64]:
        turns = np.pi - 2 * np.pi * np.arange(count) / count
        return np.stack([x + width * np.cos(turns), y - height * np.sin(turns)], axis=1)

    brows = [np.stack([np.linspace(x, x + 0.3, 5), np.full(5, 0.15)], axis=1) for x in (0.12, 0.58)]
    bridge = np.stack([np.full(4, 0.5), np.linspace(0.3, 0.5, 4)], axis=1)
    nostrils = np.stack([np.linspace(0.4, 0.6, 5), np.full(5, 0.56)], axis=1)
    eyes = [ring(x, 0.3, 0.1, 0.04, 6) for x in (0.3, 0.7)]
    mouth = [ring(0.5, 0.75, 0.2, 0.08, 12), ring(0.5, 0.75, 0.14, 0.03, 8)]
    return np.concatenate([jaw, *brows, bridge, nostrils, *eyes, *mouth])


def measure_encoding(frames: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds and kB per image of the PNG encoder, and of Pillow's at two levels and as JPEG."""
    images = [read_image(path) for path in sorted((frames / "images").iterdir())[:STEP_IMAGES]]
    with tempfile.TemporaryDirectory() as folder:

        def save(image: NDArray[np.uint8], suffix: str, **options: Any) -> int:
            path = Path(folder, f"image{suffix}")
            Image.fromarray(image).save(path, **options)
            return path.stat().st_size

        encoders: dict[str, Callable[[NDArray[np.uint8]], int]] = {
            "this package, PNG": lambda image: len(encode_png(image)),
            "Pillow, PNG, level 6 (before)": lambda image: save(image, ".png"),
            "Pillow, PNG, level 1": lambda image: save(image, ".png", compress_level=1),
            "Pillow, JPEG, quality 95": lambda image: save(image, ".jpg", quality=95, subsampling=0),
        }
        result = {}
        for name, encode in encoders.items():
            times = []
            for _ in range(RUNS):
                start = time.perf_counter()
                sizes = [encode(image) for image in images]
                times.append(1000 * (time.perf_counter() - start) / len(images))
            result[name] = {"ms": float(np.median(times)), "kB": float(np.mean(sizes) / 1000)}
    return result


def render(results: Results) -> str:
    """Return the page."""
    setting, rates, steps = results["setting"], results["rates"], results["steps"]
    base = rates.get(BEFORE, rates["one image at a time"])
    rate_rows = [
        [
            name,
            f"{np.median(values):.0f} ({min(values):.0f}, {max(values):.0f})",
            f"{np.median(np.array(values) / np.array(base)):.1f}",
        ]
        for name, values in rates.items()
    ]
    total = sum(float(np.median(values)) for values in steps.values())
    step_rows = [
        [name, f"{np.median(values):.1f}", f"{100 * np.median(values) / total:.0f} %"]
        for name, values in steps.items()
    ]
    encoding = [[name, f"{one['ms']:.1f}", f"{one['kB']:.0f}"] for name, one in results["encoding"].items()]
    drawing = ", ".join(f"{np.median(values):.1f} ms {name}" for name, values in results["drawing"].items())
    few, many = results["memory"].items()
    return markdown_page(
        "Images per second of `predict` in a folder",
        f"`python benchmarks/folder.py`: color frames of about 200 × 200 px with one face each (faces68);"
        f" {setting['machine']}, {setting['cores']} cores, {setting['model']}, detector CenterFace, default"
        f" refinement. Medians of {RUNS} runs in alternation (minimum, maximum), without the start of the"
        " process.",
        markdown_table(["", "images per second", "ratio"], rate_rows),
        f"The ratio is to the last row: {setting['before']}." if BEFORE in rates else "",
        f"Peak memory: {few[1]:.0f} MiB for {int(few[0]):,} images, {many[1]:.0f} MiB for {int(many[0]):,}.",
        "## Shares of the steps",
        "Milliseconds per image if every step runs alone; detection and landmarks use both cores then.",
        markdown_table(["step", "ms", "share"], step_rows),
        "## Drawings",
        f"Drawing 68 landmarks of a face of {DRAWN_FACE} px on {DRAWING_SIZE[0]} × {DRAWING_SIZE[1]} px:"
        f" {drawing}.",
        "PNG remains the format: drawings are exact, and keep their names.",
        markdown_table(["encoder", "ms", "kB"], encoding),
    )


FILES = ResultFiles("folder", render)


def main() -> None:
    """Measure everything, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_frames()
    parser.add_argument(
        "--model", required=True, type=Path, help="an .onnx file, which every version can open"
    )
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--before-name", default="an earlier version", help="its description in the page")
    options, files = parser.parse()
    frames, model = options.frames.resolve(), options.model.resolve()
    files.write(
        {
            "setting": {
                "machine": describe_machine(),
                "cores": os.cpu_count(),
                "model": model.name,
                "before": options.before_name,
            },
            "rates": measure_rates(frames, model, options.before),
            "steps": measure_steps(frames, model),
            "drawing": measure_drawing(),
            "encoding": measure_encoding(frames),
            "memory": measure_memory(frames, model),
        }
    )


if __name__ == "__main__":
    main()
