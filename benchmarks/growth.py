"""Measure how time and memory grow with the data set and with the number of predicted images.

    python benchmarks/growth.py --folder /somewhere/with/25/GB

Training at 3,000, 30,000 and 300,000 rows: draws pictures of 30 synthetic faces each, in a CSV with one row
per face. Each size is measured in processes of its own: reading the images (crops of 128 px, RGB), starting
again from the cache, and some iterations of the config `quick`, from which the duration of an epoch follows.
Prediction of 1,000, 10,000 and 100,000 images: a folder of tars of 1,000 JPEGs each, which are the same file
under different names, predicted into Parquet shards. Memory is the peak of anonymous memory, which the
system cannot reclaim: pages of the memory-mapped cache file are counted separately. Writes growth.json,
growth.md and growth.png; results that are in growth.json are not measured again. The folder is removed at the
end.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.face_archives import encoded_faces, write_tar
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.memory import PeakMemory
from _common.results import ResultFiles, Results, run_missing
from PIL import Image

from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.visualization.figures import new_figure, style_axes
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.style import STYLE

ROWS = (3_000, 30_000, 300_000)
IMAGES = (1_000, 10_000, 100_000)
PER_TAR = 1_000
COLUMNS, LINES = 6, 5
"""Faces along each side of a picture."""

CELL = 160
"""Side of a face in a picture, in pixels."""

DRAWN = 600
"""Number of different faces, of which each picture has a random selection."""

ITERATIONS = 20


def write_pictures(folder: Path, rows: int) -> Path:
    """Write pictures of 30 faces each and a CSV with one row per face; return its path."""
    path = folder / f"{rows}.csv"
    if path.is_file():
        return path
    faces = draw_synthetic_faces(DRAWN, seed=0, size=CELL)
    rng = np.random.default_rng(0)
    per_picture = COLUMNS * LINES
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"{name}_{axis}" for name in faces.schema.names for axis in "xy"]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *names])
        for number in range(rows // per_picture):
            chosen = rng.integers(0, DRAWN, per_picture)
            cells = faces.images[chosen].repeat(3, axis=3)
            cells[..., 2] = 255 - cells[..., 2]  # a color image
            picture = cells.reshape(LINES, COLUMNS, CELL, CELL, 3).transpose(0, 2, 1, 3, 4)
            image = picture.reshape(LINES * CELL, COLUMNS * CELL, 3)
            name = f"{number}.jpg"
            if not (folder / "images" / name).is_file():
                Image.fromarray(image).save(folder / "images" / name, quality=90)
            for cell, face in enumerate(chosen.tolist()):
                offset = np.array([cell % COLUMNS, cell // COLUMNS]) * CELL
                values = (faces.points[face] + offset).round(2).ravel().tolist()
                table.writerow([f"images/{name}", *("" if np.isnan(v) else v for v in values)])
    return path


def read(data: Path, cache: Path) -> Results:
    """Load the data set, and return the seconds and the peak memory."""
    from landmarks_fastai.config.options import DataConfig
    from landmarks_fastai.data.sources import load_dataset

    with PeakMemory().sampled() as memory:
        start = time.monotonic()
        dataset = load_dataset(DataConfig(source=str(data)), cache=cache)
        seconds = time.monotonic() - start
    return {"rows": len(dataset), "seconds": round(seconds, 2), "anonymous_mib": memory.anonymous}


def train(data: Path, cache: Path) -> Results:
    """Train for some iterations, and return seconds for an epoch, seconds until the first, and memory."""
    import torch
    from _common.training import new_learner
    from fastai.callback.core import Callback, CancelFitException

    from landmarks_fastai.config.loading import load_config
    from landmarks_fastai.data.sources import load_dataset

    class StopAfterIterations(Callback):
        """Ends the fit after `ITERATIONS`, and records when each of them ended."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def after_batch(self) -> None:
            """Record the time, and end the fit."""
            self.times.append(time.monotonic())
            if self.train_iter >= ITERATIONS:
                raise CancelFitException

    config = load_config("quick", {"data.source": str(data), "training.precision": "fp32"})
    torch.set_num_threads(1)  # two threads wait for each other on a machine that is also used by others
    with PeakMemory().sampled() as memory:
        start = time.monotonic()
        dataset = load_dataset(config.data, cache=cache)
        # a random split: the near-duplicates are measured in near_duplicates.py
        order = np.random.default_rng(0).permutation(len(dataset))
        valid, train_rows = np.sort(order[:100]), np.sort(order[100:])
        learn = new_learner(config, dataset, train_rows, valid)
        stop = StopAfterIterations()
        with learn.no_logging():
            learn.fit(2, cbs=[stop])
    iterations = len(learn.dls.train)
    step = float(np.median(np.diff(stop.times)))
    return {
        "start_seconds": round(stop.times[0] - start, 2),
        "milliseconds_per_iteration": round(1000 * step, 1),
        "iterations": iterations,
        "anonymous_mib": memory.anonymous,
        "file_mib": memory.file,
    }


