"""Measure reading, start-up, training and memory at 3,000, 30,000 and 300,000 rows.

    python benchmarks/scale.py --folder /somewhere/with/25/GB

Draws pictures of 30 synthetic faces each, in a CSV with one row per face. Each size is measured in a process
of its own: reading the images (crops of 128 px, RGB), starting again from the cache, and some iterations of
the config `quick`, from which the duration of an epoch follows. Memory is the peak of anonymous memory, which
the system cannot reclaim: pages of the memory-mapped cache file are counted separately. Writes scale.json and
scale.md; results that are in scale.json are not measured again. The folder is removed at the end.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results, run_missing
from PIL import Image

from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces

SIZES = (3_000, 30_000, 300_000)
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


class PeakMemory:
    """Peak of the anonymous and of the file-backed memory of this process, sampled 20 times a second."""

    def __init__(self) -> None:
        self.anonymous = self.file = 0
        self._ended = threading.Event()

    @contextmanager
    def sampled(self) -> Iterator[PeakMemory]:
        """Sample within the block."""
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            values = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "Rss" in line}
            self.anonymous = max(self.anonymous, int(values["RssAnon"]) // 1024)
            self.file = max(self.file, int(values["RssFile"]) // 1024)


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


PHASES = {"read": read, "start": read, "train": train}


def measure(folder: Path, rows: int) -> Results:
    """Measure all phases of one size, each in a process of its own."""
    data = write_pictures(folder, rows)
    results: Results = {}
    for phase in PHASES:
        command = [sys.executable, __file__, "--folder", str(folder), "--phase", phase, "--rows", str(rows)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[phase] = json.loads(output.splitlines()[-1])
    shutil.rmtree(folder / "cache")
    data.unlink()
    return results


def render(results: Results) -> str:
    """Return the page."""
    rows = []
    for name, result in results.items():
        if name == "setting":
            continue
        reading, start, training = (result[phase] for phase in PHASES)
        epoch = training["iterations"] * training["milliseconds_per_iteration"] / 1000
        rows.append(
            [
                f"{reading['rows']:,}",
                f"{reading['seconds']:,.0f} s",
                f"{reading['rows'] / reading['seconds']:,.0f}",
                f"{reading['anonymous_mib']:,} MiB",
                f"{start['seconds']:.1f} s",
                f"{training['milliseconds_per_iteration']:.0f} ms",
                f"{epoch:,.0f} s",
                f"{training['anonymous_mib']:,} MiB",
            ]
        )
    header = ["rows", "reading", "rows/s", "memory", "from the cache", "iteration", "epoch", "memory"]
    return markdown_page(
        "Size of the data set",
        "`python benchmarks/scale.py --folder FOLDER`: pictures of 30 synthetic faces each, listed in a CSV,"
        f" read as crops of 128 px, RGB; {results['setting']['machine']}.",
        markdown_table(header, rows),
        "Reading: decoding the pictures, each once, and cropping the rows into the cache. From the cache: the"
        " next start, without the import of the libraries. Iteration: median of"
        f" {ITERATIONS} iterations of the config `quick` with one thread; epoch: the number of iterations"
        " times this duration. Memory: the peak of the anonymous memory of the process, while reading and"
        " while training; the memory-mapped images are in the page cache, which the system shrinks when it"
        " needs the memory. The machine was also used by other programs, so that durations are upper bounds.",
    )


FILES = ResultFiles("scale", render)


def main() -> None:
    """Measure each size, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--folder", type=Path, required=True, help="folder for pictures and cache")
    parser.add_argument("--rows", type=int, help="measure this number of rows only")
    parser.add_argument("--phase", choices=list(PHASES), help="measure one phase here, and print the result")
    options, files = parser.parse()
    if options.phase is not None:
        data = options.folder / f"{options.rows}.csv"
        print(json.dumps(PHASES[options.phase](data, options.folder / "cache")))
        return
    sizes = SIZES if options.rows is None else (options.rows,)
    runs = [((str(rows),), partial(measure, options.folder, rows)) for rows in sizes]
    run_missing(files, {"machine": describe_machine()}, runs)
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
