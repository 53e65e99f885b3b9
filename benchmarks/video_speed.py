r"""Measure how many frames per second `video` reaches, and the share of each step.

    python benchmarks/video_speed.py --source CLIP --model resnet18.onnx --int8 resnet18-int8.onnx \
        --before CHECKOUT

Copies the frames of CLIP, a video of one face, into frames of 640 x 360 and 1920 x 1080 pixels, with one and
with five faces. Annotates these videos in fresh processes, with this package and with that in CHECKOUT, an
earlier version, in alternation, and times each step alone. `--int8` is a quantized model (`export --precision
int8`). Writes video_speed.json, video_speed.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import Measurement, ResultFiles, Results, run_missing
from _common.versions import CHECKOUT, run_version
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import Tracker
from landmarks_fastai.video.conversion import RGBToYUV, rgb_frame
from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.video.writer import ENCODING, LARGE_ENCODING, LARGE_PIXELS, VideoWriter
from landmarks_fastai.visualization.landmarks import draw_landmarks

SIZES, FACES = ((640, 360), (1920, 1080)), (1, 5)
FPS = Fraction(25)
TIME_BASE = Fraction(1, 12800)
FRAMES, STEP_FRAMES = 100, 50
REPETITIONS = 8
RUNS = 5
BEFORE, NOW, INT8 = "before", "now", "landmarks in INT8"

ANNOTATE = """
import json, sys, time
from pathlib import Path
from landmarks_fastai.commands.video import annotate_video
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import Tracker

clip, model, out = map(Path, sys.argv[1:])
predictor, detector = Predictor.open(model, "cpu"), open_detector("centerface")
Tracker(predictor, detector)(next(iter(__import__("landmarks_fastai").read_video(clip))).image, 0.0)
start = time.perf_counter()
result = annotate_video(clip, out, Tracker(predictor, detector), overwrite=True)
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text()  # of Linux
memory = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({"rate": result.frames / seconds, "tracks": result.tracks, "memory": memory,
                  "kB": out.stat().st_size / 1000}))
