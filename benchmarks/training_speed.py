"""Measure which share of the time of training its forward and backward passes are.

    python benchmarks/training_speed.py
    python benchmarks/training_speed.py --device cuda

Trains the default config on synthetic faces. In turn with some iterations of the training loop, the bare step
is timed: forward pass, loss, backward pass and optimizer on a batch that is already on the device, of a copy
of the network. Everything else (loading, augmentation, EMA, schedule, log) is what the loop adds. The same is
measured with a compiled network in the loop. Writes training_speed.json and training_speed.md; what is in
training_speed.json is not measured again.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import Any

import torch
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import Measurement, ResultFiles, Results, run_missing
from _common.step_times import ROUNDS, Step, TakeTurns, ratio
from _common.training import new_learner
from fastai.learner import Learner

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.training.callbacks import find_callback
from landmarks_fastai.training.compilation import CompileNetwork
from landmarks_fastai.training.precision import Autocast
from landmarks_fastai.training.reporting import EpochLog, SilentReporter

LIMITS = {"cpu": 0.92, "cuda": 0.85}
SETTINGS = {"cpu": ((64, 32, 2), (96, 32, 1), (224, 8, 1)), "cuda": ((64, 32, 200), (224, 625, 10))}
"""Input size, batch size, and iterations per round."""


def bare_step(learn: Learner) -> Step:
    """Return a step with a copy of the network on the last batch of a learner."""
    network: Any = copy.deepcopy(learn.model)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    images, labels = (part.detach().clone() for part in (learn.x.as_subclass(torch.Tensor), learn.y))
    images = images.contiguous(memory_format=torch.channels_last)
    autocast, loss_function = find_callback(learn, Autocast), learn.loss_func

    def step() -> None:
        with nullcontext() if autocast is None else torch.autocast(images.device.type, dtype=autocast.dtype):
            predicted = network(images)
        loss_function(predicted.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(
    device: str, size: int, batch_size: int, iterations: int, threads: int, compiled: bool = False
) -> Results:
    """Return the seconds per iteration of the loop and of the bare step in each round."""
    torch.compiler.reset()  # otherwise, what was compiled for another size limits what is compiled now
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    options: dict[str, object] = {"source": "synthetic", "count": max(400, 2 * batch_size), "multiplier": 100}
    overrides = {f"data.{name}": value for name, value in options.items()}
    training = {"training.device": device, "training.batch_size": batch_size, "model.input_size": size}
    config = load_config("default", overrides | training)
    dataset = load_dataset(config.data, seed=0)
    split = split_dataset(dataset, "random", 0.2, 0)
    learn = new_learner(config, dataset, split.train, split.valid)
    turns = TakeTurns(iterations, bare_step)
    compilation = [CompileNetwork()] if compiled else []
    with learn.no_logging():
        learn.fit(1, cbs=[EpochLog(SilentReporter()), turns, *compilation])
    torch.set_num_threads(before)
    return turns.results()


def render(results: Results) -> str:
    """Return the page."""
    rows = []
    for name, row in results.items():
        if name == "setting" or name.endswith(COMPILED):
            continue
        bare, loop = median(row["other"]), median(row["loop"])
        rows.append([*name.split(", "), f"{1000 * bare:,.0f}", f"{1000 * loop:,.0f}", f"{ratio(row):.3f}"])
    return markdown_page(
        "Training loop and bare step",
        "`python benchmarks/training_speed.py`: milliseconds of an iteration of the training loop (default"
        " config, synthetic faces), and of a bare step: forward pass, loss, backward pass and optimizer of"
        f" the same network on one batch. Medians of {ROUNDS} rounds, in which the two take turns;"
        f" {results['setting']['machine']}. *Share*: the bare step divided by the loop, median over the"
        " rounds, which can differ from the quotient of the medians.",
        markdown_table(["device", "input", "batch", "threads", "bare step, ms", "loop, ms", "share"], rows),
        f"The aim is a share of at least {LIMITS['cpu']} on a CPU, and of {LIMITS['cuda']} on a GPU, for"
        " which `--device cuda` measures 64 px with batches of 32 and 224 px with batches of 625. It has not"
        " been measured on a GPU yet.",
        "On a GPU, augmentation, losses, EMA and label bias do not synchronize with the device (checked"
        " by `tests/training/test_synchronization.py`): affine transforms are inverted in closed form,"
        " constants are copied to the device once, and the EMA is updated by `torch._foreach_lerp_`. One"
        " synchronization per iteration is left: fastai's Recorder and the log read the loss.",
        *_compiled_section(results),
    )


def _compiled_section(results: Results) -> list[str]:
    """Return the section about `training.compile`."""
    rows = []
    for name, row in results.items():
        if name.endswith(COMPILED):
            setting = name.removesuffix(COMPILED)
            gain = ratio(row) / ratio(results[setting])
            rows.append([*setting.split(", "), f"{ratio(row):.3f}", f"{gain:.2f}"])
    if not rows:
        return []
    return [
        "## torch.compile",
        "With `training.compile=true`, the loop takes turns with the same bare step, which is not compiled."
        " Its share may exceed 1. *Gain*: that share relative to the one above.",
        markdown_table(["device", "input", "batch", "threads", "share", "gain"], rows),
    ]


COMPILED = ", compiled"
"""End of the names of the results with a compiled network."""

FILES = ResultFiles("training_speed", render)


def main() -> None:
    """Measure what is missing."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--device", choices=sorted(SETTINGS), default="cpu")
    parser.add_argument("--threads", type=int, nargs="*", default=(1, 2), help="numbers of threads on a CPU")
    options, files = parser.parse()
    threads = options.threads if options.device == "cpu" else (torch.get_num_threads(),)
    measurements: list[Measurement] = [
        (
            (f"{options.device}, {size} px, {batch_size}, {count}{COMPILED if compiled else ''}",),
            partial(measure, options.device, size, batch_size, iterations, count, compiled),
        )
        for compiled in (False, True)
        for size, batch_size, iterations in SETTINGS[options.device]
        for count in threads
    ]
    machine = describe_machine(torch.device(options.device)).split(", ", 1)[-1]
    run_missing(files, {"machine": machine}, measurements)


if __name__ == "__main__":
    main()
