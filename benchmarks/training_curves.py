"""Measure how long training takes to reach an accuracy, compared with the original project's loop.

    python benchmarks/training_curves.py --data facial-keypoints-detection.zip

Trains the original loop, written plainly (_common/original_loop.py), and its config in this package for the
same time, and the default config for all of its epochs, with three seeds each, on input of 64 px and batches
of 32. At regular intervals, the weights of the moment are evaluated on held-out identities; the clock stops
meanwhile. Writes training_curves.json, training_curves.md and training_curves.png; what is in
training_curves.json is not measured again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
import torch
from _common.arguments import BenchmarkParser
from _common.data import Indices, hold_out, load_with_groups
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.original_loop import OriginalLoop
from _common.results import Measurement, ResultFiles, Results, run_missing
from _common.training import evaluate_rows, new_learner, predictor_of
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner
from fastai.torch_core import set_seed

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.evaluation.metrics import rmse
from landmarks_fastai.visualization.figures import new_figure, style_axes
from landmarks_fastai.visualization.saving import save_png
from landmarks_fastai.visualization.style import STYLE

SECONDS, INTERVAL = 300, 20
"""Duration of a training with the original config, and of the time from one evaluation to the next."""

SEEDS = (0, 1, 2)
SIZE, BATCH = 64, 32
HELD_OUT, EVALUATED_EVERY = 0.2, 2
"""The part of the rows that is held out, and which of them are evaluated: one in this many."""

TARGETS = (2.0, 1.75, 1.5)
"""RMSE in pixels of the 96 px images."""

ORIGINAL, SAME, DEFAULT = "original loop", "original config", "default config"


@dataclass
class Curve:
    """The accuracy over the time of training, with a clock that stops during evaluations.

    Parameters
    ----------
    evaluate
        Returns the RMSE of the weights of the moment.
    limit
        Duration of the training, without evaluations.
    """

    evaluate: Callable[[], float]
    limit: float
    points: list[tuple[float, int, float]] = field(default_factory=list)
    """Seconds, iterations and RMSE of each evaluation."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.iterations, self.paused, self.started = 0, 0.0, time.perf_counter()

    def step(self) -> bool:
        """Count an iteration, evaluate if it is time to, and return whether there is time for another."""
        self.iterations += 1
        now = time.perf_counter()
        seconds = now - self.started - self.paused
        if seconds >= INTERVAL * (len(self.points) + 1):
            self.add(seconds)
            self.paused += time.perf_counter() - now
        return seconds < self.limit

    def add(self, seconds: float) -> None:
        """Evaluate the weights of the moment."""
        self.points.append((round(seconds, 2), self.iterations, round(self.evaluate(), 4)))


class DrawCurve(Callback):
    """Adds each iteration of the training loop to a `Curve`, and ends the fit with it."""

    order = 101
    run_valid = False

    def __init__(self, curve: Callable[[Learner], Curve]) -> None:
        self.new_curve = curve

    def before_fit(self) -> None:
        """Start the clock."""
        self.curve = self.new_curve(self.learn)

    def after_batch(self) -> None:
        """Count the iteration."""
        if not self.curve.step():
            raise CancelFitException


@dataclass(frozen=True)
class Comparison:
    """The data that all systems are trained and evaluated on.

    Parameters
    ----------
    dataset
        The data set.
    train, held_out
        Its training rows, and the rows of held-out identities that are evaluated.
    """

    dataset: LandmarkDataset
    train: Indices
    held_out: Indices

    def measure(self, system: str, seed: int) -> Results:
        """Train a system, and return its curve."""
        curve = self._train_original(seed) if system == ORIGINAL else self._train(system, seed)
        seconds, iterations, errors = (list(column) for column in zip(*curve.points, strict=True))
        return {"seconds": seconds, "iterations": iterations, "rmse": errors}

    def _train_original(self, seed: int) -> Curve:
        set_seed(seed, reproducible=True)
        faces = self.dataset.subset(self.held_out)
        complete = self.dataset.subset(self.train[self.dataset.complete[self.train]])
        loop = OriginalLoop(complete, SIZE, BATCH, torch.device("cpu"))
        curve = Curve(lambda: rmse(loop.predict(faces.images[:]), faces.points), SECONDS)
        loop()
        while curve.step():
            loop()
        return curve

    def _train(self, system: str, seed: int) -> Curve:
        settings = {"seed": seed, "training.device": "cpu", "training.precision": "fp32"}
        rows, limit = self.train, math.inf
        if system == SAME:
            limit = SECONDS
            settings |= {"training.batch_size": BATCH, "model.input_size": SIZE}
            rows = rows[self.dataset.complete[rows]]
            config = load_config("original-resnet18", settings)
        else:
            config = load_config("default", settings)
            assert (config.training.batch_size, config.model.input_size) == (BATCH, SIZE)
        learn = new_learner(config, self.dataset, rows, self.held_out[:1])

        def evaluate(learn: Learner) -> float:
            return evaluate_rows(predictor_of(learn), self.dataset, self.held_out).overall.rmse

        callback = DrawCurve(lambda learn: Curve(partial(evaluate, learn), limit))
        with learn.no_logging():
            learn.fit(config.training.epochs, cbs=[callback])
        curve = callback.curve
        if curve.points[-1][1] != curve.iterations:  # all epochs were done before the time was up
            curve.add(time.perf_counter() - curve.started - curve.paused)
        return curve


