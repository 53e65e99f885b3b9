"""Measure how long `train --minutes` takes, on an idle machine and on one that becomes busy half-way.

    python benchmarks/time_budget.py

Trains the config `quick` on synthetic faces with the command line, in a new process each time, and measures
the time from its start to its end, with three seeds each. Writes time_budget.json and time_budget.md; what is
in time_budget.json is not measured again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from threading import Timer

import pandas as pd
from _common.arguments import BenchmarkParser
from _common.markdown import markdown_page, markdown_table
from _common.results import Measurement, ResultFiles, Results, run_missing
from _common.versions import CHECKOUT

from landmarks_fastai.utils.processors import available_processors

MINUTES = 1.0
BUSY = {"idle": 0, "2 busy processes in the second half": 2}
SEEDS = (0, 1, 2)
LIMIT = 0.05


def measure(busy: int, seed: int) -> Results:
    """Train, and return the seconds, the epochs, the RMSE, and the last learning rate / the highest."""
    busy_loop = [sys.executable, "-c", "while True: pass"]
    started_processes: list[subprocess.Popen[bytes]] = []

    def begin_to_compute() -> None:
        started_processes.extend(subprocess.Popen(busy_loop) for _ in range(busy))

    timer = Timer(60 * MINUTES / 2, begin_to_compute)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = ["--config", "quick", "--data", "synthetic", "--minutes", str(MINUTES), "--out", str(run)]
        options += ["--set", f"seed={seed}"]
        command = [sys.executable, str(CHECKOUT / "cli.py"), "train", *options]
        timer.start()
        started = time.monotonic()
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
            seconds = time.monotonic() - started
        finally:
            timer.cancel()
            timer.join()  # it may just be starting processes
            for process in started_processes:
                process.kill()
                process.wait()
        history = pd.read_csv(run / "history.csv")
    return {
        "seconds": round(seconds, 2),
        "epochs": len(history),
        "rmse": round(float(history["rmse"].min()), 3),
        "last_lr": float(history["lr"].iloc[-1] / history["lr"].max()),
    }


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    budget = 60 * setting["minutes"]
    rows = [
        [
            name,
            seed,
            f"{row['seconds']:.1f}",
            f"{row['seconds'] / budget - 1:+.1%}",
            str(row["epochs"]),
            f"{row['last_lr']:.1e}",
            f"{row['rmse']:.2f}",
        ]
        for name, runs in results.items()
        if name != "setting"
        for seed, row in sorted(runs.items())
    ]
    header = ["machine", "seed", "seconds", "deviation", "epochs", "last learning rate / highest", "RMSE, px"]
    return markdown_page(
        "Training for a given time",
        "`python benchmarks/time_budget.py`: the duration of `train --config quick --data synthetic"
        f" --minutes {setting['minutes']:g}`, from the start of the process to its end, on"
        f" {setting['processors']} processors. The start, the data, checkpoints, evaluation and export are"
        " included.",
        markdown_table(header, rows),
        f"The aim is a deviation of at most {LIMIT:.0%}. The last epoch may be shorter than the others; the"
        " learning rate follows the fraction of the time, so that the schedule is complete in both cases.",
    )


FILES = ResultFiles("time_budget", render)


def main() -> None:
    """Measure what is missing."""
    parser = BenchmarkParser(__doc__, FILES)
    _, files = parser.parse()
    measurements: list[Measurement] = [
        ((case, str(seed)), partial(measure, busy, seed)) for seed in SEEDS for case, busy in BUSY.items()
    ]
    run_missing(files, {"minutes": MINUTES, "processors": available_processors()}, measurements)


if __name__ == "__main__":
    main()