"""

Picture = NDArray[np.uint8]
T = TypeVar("T")


def compose(frame: Picture, size: tuple[int, int], faces: int) -> Picture:
    """Return an image that shows a frame once, or in five of six tiles."""
    columns, rows = (1, 1) if faces == 1 else (3, 2)
    width, height = size[0] // columns, size[1] // rows
    scale = min(width / frame.shape[1], height / frame.shape[0])
    shown = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    tile = np.asarray(Image.fromarray(frame).resize(shown, Image.Resampling.BILINEAR))
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    for index in range(faces):
        left, top = index % columns * width, index // columns * height
        image[top : top + shown[1], left : left + shown[0]] = tile
    return image


def write_clip(source: Path, path: Path, size: tuple[int, int], faces: int, repetitions: int = 1) -> None:
    """Write the first frames of the source, some times over, as a video of a size and number of faces."""
    with VideoWriter(path, size, FPS, TIME_BASE) as writer:
        for repetition in range(repetitions):
            with VideoReader(source) as reader:
                for index, frame in enumerate(islice(reader, FRAMES)):
                    writer.write(compose(frame.image, size, faces), (repetition * FRAMES + index) / FPS)


def measure_rates(
    clip: Path, contenders: Mapping[str, tuple[Path, Path]], out: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each run; a contender is a folder with the package, and a model."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(RUNS):
        for name, (checkout, model) in contenders.items():
            results[name].append(run_version(checkout, ANNOTATE, clip, model, out))
    print(
        clip.stem, {name: [round(run["rate"]) for run in runs] for name, runs in results.items()}, flush=True
    )
    return results


def measure_steps(clip: Path, model: Path, out: Path) -> dict[str, float]:
    """Return the milliseconds of processor time per frame of each step, in all its threads."""
    predictor, detector = Predictor.open(model, "cpu"), open_detector("centerface")
    milliseconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], T]) -> T:
        start = time.process_time()
        result = step()
        milliseconds[name] = 1000 * (time.process_time() - start) / STEP_FRAMES
        return result

    with VideoReader(clip) as reader:
        frames = timed("decode, convert to RGB", lambda: list(islice(reader, STEP_FRAMES)))
        size = reader.size
    images, tracker = [frame.image for frame in frames], Tracker(predictor, detector)
    tracked = timed(
        "track, detect, landmarks", lambda: [tracker(frame.image, float(frame.time)) for frame in frames]
    )

    def draw() -> None:
        for image, faces in zip(images, tracked, strict=True):
            draw_landmarks(image, faces, in_place=True)

    timed("draw", draw)
    to_yuv = RGBToYUV()
    timed("convert to YUV", lambda: [to_yuv(rgb_frame(image)) for image in images])

    def encode() -> None:
        with VideoWriter(out, size, FPS, TIME_BASE) as writer:
            for frame in frames:
                writer.write(frame.image, frame.time)

    timed("encode", encode)
    milliseconds["encode"] -= milliseconds["convert to YUV"]
    return milliseconds


def measure_encoders(clip: Path, out: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds of processor time per frame, bytes per frame, and PSNR of both encodings."""
    with VideoReader(clip) as reader:
        images = [frame.image for frame in islice(reader, STEP_FRAMES)]
    to_yuv = RGBToYUV()
    frames = [to_yuv(rgb_frame(image)) for image in images]
    results: dict[str, dict[str, float]] = {}
    for encoding in (ENCODING, LARGE_ENCODING):
        runs = [_encode(frames, encoding, out) for _ in range(RUNS)]
        with av.open(str(out)) as video:
            errors = [
                np.mean((_luma(decoded) - _luma(frame)) ** 2)
                for decoded, frame in zip(video.decode(video=0), frames, strict=True)
            ]
        results[f"{encoding['preset']}, crf {encoding['crf']}"] = {
            "milliseconds": float(np.median(runs)),
            "kB": out.stat().st_size / 1000 / len(frames),
            "psnr": float(10 * np.log10(255**2 / np.mean(errors))),
        }
    return results


def _encode(frames: list[av.VideoFrame], encoding: dict[str, str], out: Path) -> float:
    """Encode frames, and return the milliseconds of processor time per frame."""
    started = time.process_time()
    with av.open(str(out), "w") as file:
        stream = file.add_stream("libx264", rate=FPS, options={**encoding, "threads": str(os.cpu_count())})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for time_stamp, frame in enumerate(frames):
            frame.pts = time_stamp
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return 1000 * (time.process_time() - started) / len(frames)


def _luma(frame: av.VideoFrame) -> NDArray[np.float64]:
    return np.asarray(frame.to_ndarray()[: frame.height], np.float64)


def render(results: Results) -> str:
    """Return the page."""
    setting, clips = results["setting"], results["clips"]
    rate_rows, step_rows = [], []
    for name, clip in clips.items():
        rates = {version: np.array([run["rate"] for run in runs]) for version, runs in clip["rates"].items()}
        now, memory = rates[NOW], max(run["memory"] for run in clip["rates"][NOW])
        cells = [
            f"{np.median(values):.0f} ({values.min():.0f}, {values.max():.0f})" for values in rates.values()
        ]
        ratio = [f"{np.median(now / rates[BEFORE]):.2f}"] if BEFORE in rates else []
        rate_rows.append([name, *cells, *ratio, f"{memory:.0f}"])
        total = sum(clip["steps"].values())
        step_rows.append(
            [name, *(f"{value:.1f} ({100 * value / total:.0f} %)" for value in clip["steps"].values())]
        )
    versions = next(iter(clips.values()))["rates"]
    steps = next(iter(clips.values()))["steps"]
    heads = [
        *(f"frames per second, {name}" for name in versions),
        *([f"{NOW} / {BEFORE}"] if BEFORE in versions else []),
    ]
    long = results.get("long")
    length = ""
    if long:
        length = (
            f"Memory does not grow with the length: {long['memory']:.0f} MiB for {long['repetitions']} times"
            f" as many frames of {long['name']}."
        )
    return markdown_page(
        "Frames per second of `video`, and the share of each step",
        f"`python benchmarks/video_speed.py`: videos of {FRAMES} frames with one or five faces;"
        f" {setting['machine']}, {setting['cores']} cores, {setting['model']}, detector CenterFace."
        f" Medians of {RUNS} runs in alternation (minimum, maximum), without the start of the process."
        f" Before: {setting['before']}. {NOW} / {BEFORE}: median of the ratios in the rounds.",
        markdown_table(["video", *heads, f"MiB, {NOW}"], rate_rows),
        length,
        "## Shares",
        "Milliseconds of processor time per frame, in all threads, if each step runs alone.",
        markdown_table(["video", *steps], step_rows),
        "x264 uses as many threads as processors. Its own choice, 1.5 per processor, takes processors from"
        " tracking.",
        *_describe_encoders(results.get("encoders", {})),
    )