def predict(images: Path, out: Path) -> Results:
    """Predict a folder of tars into Parquet shards; return seconds until the first image and in total."""
    with PeakMemory().sampled() as memory:
        start = time.monotonic()
        from landmarks_fastai.batch_inference.engines.base import Run
        from landmarks_fastai.batch_inference.prediction import Job
        from landmarks_fastai.commands.predict_shards import open_shards, predict_shards
        from landmarks_fastai.commands.prediction_folder import Existing
        from landmarks_fastai.inference.ensemble import open_predictors
        from landmarks_fastai.inference.face_detection import DEFAULT_DETECTOR, open_detector
        from landmarks_fastai.model_files.discovery import resolve_models

        models = resolve_models([Path("resnet18")])
        job = Job(str(out), tuple(map(str, models)), "cpu", False, "auto", DEFAULT_DETECTOR, "auto", 0.0)
        predictor = open_predictors(models, "cpu")
        detector = open_detector(DEFAULT_DETECTOR)
        with open_shards(str(out), [str(images)], {}, Existing.OVERWRITE, PER_TAR, print) as plan:
            opened = time.monotonic()
            run = Run(job, plan, range(len(plan)), lambda: False, None, predictor, detector)
            totals = predict_shards("local", run, lambda summary: None)
        seconds = time.monotonic() - opened
    return {
        "images": totals.images + totals.no_face + totals.unreadable,
        "faces": totals.faces,
        "start_seconds": round(opened - start, 2),
        "seconds": round(seconds, 2),
        "anonymous_mib": memory.anonymous,
    }


PHASES = {"read": read, "start": read, "train": train, "predict": predict}
TRAINING_PHASES = ("read", "start", "train")