# --- page ----------------------------------------------------------------------------------------


def seconds_to(run: Results, target: float) -> float | None:
    """Return the time of the first evaluation with at most this RMSE; None if there was none."""
    reached = [seconds for seconds, error in zip(run["seconds"], run["rmse"], strict=True) if error <= target]
    return reached[0] if reached else None


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    systems = {name: runs for name, runs in results.items() if name != "setting"}
    rows = [
        [
            name,
            str(len(runs)),
            *(_format_times([seconds_to(run, target) for run in runs.values()]) for target in TARGETS),
            mean_and_std([run["rmse"][-1] for run in runs.values()]),
            f"{np.mean([run['iterations'][-1] / run['seconds'][-1] for run in runs.values()]):.2f}",
        ]
        for name, runs in systems.items()
    ]
    times = [f"seconds to {target:g} px" for target in TARGETS]
    return markdown_page(
        "Accuracy over the time of training",
        f"`python benchmarks/training_curves.py`: {setting['train']:,} training faces, of which the original"
        f" config uses the {setting['complete']:,} with all landmarks; {setting['held out']:,} faces of"
        f" held-out identities (whole near-duplicate groups); input of {SIZE} px, batches of {BATCH},"
        f" evaluated every {INTERVAL} s, {SECONDS} s of training, with the default config all of its epochs;"
        f" {setting['machine']}. RMSE in px of the 96 px images, mean ± standard deviation over seeds.",
        "![RMSE over seconds of training](training_curves.png)",
        markdown_table(["", "seeds", *times, "RMSE at the end", "iterations per second"], rows),
        "Seconds: range over the seeds; – if a seed does not reach it. *Original loop*: that of the original"
        " project, written plainly. *Original config*: configs/original-resnet18.yaml in this package, with"
        " the same rows, head, loss, optimizer and schedule, whose learning rate rises for the first 2,000"
        " iterations. The differences between the two: the head of ours starts at the mean shape; outside a"
        " rotated image, the loop has black pixels, ours edge pixels or noise; landmarks outside the image"
        " remain labeled in the loop, and not in ours.",
        _equal_iterations(systems),
    )


def _equal_iterations(systems: Mapping[str, Results]) -> str:
    """Compare the two loops with the same config over the same iterations."""
    runs = [systems.get(system, {}) for system in (ORIGINAL, SAME)]
    seeds = runs[0].keys() & runs[1].keys()
    if not seeds:
        return ""
    last = min(run[seed]["iterations"][-1] for run in runs for seed in seeds)
    original, ours = (mean_and_std([_middle_error(run[seed], last) for seed in seeds]) for run in runs)
    return (
        f"With the original config, the RMSE varies from evaluation to evaluation. Its median from iteration"
        f" {last // 2:,} to {last:,} is {original} px in the original loop and {ours} px in ours."
    )


def _middle_error(run: Results, last: int) -> float:
    """Return the median RMSE of the evaluations in the second half of the iterations up to `last`."""
    pairs = zip(run["iterations"], run["rmse"], strict=True)
    return float(np.median([error for iteration, error in pairs if last / 2 <= iteration <= last]))


def _format_times(times: list[float | None]) -> str:
    reached = [seconds for seconds in times if seconds is not None]
    if len(reached) < len(times):
        return "–"
    low, high = round(min(reached)), round(max(reached))
    return f"{low}" if low == high else f"{low} to {high}"


def draw_figure(files: ResultFiles) -> None:
    """Plot the curves of all seeds, one color for each system."""
    figure = new_figure(7.2, 4.4)
    axes = figure.subplots()
    systems = {name: runs for name, runs in files.read().items() if name != "setting"}
    for color, (name, runs) in zip(STYLE.series, systems.items(), strict=False):
        for number, run in enumerate(runs.values()):
            axes.semilogy(run["seconds"], run["rmse"], color=color, label=name if number == 0 else None)
    for target in TARGETS:
        axes.axhline(target, color=STYLE.soft_ink, linestyle=":", linewidth=0.8)
    ticks = [*TARGETS, 3, 5, 10, 20]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(left=0)
    style_axes(axes, "Held-out identities", "seconds of training", "RMSE, px")
    axes.legend(frameon=False, fontsize=STYLE.text_size)
    save_png(files.folder / "training_curves.png", figure)


FILES = ResultFiles("training_curves", render)


def main() -> None:
    """Measure what is missing."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="only these seeds")
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    train, held_out = hold_out(groups, HELD_OUT, seed=0)
    comparison = Comparison(dataset, train, held_out[::EVALUATED_EVERY])
    setting = {
        "machine": describe_machine(),
        "train": len(train),
        "complete": int(dataset.complete[train].sum()),
        "held out": len(comparison.held_out),
    }
    measurements: list[Measurement] = [
        ((system, str(seed)), partial(comparison.measure, system, seed))
        for seed, system in product(options.seeds, (ORIGINAL, SAME, DEFAULT))
    ]
    run_missing(files, setting, measurements)
    draw_figure(files)


if __name__ == "__main__":
    main()
