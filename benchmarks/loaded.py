"""Measure training and prediction beside processes that keep the processors busy.

    python benchmarks/loaded.py

Compares the default (threads that sleep soon while they wait, and a number of threads that is chosen by
measurement) with fixed threads that spin, which is the default of torch's OpenMP and of ONNX Runtime. All
four measured processes exist at once, and are asked in turn to compute for some seconds while the others
sleep. The busy processes are started by this script. Writes loaded.json and loaded.md; what is in loaded.json
is not measured again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from _common.arguments import BenchmarkParser
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results, run_missing

from landmarks_fastai.utils.processors import SPIN_VARIABLE, SPINS, available_processors

BUSY = (0, 1, 2, 4)
ROUNDS = 5
SECONDS = {"training": 2.0, "prediction": 0.5}
LIMIT = 1.3
KINDS = [(task, version) for task in SECONDS for version in ("before", "after")]


def train_worker(version: str) -> Iterator[Results]:
    """Yield the images per second of training, and the number of threads, each time that it is asked."""
    from _common.training import new_learner
    from fastai.callback.core import Callback, CancelFitException

    from landmarks_fastai.config.loading import load_config
    from landmarks_fastai.data.sources import load_dataset
    from landmarks_fastai.data.splits import split_dataset
    from landmarks_fastai.training.reporting import EpochLog, SilentReporter
    from landmarks_fastai.training.threads import ChooseThreads

    class Watch(Callback):
        """Ends the fit after some seconds, and computes the rate without the first iteration."""

        order = 100

        def after_batch(self) -> None:
            """Note the time."""
            times.append(time.perf_counter())
            if times[-1] - times[0] > SECONDS["training"] and len(times) > 2:
                raise CancelFitException

    config = load_config("default", {"data.source": "synthetic", "data.count": 400, "data.multiplier": 100})
    dataset = load_dataset(config.data, seed=0)
    split = split_dataset(dataset, "random", 0.2, 0)
    learn = new_learner(config, dataset, split.train, split.valid)
    fixed = available_processors() if version == "before" else None
    while True:
        times: list[float] = []
        chooser = ChooseThreads(fixed, lambda text: None)
        with learn.no_logging():
            learn.fit(1, cbs=[chooser, EpochLog(SilentReporter()), Watch()])
        rate = learn.dls.train.bs * (len(times) - 1) / (times[-1] - times[0])
        yield {"rate": rate, "threads": chooser.count}


def prediction_worker(version: str) -> Iterator[Results]:
    """Yield the crops per second of ONNX Runtime, one at a time, each time that it is asked."""
    import numpy as np
    import torch

    from landmarks_fastai.export.onnx import export_onnx
    from landmarks_fastai.model_files.loading import open_model
    from landmarks_fastai.utils.onnx_runtime import import_onnxruntime, session_options

    model = open_model("resnet18")
    assert model.network is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model.network, model.header, path)
        runtime = import_onnxruntime()
        options = runtime.SessionOptions() if version == "before" else session_options()
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    size = model.header.input_size
    crop = {"image": np.zeros((1, model.header.channels, size, size), np.float32)}
    torch.set_num_threads(1)
    while True:
        session.run(None, crop)
        started, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < SECONDS["prediction"]:
            session.run(None, crop)
            count += 1
        yield {"rate": count / elapsed, "threads": options.intra_op_num_threads}


class Worker:
    """A process that measures when it is asked."""

    def __init__(self, task: str, version: str) -> None:
        policy = {SPIN_VARIABLE: str(SPINS)} if version == "after" else {}
        unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", task, version],
            env=unset | policy,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self) -> Results:
        """Return one measurement."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        result: Results = json.loads(self.process.stdout.readline())
        return result

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def work(task: str, version: str) -> None:
    """Measure once for each line of stdin."""
    results = {"training": train_worker, "prediction": prediction_worker}[task](version)
    for _ in sys.stdin:
        print(json.dumps(next(results)), flush=True)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Within the block, run processes that compute with one thread each."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(workers: dict[tuple[str, str], Worker], busy: int) -> Results:
    """Return the measurements of all rounds beside a number of busy processes."""
    results: Results = {" ".join(kind): [] for kind in KINDS}
    with busy_processes(busy):
        for _ in range(ROUNDS):
            for kind in KINDS:
                results[" ".join(kind)].append(workers[kind].measure())
    return results


