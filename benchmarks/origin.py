"""The origin's own recipe on a GPU: up to 24,000 iterations of 625 faces, judged by people held out.

    python benchmarks/origin.py --data facial-keypoints-detection.zip --minutes 10

The people held out are those of accuracy.py. The recipe is configs/resnet18.yaml; its network, loss,
optimiser, augmentation and schedule are put together here so that a GPU need not wait: the faces lie in its
memory, and what makes a batch of them is compiled, as the network is. Judged at the end of each cycle of the
learning rate, where that is lowest. It ends after so many minutes; called again, it goes on from
runs/origin.pt. Writes origin.json and origin.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.learner import Learner
from fastai.torch_core import set_seed
from holdout import HERE, hold_out, judge, load, machine, read_results, write_results
from numpy.typing import NDArray
from release import robustness
from torch import Tensor

from landmarks_fastai.config import CyclicSchedule, OriginAugment, Recipe, load_recipe
from landmarks_fastai.data.split import Split
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.inference.modelfile import ModelHeader
from landmarks_fastai.inference.predictor import Predictor, torch_run
from landmarks_fastai.network import scale_points
from landmarks_fastai.training.augment import origin
from landmarks_fastai.training.checkpoint import read_tensors, write_tensors
from landmarks_fastai.training.learner import build_learner, choose_precision
from landmarks_fastai.training.schedules import cyclic

STEPS = 24_000
KEPT = Path("runs/origin.pt")
SPOILT = 3
"""Of so many faces held out one is spoilt too, as in accuracy.py."""

Batch = tuple[Tensor, Tensor]


def batches(learn: Learner, recipe: Recipe, faces: FaceTable, eager: bool) -> Iterator[Batch]:
    """Yield (B, C, S, S) images and (B, K, 2) scaled points without end, epoch after epoch."""
    device, size = learn.dls.device, recipe.model.input_size
    images = torch.from_numpy(faces.images).permute(0, 3, 1, 2).to(device)
    points = torch.from_numpy(faces.points).to(device)
    mean, std = (learn.header[name][0] for name in ("mean", "std"))
    assert isinstance(recipe.augment, OriginAugment)
    options = recipe.augment

    def augmented(some: Tensor, labels: Tensor) -> Batch:
        some, labels = origin(some.float() / 255, labels, size, options)
        return (some - mean) / std, scale_points(labels, size)

    make: Callable[[Tensor, Tensor], Batch] = torch.compile(augmented, disable=eager)
    batch = recipe.training.batch_size
    while True:
        order = torch.randperm(len(faces) * recipe.data.multiplier, device=device) % len(faces)
        for rows in order[: len(order) // batch * batch].split(batch):
            yield make(images[rows], points[rows])


class Training:
    """The recipe on some faces, an iteration at a time."""

    def __init__(self, recipe: Recipe, table: FaceTable, rows: NDArray[np.int64], eager: bool) -> None:
        set_seed(recipe.seed)
        self.learn = build_learner(recipe, table, Split(rows, rows[:1], rows, "grouped", recipe.seed), HERE)
        self.device: torch.device = self.learn.dls.device
        self.learn.model.to(self.device, memory_format=torch.channels_last)
        self.learn.create_opt()
        self.network = torch.compile(self.learn.model, disable=eager)
        self.batches = batches(self.learn, recipe, table.rows(rows), eager)
        self.dtype = choose_precision(recipe.training.precision, self.device)
        self.done, self.seconds = 0, 0.0

    def keep(self) -> None:
        """Write what going on needs."""
        KEPT.parent.mkdir(exist_ok=True)
        state = {"model": self.learn.model.state_dict(), "optimizer": self.learn.opt.opt.state_dict()}
        write_tensors(KEPT, {**state, "done": self.done, "seconds": self.seconds})

    def go_on(self) -> None:
        """Take up where `keep` was called; the faces come in another order than they would have."""
        kept = read_tensors(KEPT)
        self.learn.model.load_state_dict(kept["model"])
        self.learn.opt.opt.load_state_dict(kept["optimizer"])
        self.done, self.seconds = kept["done"], kept["seconds"]
        set_seed(self.done)

    def run(self, schedule: CyclicSchedule, last: int, end: float) -> None:
        """Train until so many iterations are done, or until the clock says `end`."""
        begun = time.perf_counter()
        self.learn.model.train()
        while self.done < last and (self.done % 100 or time.perf_counter() < end):
            images, points = next(self.batches)
            self.learn.opt.set_hypers(lr=cyclic(self.done, STEPS, schedule).lr)
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                predicted = self.network(images.contiguous(memory_format=torch.channels_last))
            loss = self.learn.loss_func(predicted, points)
            loss.backward()
            self.learn.opt.step()
            self.learn.opt.zero_grad()
            self.done += 1
            if self.done % 100 == 0:  # to read the loss is to wait for the GPU
                left = end - time.perf_counter()
                print(f"{self.done}: loss {float(loss.detach()):.4f}, {left:.0f} s left", flush=True)
        self.seconds += time.perf_counter() - begun

    def predictor(self) -> Predictor:
        """Return the network as it is now, ready to judge."""
        header = ModelHeader.from_dict(self.learn.header, HERE)
        return Predictor(header, torch_run(self.learn.model.eval(), header, str(self.device)))


def main() -> None:
    """Train on, judge at each cycle's end, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--minutes", type=float, default=10.0, help="end after so many")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    options = parser.parse_args()
    end = time.perf_counter() + 60 * options.minutes
    torch.backends.cudnn.benchmark = True
    table, groups = load(options.data)
    rows, out = hold_out(groups, 0.2, seed=0)
    rows = rows[table.complete[rows]]
    recipe = load_recipe("resnet18", {"seed": 0})
    schedule = recipe.training.schedule
    assert isinstance(schedule, CyclicSchedule)
    training = Training(recipe, table, rows, options.eager)
    if KEPT.is_file():
        training.go_on()
    cycle = 2 * schedule.step_up
    while training.done < STEPS and time.perf_counter() < end:
        training.run(schedule, (training.done // cycle + 1) * cycle, end)
        training.keep()
        if training.done % cycle:
            break
        results = read_results("origin")
        results["setting"] = {
            "train": len(rows),
            "held out": len(out),
            "epoch": len(rows) * recipe.data.multiplier // recipe.training.batch_size,
            "machine": machine(training.device),
        }
        results[str(training.done)] = found = measure(training, table, rows, out)
        print(training.done, found, flush=True)
        write_results("origin", results)
        _write_table(results)


def measure(
    training: Training, table: FaceTable, rows: NDArray[np.int64], out: NDArray[np.int64]
) -> dict[str, Any]:
    """Judge by the faces held out, by those it was trained on, and by some of the former spoilt."""
    predictor, faces = training.predictor(), table.rows(out[::SPOILT])
    return {
        "rmse": judge(predictor, table, out).overall.rmse,
        "flipped": judge(predictor, table, out, flip=True).overall.rmse,
        "seen": judge(predictor, table, rows).overall.rmse,
        "minutes": training.seconds / 60,
        "spoilt": robustness(predictor, faces.images, faces.points),
    }


def _write_table(results: dict[str, Any]) -> None:
    setting = results["setting"]
    cycles = {int(done): found for done, found in results.items() if done != "setting"}
    last = max(cycles)
    lines = [
        "# The origin's own recipe, on a GPU",
        "",
        f"`python benchmarks/origin.py`: configs/resnet18.yaml, {setting['train']:,} faces with all points to"
        f" train, batches of 625 at 224 px, {setting['epoch']} iterations an epoch, {last:,} of the recipe's"
        f" {STEPS:,} iterations; judged by the {setting['held out']:,} faces of other people of accuracy.md,"
        f" at the end of each cycle of the learning rate; {setting['machine']}. RMSE in px of the 96 px"
        " images, one seed.",
        "",
        "| iterations | epochs | minutes | RMSE | flip averaged | on the faces it was trained on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for done, found in cycles.items():
        cells = [f"{done:,}", f"{done / setting['epoch']:.0f}", f"{found['minutes']:.1f}"]
        cells += [f"{found[name]:.3f}" for name in ("rmse", "flipped", "seen")]
        lines.append(f"| {' | '.join(cells)} |")
    ours = [run for run in read_results("accuracy").get("25 epochs", {}).values() if isinstance(run, dict)]
    lines += [
        "",
        f"Every {SPOILT}rd of the faces held out, spoilt as in release.md, beside the default recipe's"
        f" {len(ours)} runs of accuracy.md:",
        "",
        f"| | the origin's, {last:,} iterations | the default recipe, 25 epochs on a CPU |",
        "| --- | --- | --- |",
    ]
    for how, value in cycles[last]["spoilt"].items():
        lines.append(f"| {how} | {value:.2f} | {np.mean([run['spoilt'][how] for run in ours]):.2f} |")
    (HERE / "origin.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
