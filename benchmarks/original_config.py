"""Measure how accurate the original config becomes on a GPU.

    python benchmarks/original_config.py --data facial-keypoints-detection.zip --minutes 10

Trains configs/original-resnet18.yaml for up to 24,000 iterations of 625 faces, and evaluates on the held-out
identities of accuracy.py at the end of each cycle of the learning rate, where it is lowest. Network, loss,
optimizer, augmentation and schedule of the config are combined here so that the GPU does not wait for data:
the faces stay in its memory, and augmentation and network are compiled. It stops after the given minutes, and
continues from runs/original-config.pt when called again. Writes original_config.json and original_config.md
after each cycle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common.arguments import BenchmarkParser
from _common.corruptions import corrupted_rmse
from _common.data import Indices, hold_out, load_with_groups
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import BENCHMARKS, ResultFiles, Results
from _common.training import evaluate_rows, new_learner
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import Tensor

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import CyclicConfig, OriginalAugment, TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.inference.backends import torch_backend
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.networks.coordinates import normalize_points
from landmarks_fastai.training.augmentation import original
from landmarks_fastai.training.checkpoint import read_tensors, write_tensors
from landmarks_fastai.training.precision import choose_precision
from landmarks_fastai.training.schedules import cyclic

ITERATIONS = 24_000
CHECKPOINT = Path("runs/original-config.pt")
CORRUPTED_EVERY = 3
"""One of this many held-out rows is also evaluated with corruptions, as in accuracy.py."""

DEFAULT_ROW = "25 epochs"
"""The row of accuracy.py with which the errors on corrupted images are compared."""

Batch = tuple[Tensor, Tensor]


def endless_batches(
    learn: Learner, config: TrainConfig, dataset: LandmarkDataset, compiled: bool
) -> Iterator[Batch]:
    """Yield (B, C, S, S) images and (B, K, 2) normalized points without end, epoch after epoch."""
    device, size = learn.dls.device, config.model.input_size
    images = torch.from_numpy(dataset.images[:]).permute(0, 3, 1, 2).to(device)
    points = torch.from_numpy(dataset.points).to(device)
    mean, std = (learn.header[name][0] for name in ("mean", "std"))
    assert isinstance(config.augment, OriginalAugment)
    options = config.augment

    def augment(pixels: Tensor, labels: Tensor) -> Batch:
        augmented, labels = original(pixels.float() / 255, labels, size, options)
        return (augmented - mean) / std, normalize_points(labels, size)

    make_batch: Callable[[Tensor, Tensor], Batch] = torch.compile(augment, disable=not compiled)
    batch_size = config.training.batch_size
    while True:
        order = torch.randperm(len(dataset) * config.data.multiplier, device=device) % len(dataset)
        for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
            yield make_batch(images[rows], points[rows])


class GpuTraining:
    """Training of the config on some rows, iteration by iteration.

    Parameters
    ----------
    config
        The config.
    dataset
        The data set.
    rows
        Training rows.
    compiled
        Compile the augmentation and the network.
    """

    def __init__(self, config: TrainConfig, dataset: LandmarkDataset, rows: Indices, compiled: bool) -> None:
        self.learn = new_learner(config, dataset, rows, rows[:1], reproducible=False)
        self.device: torch.device = self.learn.dls.device
        self.learn.model.to(self.device, memory_format=torch.channels_last)
        self.learn.create_opt()
        self.network = torch.compile(self.learn.model, disable=not compiled)
        self.batches = endless_batches(self.learn, config, dataset.subset(rows), compiled)
        self.dtype = choose_precision(config.training.precision, self.device)
        self.iterations, self.seconds = 0, 0.0

    def save(self) -> None:
        """Write the checkpoint."""
        CHECKPOINT.parent.mkdir(exist_ok=True)
        state = {"model": self.learn.model.state_dict(), "optimizer": self.learn.opt.opt.state_dict()}
        write_tensors(CHECKPOINT, {**state, "iterations": self.iterations, "seconds": self.seconds})

    def restore(self) -> None:
        """Continue from the checkpoint; the order of the rows differs from that of an uninterrupted run."""
        state = read_tensors(CHECKPOINT)
        self.learn.model.load_state_dict(state["model"])
        self.learn.opt.opt.load_state_dict(state["optimizer"])
        self.iterations, self.seconds = state["iterations"], state["seconds"]
        set_seed(self.iterations)

    def run(self, schedule: CyclicConfig, last: int, deadline: float) -> None:
        """Train up to iteration `last`, or until the clock (`time.perf_counter`) reaches the deadline."""
        start = time.perf_counter()
        self.learn.model.train()
        while self.iterations < last and (self.iterations % 100 or time.perf_counter() < deadline):
            images, points = next(self.batches)
            self.learn.opt.set_hypers(lr=cyclic(self.iterations, ITERATIONS, schedule).lr)
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                predicted = self.network(images.contiguous(memory_format=torch.channels_last))
            loss = self.learn.loss_func(predicted, points)
            loss.backward()
            self.learn.opt.step()
            self.learn.opt.zero_grad()
            self.iterations += 1
            if self.iterations % 100 == 0:  # reading the loss waits for the GPU
                left = deadline - time.perf_counter()
                print(f"{self.iterations}: loss {float(loss.detach()):.4f}, {left:.0f} s left", flush=True)
        self.seconds += time.perf_counter() - start

    def predictor(self) -> Predictor:
        """Return a predictor with the current weights."""
        header = ModelHeader.from_dict(self.learn.header, BENCHMARKS)
        return Predictor(header, torch_backend(self.learn.model.eval(), header, str(self.device)))


def measure(
    training: GpuTraining, dataset: LandmarkDataset, train: Indices, held_out: Indices
) -> dict[str, Any]:
    """Evaluate on the held-out rows, on the training rows, and on corrupted held-out rows."""
    predictor, some = training.predictor(), dataset.subset(held_out[::CORRUPTED_EVERY])
    return {
        "rmse": evaluate_rows(predictor, dataset, held_out).overall.rmse,
        "flip averaging": evaluate_rows(predictor, dataset, held_out, flip=True).overall.rmse,
        "train": evaluate_rows(predictor, dataset, train).overall.rmse,
        "minutes": training.seconds / 60,
        "corrupted": corrupted_rmse(predictor, some.images[:], some.points),
    }


def render(results: Results, accuracy: Results) -> str:
    """Return the page.

    Parameters
    ----------
    results
        Results of this script.
    accuracy
        Results of accuracy.py.
    """
    setting = results["setting"]
    cycles = {int(name): result for name, result in results.items() if name != "setting"}
    last = max(cycles)
    rows = [
        [
            f"{iterations:,}",
            f"{iterations / setting['iterations per epoch']:.0f}",
            f"{result['minutes']:.1f}",
            *(f"{result[name]:.3f}" for name in ("rmse", "flip averaging", "train")),
        ]
        for iterations, result in cycles.items()
    ]
    default_runs = [run["corrupted"] for run in accuracy.get(DEFAULT_ROW, {}).values()]
    corrupted_rows = [
        [
            name,
            f"{error:.2f}",
            *([f"{np.mean([run[name] for run in default_runs]):.2f}"] if default_runs else []),
        ]
        for name, error in cycles[last]["corrupted"].items()
    ]
    return markdown_page(
        "The original config on a GPU",
        f"`python benchmarks/original_config.py`: configs/original-resnet18.yaml, {setting['train']:,}"
        f" complete rows for training, batches of 625 at 224 px, {setting['iterations per epoch']}"
        f" iterations per epoch, {last:,} of at most {ITERATIONS:,} iterations; evaluated on the"
        f" {setting['held out']:,} faces of held-out identities of [accuracy.md](accuracy.md) at the end of"
        f" each cycle of the learning rate; {setting['machine']}. RMSE in px of the 96 px images, one seed.",
        markdown_table(
            ["iterations", "epochs", "minutes", "RMSE", "flip averaging", "RMSE on the training faces"], rows
        ),
        f"RMSE in px of every {CORRUPTED_EVERY}rd of the held-out faces, corrupted as in"
        f" [release.md](release.md), compared with the mean of {len(default_runs)} runs of the default config"
        " ([accuracy.md](accuracy.md)):",
        markdown_table(
            [
                "corruption",
                f"original config, {last:,} iterations",
                "default config, 25 epochs on a CPU",
            ],
            corrupted_rows,
        ),
    )


FILES = ResultFiles("original_config", render, related=("accuracy",))


def main() -> None:
    """Train, evaluate at the end of each cycle, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after this time")
    parser.add_argument("--eager", action="store_true", help="do not compile augmentation and network")
    options, files = parser.parse()
    deadline = time.perf_counter() + 60 * options.minutes
    torch.backends.cudnn.benchmark = True
    dataset, groups = load_with_groups(options.data)
    train, held_out = hold_out(groups, 0.2, seed=0)
    train = train[dataset.complete[train]]
    config = load_config("original-resnet18", {"seed": 0})
    schedule = config.training.schedule
    assert isinstance(schedule, CyclicConfig)
    training = GpuTraining(config, dataset, train, compiled=not options.eager)
    if CHECKPOINT.is_file():
        training.restore()
    setting = {
        "train": len(train),
        "held out": len(held_out),
        "iterations per epoch": len(train) * config.data.multiplier // config.training.batch_size,
        "machine": describe_machine(training.device),
    }
    cycle = 2 * schedule.step_up
    while training.iterations < ITERATIONS and time.perf_counter() < deadline:
        training.run(schedule, (training.iterations // cycle + 1) * cycle, deadline)
        training.save()
        if training.iterations % cycle:
            break
        result = measure(training, dataset, train, held_out)
        print(training.iterations, result, flush=True)
        files.add((str(training.iterations),), result, setting)


if __name__ == "__main__":
    main()