def _describe_encoders(encoders: dict[str, dict[str, float]]) -> list[str]:
    if not encoders:
        return []
    rows = [
        [name, f"{row['milliseconds']:.1f}", f"{row['kB']:.1f}", f"{row['psnr']:.1f}"]
        for name, row in encoders.items()
    ]
    return [
        f"Frames of more than {LARGE_PIXELS / 1e6:.1f} megapixels are encoded with a faster preset, and with"
        f" the quality that gives about the same PSNR; {clip_name(SIZES[1], FACES[0])}:",
        markdown_table(["encoding", "ms per frame", "kB per frame", "PSNR of the luma, dB"], rows),
    ]


FILES = ResultFiles("video_speed", render)


def main() -> None:
    """Measure every video, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--source", required=True, type=Path, help="a video of one face")
    parser.add_argument(
        "--model", required=True, type=Path, help="an .onnx file, which every version can open"
    )
    parser.add_argument("--int8", type=Path, help="the same model in INT8")
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--before-name", default="an earlier version", help="its description in the page")
    options, files = parser.parse()
    source, model = options.source.resolve(), options.model.resolve()
    setting = {
        "machine": describe_machine(),
        "cores": os.cpu_count(),
        "model": model.name,
        "before": options.before_name,
    }

    contenders: dict[str, tuple[Path, Path]] = {}
    if options.before is not None:
        contenders[BEFORE] = options.before, model
    contenders[NOW] = CHECKOUT, model
    if options.int8 is not None:
        contenders[INT8] = CHECKOUT, options.int8.resolve()

    def measure(size: tuple[int, int], faces: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            clip, out = Path(folder, "clip.mp4"), Path(folder, "out.mp4")
            write_clip(source, clip, size, faces)
            rates = measure_rates(clip, contenders, out)
            return {"rates": rates, "steps": measure_steps(clip, model, out)}

    def measure_long() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            clip, out = Path(folder, "clip.mp4"), Path(folder, "out.mp4")
            write_clip(source, clip, SIZES[0], FACES[0], REPETITIONS)
            memory = run_version(CHECKOUT, ANNOTATE, clip, model, out)["memory"]
            return {"memory": memory, "repetitions": REPETITIONS, "name": clip_name(SIZES[0], FACES[0])}

    def measure_large() -> dict[str, dict[str, float]]:
        with tempfile.TemporaryDirectory() as folder:
            clip, out = Path(folder, "clip.mp4"), Path(folder, "out.mp4")
            write_clip(source, clip, SIZES[1], FACES[0])
            return measure_encoders(clip, out)

    measurements: list[Measurement] = [
        (("clips", clip_name(size, faces)), partial(measure, size, faces))
        for faces, size in product(FACES, SIZES)
    ]
    measurements += [(("long",), measure_long), (("encoders",), measure_large)]
    run_missing(files, setting, measurements)


def clip_name(size: tuple[int, int], faces: int) -> str:
    """Return the name of a video in the tables."""
    return f"{size[0]} × {size[1]}, {faces} {'face' if faces == 1 else 'faces'}"


if __name__ == "__main__":
    main()
