"""Compare the speed of training with that of the original project's loop, written plainly.

    python benchmarks/original_loop.py

The original loop is that of _common/original_loop.py; ours uses the config original-resnet18. Both take turns
on synthetic faces, with the same input and batch size. Writes original_loop.json and original_loop.md; what
is in original_loop.json is not measured again.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import torch
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.original_loop import OriginalLoop
from _common.results import Measurement, ResultFiles, Results, run_missing
from _common.step_times import ROUNDS, Step, TakeTurns, ratio
from _common.training import new_learner
from fastai.learner import Learner

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.training.reporting import EpochLog, SilentReporter

SETTINGS = ((64, 32, 2), (96, 32, 1), (224, 8, 1))
"""Input size, batch size, and iterations per round."""

LIMIT = 2.2


def original_step(size: int, batch_size: int, dataset: LandmarkDataset, learn: Learner) -> Step:
    """Return a step of the original loop."""
    return OriginalLoop(dataset, size, batch_size, learn.dls.device)


def measure(device: str, size: int, batch_size: int, iterations: int) -> Results:
    """Return the seconds per iteration of both loops in each round."""
    overrides: dict[str, object] = {
        "data.source": "synthetic",
        "data.count": max(400, 2 * batch_size),
        "data.multiplier": 100,
        "training.device": device,
        "training.batch_size": batch_size,
        "model.input_size": size,
    }
    config = load_config("original-resnet18", overrides)
    dataset = load_dataset(config.data, seed=0)
    split = split_dataset(dataset, "random", 0.2, 0)
    learn = new_learner(config, dataset, split.train, split.valid)
    turns = TakeTurns(iterations, partial(original_step, size, batch_size, dataset))
    with learn.no_logging():
        learn.fit(1, cbs=[EpochLog(SilentReporter()), turns])
    return turns.results()


def render(results: Results) -> str:
    """Return the page."""
    rows = [
        [
            *name.split(", "),
            f"{1000 * median(row['other']):,.0f}",
            f"{1000 * median(row['loop']):,.0f}",
            f"{ratio(row):.2f}",
        ]
        for name, row in results.items()
        if name != "setting"
    ]
    return markdown_page(
        "Training compared with the original loop",
        "`python benchmarks/original_loop.py`: milliseconds of an iteration of the original project's loop"
        " (images through PIL one at a time, augmented by torchvision, ResNet18 with the Lin-ReLU-Lin head,"
        " L1 loss, AdamW, CyclicLR) and of ours with the config `original-resnet18`, with the same input and"
        f" batch size, on synthetic faces. Medians of {ROUNDS} rounds, in which the two take turns;"
        f" {results['setting']['machine']}. *Times as fast*: median of the ratios in the rounds.",
        markdown_table(["device", "input", "batch", "original, ms", "ours, ms", "times as fast"], rows),
        f"The aim of {LIMIT} applies to a CPU with AVX512-BF16 or AMX, on which ours computes in bfloat16;"
        " this one has neither, so both compute in float32, and the convolutions, which are the same, take"
        " most of the time. It has not been measured on such a CPU, nor on a GPU (`--device cuda`).",
    )


FILES = ResultFiles("original_loop", render)


def main() -> None:
    """Measure what is missing."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options, files = parser.parse()
    settings = SETTINGS if options.device == "cpu" else ((64, 32, 100), (224, 625, 5))
    measurements: list[Measurement] = [
        (
            (f"{options.device}, {size} px, {batch}",),
            partial(measure, options.device, size, batch, iterations),
        )
        for size, batch, iterations in settings
    ]
    run_missing(files, {"machine": describe_machine(torch.device(options.device))}, measurements)


if __name__ == "__main__":
    main()
