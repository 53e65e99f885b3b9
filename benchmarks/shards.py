"""Measure `predict` into Parquet shards: Ray against one process, and a plan for 100 million photos.

    python benchmarks/shards.py --folder /somewhere/with/100/MB

Predicts a folder of tars of synthetic faces with the engine `local` on one processor, and with the engine
`ray` and 1 and 2 workers of one processor each, in turn. The rate is that from the time when all workers have
begun until the first of them has nothing left to do: it does not include the start of Ray and the opening of
the models, which take the same time however many images there are. Each measurement runs in a process of its
own. Writes shards.json and shards.md; rounds that are in shards.json are not measured again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from _common.arguments import BenchmarkParser
from _common.face_archives import encoded_faces, write_tar
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.memory import PeakMemory
from _common.results import ResultFiles, Results, run_missing

from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from landmarks_fastai.batch_inference.prediction import ShardSummary

ROUNDS = 5
TARS, PER_TAR = 8, 50
"""Number of tars, which 1 and 2 workers can share equally, and of the images in each."""

SETTINGS = {"local": ("local", None), "ray 1": ("ray", 1), "ray 2": ("ray", 2)}
"""Engine and number of workers by the name of the setting."""


PHOTOS = 100_000_000
PER_SHARD = 10_000
PRICE = 0.04
"""Assumed price in USD of a processor for an hour, and of a terabyte stored for a month."""

STORAGE_PRICE = 23.0
PHOTO_KILOBYTES = 100
LOST = 0.02
"""Assumed fraction of the shards that are predicted twice, because a machine was taken away meanwhile."""


def predict(engine: str, workers: int | None, source: Path, out: Path) -> Results:
    """Predict the tars of a folder, and return the steady rate in images per second."""
    from landmarks_fastai.batch_inference.engines.base import Run
    from landmarks_fastai.batch_inference.prediction import Job
    from landmarks_fastai.commands.predict_shards import open_shards, predict_shards
    from landmarks_fastai.commands.prediction_folder import Existing
    from landmarks_fastai.inference.face_detection import DEFAULT_DETECTOR
    from landmarks_fastai.model_files.discovery import resolve_models

    models = resolve_models([Path("resnet18")])
    job = Job(str(out), tuple(map(str, models)), "cpu", False, "auto", DEFAULT_DETECTOR, "auto", 0.0)
    summaries: list[ShardSummary] = []
    start = time.monotonic()
    with (
        PeakMemory().sampled() as memory,
        open_shards(str(out), [str(source)], {}, Existing.OVERWRITE, PER_TAR, print) as plan,
    ):
        run = Run(job, plan, range(len(plan)), lambda: False, workers)
        predict_shards(engine, run, summaries.append)
    images = sum(one.total for one in summaries)
    files = (out / "landmarks").glob("*.parquet")
    return {
        "rate": round(steady_rate(summaries, workers or 1), 2),
        "images": images,
        "seconds": round(time.monotonic() - start, 2),
        "driver_mib": memory.anonymous,
        "kilobytes_per_image": round(sum(file.stat().st_size for file in files) / images / 1000, 3),
    }


def steady_rate(summaries: Sequence[ShardSummary], workers: int) -> float:
    """Return the images per second from the time when all workers have begun until the first ends."""
    begin = sorted(one.begin for one in summaries)[workers - 1]
    end = sorted(one.begin + one.seconds for one in summaries)[-workers]
    images = 0.0
    for one in summaries:
        overlap = min(end, one.begin + one.seconds) - max(begin, one.begin)
        images += one.total * max(0.0, overlap) / one.seconds
    return images / (end - begin)


def measure(folder: Path, setting: str) -> Results:
    """Measure a setting in a process of its own, in which each worker has one processor."""
    from landmarks_fastai.inference.face_detection import DEFAULT_DETECTOR, open_detector

    source = folder / "tars"
    if not source.is_dir():
        source.mkdir(parents=True)
        faces = encoded_faces(open_detector(DEFAULT_DETECTOR))
        for number in range(TARS):
            write_tar(source / f"{number:05d}.tar", faces, PER_TAR)
    command = [sys.executable, __file__, "--folder", str(folder), "--setting", setting]
    one = {"LANDMARKS_FASTAI_PROCESSORS": "1", "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | one)
    shutil.rmtree(folder / "landmarks")
    result: Results = json.loads(output.stdout.splitlines()[-1])
    return result


def measure_round(folder: Path) -> Results:
    """Measure all settings, one after the other."""
    return {setting: measure(folder, setting) for setting in SETTINGS}


def median_of(results: Results, setting: str, what: str) -> float:
    """Return the median over the rounds."""
    return median(float(measured[setting][what]) for measured in results["rounds"].values())


def render(results: Results) -> str:
    """Return the page."""
    single = median_of(results, "local", "rate")
    rows = []
    for setting, (_, workers) in SETTINGS.items():
        rates = [measured[setting]["rate"] for measured in results["rounds"].values()]
        ratios = [
            measured[setting]["rate"] / measured["local"]["rate"] / (workers or 1)
            for measured in results["rounds"].values()
        ]
        rows.append(
            [
                f"`{setting}`",
                f"{median(rates):.1f}",
                f"{min(rates):.1f} to {max(rates):.1f}",
                f"{median(ratios):.2f}",
                f"{median_of(results, setting, 'driver_mib'):.0f} MiB",
            ]
        )
    return markdown_page(
        "Parquet shards and 100 million photos",
        f"`python benchmarks/shards.py`: {TARS} tars of {PER_TAR} JPEGs of 320 x 240 px with one face each,"
        f" predicted by the released ResNet18, one processor per process or worker; medians of"
        f" {format_count(len(results['rounds']), 'round')} in which the settings alternate;"
        f" {results['setting']['machine']}.",
        markdown_table(
            [
                "engine and workers",
                "images/s",
                "range",
                "efficiency",
                "memory of the driver",
            ],
            rows,
        ),
        "Rate: from the time when all workers have begun until the first has nothing left to do. Efficiency:"
        " the rate divided by the number of workers and by the rate of the engine `local` on one processor in"
        " the same round.",
        "## 100 million photos",
        _plan(single, median_of(results, "local", "kilobytes_per_image")),
    )


def _plan(rate: float, kilobytes: float) -> str:
    """Return the plan on paper, from the measured rate of one processor and size of the results."""
    hours = PHOTOS * (1 + LOST) / rate / 3600
    shards = PHOTOS // PER_SHARD
    rows = [
        [f"{processors:,}", f"{hours / processors / 0.85:,.0f} h", f"{hours / 0.85 * PRICE:,.0f} USD"]
        for processors in (64, 256, 1024)
    ]
    return "\n\n".join(
        [
            f"With the rate of one processor, r = {rate:.1f} images per second, the part of the shards that"
            f" are predicted twice, l = {LOST:.0%} (assumed), and an efficiency of e = 0.85"
            " (assumed for any number of workers):",
            "    hours = 100,000,000 x (1 + l) / (r x e x processors x 3,600)\n"
            f"    cost  = hours x processors x {PRICE} USD",
            markdown_table(["processors", "duration", "cost"], rows),
            f"The price of a processor for an hour, {PRICE} USD, is an assumption; put in your own. Larger"
            " photos take longer to decode: measure a few tars of yours first, the command prints the rate of"
            " each shard.",
            f"- Shards: {shards:,} tars of {PER_SHARD:,} photos, of about"
            f" {PER_SHARD * PHOTO_KILOBYTES / 1e6:,.0f} GB each at {PHOTO_KILOBYTES} kB per photo;"
            f" {PER_SHARD / rate / 60:.0f} minutes each on one processor, which is what a lost machine"
            " costs.\n"
            f"- Results: {kilobytes:.2f} kB per image with one face (measured), so"
            f" {PHOTOS * kilobytes / 1e6:,.0f} GB in {shards:,} Parquet files;"
            f" {PHOTOS * kilobytes / 1e9 * STORAGE_PRICE:,.0f} USD a month at {STORAGE_PRICE:.0f} USD per TB"
            " (assumed).\n"
            f"- Requests: one read and one write per shard, and one more for the rejected images:"
            f" {3 * shards:,}.\n"
            f"- Memory: that of the model and of the images in progress, per worker; the driver holds 8 bytes"
            " per shard.",
        ]
    )


FILES = ResultFiles("shards", render)


def main() -> None:
    """Measure the settings in turn, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--folder", type=Path, default=Path("shards-data"), help="folder for the tars")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="number of rounds in total")
    parser.add_argument("--setting", choices=list(SETTINGS), help="measure one setting here, and print it")
    options, files = parser.parse()
    folder = options.folder.absolute()
    if options.setting is not None:
        engine, workers = SETTINGS[options.setting]
        print(json.dumps(predict(engine, workers, folder / "tars", folder / "landmarks")))
        return
    runs = [
        (("rounds", str(number)), partial(measure_round, folder)) for number in range(1, options.rounds + 1)
    ]
    run_missing(files, {"machine": describe_machine()}, runs)


if __name__ == "__main__":
    main()