def rate_of(results: Results, busy: int, kind: str) -> float:
    """Return the median rate."""
    return float(median(row["rate"] for row in results[f"beside {busy}"][kind]))


def slowdown_of(results: Results, busy: int, task: str, version: str) -> float:
    """Return how many times lower the rate is than the fair share of the best rate on the idle machine."""
    processors = int(results["setting"]["processors"])
    idle = max(rate_of(results, 0, f"{task} {name}") for name in ("before", "after"))
    share = min(1.0, processors / (processors + busy))
    return idle * share / rate_of(results, busy, f"{task} {version}")


def render(results: Results) -> str:
    """Return the page."""
    rows = []
    for task in SECONDS:
        for busy in BUSY:
            if f"beside {busy}" not in results:
                continue
            cells = [task, str(busy)]
            for version in ("before", "after"):
                kind = f"{task} {version}"
                rate = rate_of(results, busy, kind)
                cells += [f"{rate:,.0f}", f"{slowdown_of(results, busy, task, version):.2f}"]
            used = [row["threads"] for row in results[f"beside {busy}"][f"{task} after"]]
            rows.append([*cells, ", ".join(str(count) for count in sorted(set(used)))])
    slowdowns = [
        slowdown_of(results, busy, task, "after")
        for task in SECONDS
        for busy in BUSY
        if f"beside {busy}" in results
    ]
    processors = results["setting"]["processors"]
    return markdown_page(
        "Training and prediction on a loaded machine",
        "`python benchmarks/loaded.py`: images per second of training (64 px, batches of 32, default config)"
        f" and of prediction (one crop at a time, ONNX Runtime) on {processors} processors, beside processes"
        f" that compute all the time. Medians of {ROUNDS} rounds, in which the four processes that are"
        " compared take turns.",
        "*Slowdown*: the fair share divided by the measured rate; below 1, the rate is higher than the fair"
        f" share. Beside n busy processes, the fair share is {processors} / ({processors} + n) of the best"
        f" rate on the idle machine, because each of our {processors} threads has the same claim as each"
        " process."
        f" The largest slowdown of the default is {max(slowdowns):.2f}; the aim is at most {LIMIT}.",
        markdown_table(
            [
                "task",
                "busy processes",
                "before: images/s",
                "slowdown",
                "default: images/s",
                "slowdown",
                "threads",
            ],
            rows,
        ),
        "*Before*: as many threads as processors, which spin while they wait, as torch's OpenMP and ONNX"
        " Runtime do by default. *Default*: threads that sleep when they have waited for about 0.3 ms"
        f" (`{SPIN_VARIABLE}={SPINS}`, which the command line sets), in ONNX Runtime at once"
        " (`session.intra_op.allow_spinning=0`), and `training.threads` chosen by measurement before"
        " training.",
    )


FILES = ResultFiles("loaded", render)


def main() -> None:
    """Measure what is missing."""
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:4])
        return
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument(
        "--busy", type=int, nargs="*", default=BUSY, help="numbers of busy processes to measure"
    )
    options, files = parser.parse()
    setting: Results = {"processors": available_processors()}
    with ExitStack() as stack:
        workers: dict[tuple[str, str], Any] = {}
        for kind in KINDS:
            workers[kind] = Worker(*kind)
            stack.callback(workers[kind].close)
        for worker in workers.values():
            worker.measure()  # starts up
        run_missing(
            files, setting, [((f"beside {busy}",), partial(measure, workers, busy)) for busy in options.busy]
        )


if __name__ == "__main__":
    main()