def run_phase(phase: str, source: Path, target: Path) -> Results:
    """Run a phase in a process of its own, and return its results."""
    command = [sys.executable, __file__, "--phase", phase, str(source), str(target)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: Results = json.loads(output.splitlines()[-1])
    return result


def measure_phase(folder: Path, rows: int, phase: str) -> Results:
    """Measure a phase of training at one size; the last one removes the cache."""
    data, cache = write_pictures(folder, rows), folder / f"cache-{rows}"
    if phase != "read" and not cache.is_dir():
        read(data, cache)
    result = run_phase(phase, data, cache)
    if phase == TRAINING_PHASES[-1]:
        shutil.rmtree(cache)
        data.unlink()
    return result


def measure_prediction(folder: Path, images: int) -> Results:
    """Measure the prediction of a number of images."""
    from landmarks_fastai.inference.face_detection import DEFAULT_DETECTOR, open_detector

    folder.mkdir(parents=True, exist_ok=True)
    tar = folder / "faces.tar"
    if not tar.is_file():
        write_tar(tar, encoded_faces(open_detector(DEFAULT_DETECTOR)), PER_TAR)
    source = folder / f"images-{images}"
    source.mkdir(exist_ok=True)
    for number in range(images // PER_TAR):
        link = source / f"{number:05d}.tar"
        if not link.exists():
            link.hardlink_to(tar)
    result = run_phase("predict", source, folder / f"landmarks-{images}")
    for used in (source, folder / f"landmarks-{images}"):
        shutil.rmtree(used)
    return result


# --- page ----------------------------------------------------------------------------------------


def epoch_seconds(training: Results) -> float:
    """Return the duration of an epoch: its iterations times the duration of one."""
    return float(training["iterations"] * training["milliseconds_per_iteration"] / 1000)


def render(results: Results) -> str:
    """Return the page."""
    machine = results["setting"]["machine"]
    return markdown_page(
        "Growth",
        "`python benchmarks/growth.py --folder FOLDER`: how time and memory grow with the data set and with"
        f" the number of images; {machine}.",
        "![Duration of an epoch and of predictions, and memory, over the size](growth.png)",
        "## Training",
        "Pictures of 30 synthetic faces each, listed in a CSV, read as crops of 128 px, RGB.",
        _training_table(results.get("training", {})),
        "Reading: decoding the pictures, each once, and cropping the rows into the cache. From the cache: the"
        f" next start, without the import of the libraries. Iteration: median of {ITERATIONS} iterations of"
        " the config `quick` with one thread; epoch: the number of iterations times this duration. Memory:"
        " the peak of the anonymous memory of the process, while reading and while training; the"
        " memory-mapped images are in the page cache, which the system shrinks when it needs the memory.",
        "## Prediction",
        f"JPEGs of 320 x 240 px with one face each, in tars of {PER_TAR:,}, predicted by the released"
        " ResNet18 with `predict FOLDER --engine local`: one Parquet file per tar.",
        _prediction_table(results.get("prediction", {})),
        "Start: importing, opening the model and the detector, and listing the tars. Memory: the peak of the"
        " anonymous memory of the process.",
    )


def _training_table(sizes: Results) -> str:
    rows = []
    for _, phases in sorted(sizes.items(), key=lambda item: int(item[0])):
        reading, start, training = (phases.get(phase) for phase in TRAINING_PHASES)
        cells = []
        if reading:
            cells += [
                f"{reading['rows']:,}",
                f"{reading['seconds']:,.0f} s",
                f"{reading['rows'] / reading['seconds']:,.0f}",
                f"{reading['anonymous_mib']:,} MiB",
            ]
        cells += [f"{start['seconds']:.1f} s"] if start else []
        if training:
            cells += [
                f"{training['milliseconds_per_iteration']:.0f} ms",
                f"{epoch_seconds(training):,.0f} s",
                f"{training['anonymous_mib']:,} MiB",
            ]
        rows.append(cells)
    header = ["rows", "reading", "rows/s", "memory", "from the cache", "iteration", "epoch", "memory"]
    return markdown_table(header, rows)


def _prediction_table(sizes: Results) -> str:
    rows = [
        [
            f"{result['images']:,}",
            f"{result['start_seconds']:.1f} s",
            f"{result['seconds']:,.1f} s",
            f"{result['images'] / result['seconds']:.1f}",
            f"{result['anonymous_mib']:,} MiB",
        ]
        for _, result in sorted(sizes.items(), key=lambda item: int(item[0]))
    ]
    return markdown_table(["images", "start", "prediction", "images/s", "memory"], rows)


def draw_figure(path: Path, results: Results) -> None:
    """Plot durations, beside which a dotted line is proportional to the size, and memory."""
    training = {int(size): phases for size, phases in results.get("training", {}).items()}
    prediction = {int(size): result for size, result in results.get("prediction", {}).items()}
    trained = {size: phases["train"] for size, phases in training.items() if "train" in phases}
    started = {size: phases["start"] for size, phases in training.items() if "start" in phases}
    figure = new_figure(9.6, 6.0)
    (left, right), (below, last) = figure.subplots(2, 2)
    _draw_durations(left, {size: epoch_seconds(one) for size, one in trained.items()}, "an epoch")
    _draw_durations(left, {size: one["seconds"] for size, one in started.items()}, "start", 1)
    style_axes(left, "Training: duration", "rows", "s")
    _draw_memory(below, trained)
    style_axes(below, "Training: memory", "rows", "MiB")
    _draw_durations(right, {size: one["seconds"] for size, one in prediction.items()}, "all images")
    _draw_durations(right, {size: one["start_seconds"] for size, one in prediction.items()}, "start", 1)
    style_axes(right, "Prediction: duration", "images", "s")
    _draw_memory(last, prediction)
    style_axes(last, "Prediction: memory", "images", "MiB")
    save_png(path, figure)


def _draw_durations(axes: Any, seconds: dict[int, float], label: str, series: int = 0) -> None:
    if not seconds:
        return
    sizes = np.array(sorted(seconds))
    values = np.array([seconds[size] for size in sizes])
    color = STYLE.series[series]
    axes.loglog(sizes, values, "o-", color=color, label=label)
    if series == 0:
        axes.loglog(sizes, values[0] * sizes / sizes[0], ":", color=STYLE.ink, label="proportional")
    axes.legend(frameon=False, fontsize=STYLE.text_size)


def _draw_memory(axes: Any, results: dict[int, Results]) -> None:
    if not results:
        return
    sizes = sorted(results)
    axes.semilogx(sizes, [results[size]["anonymous_mib"] for size in sizes], "o-", color=STYLE.series[0])
    axes.set_ylim(0, 1.1 * max(results[size]["anonymous_mib"] for size in sizes))


FILES = ResultFiles("growth", render)


def main() -> None:
    """Measure each size, and write the page and the figure."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--folder", type=Path, default=Path("growth-data"), help="for pictures and caches")
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS, help="only these numbers of rows")
    parser.add_argument("--images", type=int, nargs="*", default=IMAGES, help="only these numbers of images")
    parser.add_argument("--phase", nargs=3, metavar=("PHASE", "SOURCE", "TARGET"), help="one phase, here")
    parser.add_argument("--keep", action="store_true", help="keep the folder, for what is missing")
    options, files = parser.parse()
    if options.phase is not None:
        phase, source, target = options.phase
        print(json.dumps(PHASES[phase](Path(source), Path(target))))
        return
    folder = options.folder.absolute()
    runs = [
        (("training", str(rows), phase), partial(measure_phase, folder, rows, phase))
        for rows in options.rows
        for phase in TRAINING_PHASES
    ]
    runs += [
        (("prediction", str(images)), partial(measure_prediction, folder, images))
        for images in options.images
    ]
    run_missing(files, {"machine": describe_machine()}, runs)
    draw_figure(files.folder / "growth.png", files.read())
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
