"""Measure what each option of the default config contributes, at equal training time.

    python benchmarks/accuracy.py --data facial-keypoints-detection.zip

Each row is the default config with one change, named by its label. The default config trains for `EPOCHS`
epochs, every other row for as many (at least one) as take the same time: before its first seed, batches of
both are timed alternately in one process, because other processes on the machine lengthen even the CPU time.
The rows of the last section train for all epochs of their config. Evaluated on held-out identities. Runs seed
by seed in the order of the table, and writes accuracy.json and accuracy.md after each run; results that are
in accuracy.json are not computed again. It can be stopped at any time, and several processes can run at once
with different rows (--only).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from _common.arguments import BenchmarkParser
from _common.corruptions import corrupted_rmse
from _common.data import Indices, hold_out, load_with_groups
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import ResultFiles, Results, run_missing
from _common.training import evaluate_rows, new_learner, train_on, with_epochs
from fastai.callback.core import Callback, CancelFitException

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset

EPOCHS = 8
SEEDS = (0, 1, 2)
CORRUPTED_EVERY = 3
"""One of this many held-out rows is also evaluated with corruptions, where augmentations are compared."""

BASELINE = "default config"


@dataclass(frozen=True)
class Row:
    """A config that differs from another one.

    Parameters
    ----------
    settings
        The difference, as `--set` takes it.
    complete
        Train on complete rows only.
    config
        The config that it differs from.
    full_length
        Train for the config's own number of epochs, however long it takes.
    """

    settings: Sequence[str] = ()
    complete: bool = False
    config: str = "default"
    full_length: bool = False


HALF_STRENGTH = (
    "augment.rotate=10",
    "augment.scale=0.07",
    "augment.shift=0.04",
    "augment.brightness=0.07",
    "augment.contrast=0.2",
    "augment.blur=0.1",
    "augment.erase=0.15",
)
DOUBLE_STRENGTH = (
    "augment.rotate=40",
    "augment.scale=0.3",
    "augment.shift=0.16",
    "augment.brightness=0.3",
    "augment.contrast=0.8",
    "augment.blur=0.4",
    "augment.erase=0.6",
)
CYCLIC = "{name: cyclic, mode: exp_range, base_lr: 0.0001, max_lr: 0.002, step_up: 150, gamma: 0.999}"
ORIGINAL, FULL_LENGTH = "Original config", "Full length"
SECTIONS: Mapping[str, Mapping[str, Row]] = {
    "": {BASELINE: Row()},
    "Head": {
        "lin-relu-lin": Row(["model.head=lin-relu-lin"]),
        "linear": Row(["model.head=linear"]),
        "soft-argmax": Row(["model.head=soft-argmax"]),
    },
    "Loss": {
        "L1": Row(["training.loss=l1"]),
        "Wing": Row(["training.loss=wing"]),
        "smooth L1": Row(["training.loss={name: smooth_l1, beta: 0.03}"]),
    },
    "Training rows": {
        "without incomplete rows": Row(complete=True),
    },
    "Augmentation": {
        "none": Row(["augment=none"]),
        "half strength": Row(HALF_STRENGTH),
        "double strength": Row(DOUBLE_STRENGTH),
        "no flip": Row(["augment.flip=0"]),
        "flip ignores the label bias": Row(["augment.label_bias=0"]),
        "one tenth hard examples": Row(["augment.hard=0.1"]),
    },
    "Weights": {"no EMA": Row(["training.ema=0"])},
    "Input size": {f"{size} px": Row([f"model.input_size={size}"]) for size in (96, 128, 160, 224)},
    "Schedule": {
        "one-cycle": Row(["training.schedule={name: one_cycle, max_lr: 0.002}"]),
        "cyclic exp_range": Row([f"training.schedule={CYCLIC}"]),
    },
    "Backbone": {name: Row([f"model.arch={name}"]) for name in ("resnet34", "resnet50")},
    ORIGINAL: {
        # one epoch of its ten copies would exceed the time; every copy is augmented differently in any case
        "original config": Row(["data.multiplier=1"], complete=True, config="original-resnet18")
    },
    FULL_LENGTH: {
        "25 epochs": Row(full_length=True),
        "25 epochs, soft-argmax": Row(["model.head=soft-argmax"], full_length=True),
        "25 epochs, half-strength augmentation": Row(HALF_STRENGTH, full_length=True),
    },
}
ROWS = {name: row for section in SECTIONS.values() for name, row in section.items()}
CORRUPTED_ROWS = (BASELINE, *SECTIONS["Augmentation"], *SECTIONS[FULL_LENGTH])

CONCLUSIONS = """
## Reasons for the default config

- **`simcc`** learns fastest of all heads. Its lead over soft-argmax shrinks with longer training; after 45
  epochs at 96 px, both are equally accurate ([release.md](release.md)).
- **Laplace** is as accurate as L1 and smooth L1, and is the likelihood that trains the confidence.
- **All rows**: without the incomplete rows (four landmarks), more epochs fit into the same time, but the RMSE
  is only slightly lower.
- **Augmentation at standard strength**: half strength is better on upright faces (only slightly after 25
  epochs), but far worse on faces rotated by 30°. With one tenth of hard examples, the RMSE is slightly higher
  on uncorrupted images, and lower on strongly rotated, very dark and strongly occluded ones. The configs of
  the released models, which train longer, include them.
- **Flips** cost nothing, and without them flip averaging does not help. They must preserve the label bias.
- **EMA** changes little, because the learning rate decays to zero at the end.
- **64 px, ResNet18**: with larger inputs and deeper backbones, too few epochs fit into this time.
- **Flat-cosine** is at least as good as one-cycle with the same maximum learning rate.

The original config is meant for hundreds of epochs on a GPU, with batches of 625 faces; in this time, it
takes only a few steps. On a GPU, it reaches 1.41 px after 8,000 iterations and does not improve further,
while the error on its training faces continues to fall ([original_config.md](original_config.md)).
"""


class TimeBatches(Callback):
    """Record the CPU time of the training batches, and end the fit after a few."""

    BATCHES, SECONDS = 8, 10

    def before_fit(self) -> None:
        """Reset the times."""
        self.times: list[float] = []

    def after_batch(self) -> None:
        """Record the time, and end the fit after `BATCHES` batches or `SECONDS`."""
        if self.training:
            self.times.append(time.process_time())
        slow = len(self.times) > 2 and self.times[-1] - self.times[1] > self.SECONDS
        if len(self.times) > self.BATCHES or slow:
            raise CancelFitException


def time_epochs(config: TrainConfig, dataset: LandmarkDataset, train: Indices) -> list[float]:
    """Return estimates of the CPU seconds of one epoch, each from the time of one batch."""
    learn = new_learner(config, dataset, train, train[:1])
    timer = TimeBatches()
    with learn.no_logging():
        learn.fit(TimeBatches.BATCHES + 1, cbs=[timer])
    return list(np.diff(timer.times[1:]) * len(learn.dls.train))


def equal_time_epochs(
    config: TrainConfig, rows: Indices, base: TrainConfig, base_rows: Indices, dataset: LandmarkDataset
) -> int:
    """Return the number of epochs of `config` on `rows` that take as long as `EPOCHS` of `base`."""
    seconds: list[float] = []
    base_seconds: list[float] = []
    start = time.process_time()
    while len(seconds) < 3 * TimeBatches.BATCHES - 3 and time.process_time() - start < 60:
        seconds += time_epochs(config, dataset, rows)
        base_seconds += time_epochs(base, dataset, base_rows)
    return max(1, round(EPOCHS * float(np.median(base_seconds) / np.median(seconds))))


@dataclass(frozen=True)
class Experiment:
    """The data, and its training and held-out rows."""

    dataset: LandmarkDataset
    train: Indices
    held_out: Indices

    def measure(self, name: str, seed: int, epochs: Callable[[], int | None]) -> dict[str, Any]:
        """Train one row of the table with one seed, and evaluate it.

        Parameters
        ----------
        name
            Label of the row.
        seed
            Seed of the run.
        epochs
            Returns the number of epochs of earlier seeds; None if there are none.
        """
        row = ROWS[name]
        rows = self.train[self.dataset.complete[self.train]] if row.complete else self.train
        config = load_config(row.config, {"seed": seed}, row.settings)
        if name == BASELINE:
            config = with_epochs(config, EPOCHS)
        elif not row.full_length:
            base = load_config("default", {"seed": seed})
            known = epochs() or equal_time_epochs(config, rows, base, self.train, self.dataset)
            config = with_epochs(config, known)
        return {"epochs": config.training.epochs, **self.evaluate(config, rows, name in CORRUPTED_ROWS)}

    def evaluate(self, config: TrainConfig, rows: Indices, corrupted: bool) -> dict[str, Any]:
        """Train, and evaluate on the held-out rows, and optionally on corrupted ones."""
        start = time.process_time()
        predictor = train_on(config, self.dataset, rows, self.held_out)
        minutes = (time.process_time() - start) / 60
        report = evaluate_rows(predictor, self.dataset, self.held_out)
        flipped = evaluate_rows(predictor, self.dataset, self.held_out, flip=True)
        scores: dict[str, Any] = {
            "rmse": report.overall.rmse,
            "nme": report.overall.nme_inter_ocular,
            "flip averaging": flipped.overall.rmse,
            "rank correlation": report.calibration.rank_correlation if report.calibration else None,
            "minutes": minutes,
        }
        if corrupted:
            some = self.dataset.subset(self.held_out[::CORRUPTED_EVERY])
            scores["corrupted"] = corrupted_rmse(predictor, some.images[:], some.points)
        return scores


def render(results: Results, original: Results) -> str:
    """Return the page.

    Parameters
    ----------
    results
        Results of this script.
    original
        Results of original_config.py.
    """
    setting = results["setting"]
    rows: list[list[str]] = []
    for section, names in SECTIONS.items():
        rows += [[f"**{section}**"]] if section else []
        rows += [_table_row(name, results) for name in names if results.get(name)]
        rows += _gpu_row(original) if section == ORIGINAL and original else []
    return markdown_page(
        "Contribution of each option",
        f"`python benchmarks/accuracy.py`: {setting['train']:,} training faces, {setting['held out']:,}"
        " faces of held-out identities (whole near-duplicate groups), weights of the last epoch;"
        f" {setting['machine']}. Each row is the default config with one change. It is trained for the number"
        f" of epochs, at least one, that take as long as {setting['epochs']} epochs of the default config;"
        " the rows of the last section are trained for all epochs of their config. RMSE in px of the 96 px"
        " images, mean ± standard deviation over seeds; the difference is from the default config with the"
        " same seeds.",
        markdown_table(
            [
                "",
                "epochs",
                "minutes",
                "seeds",
                "RMSE",
                "difference",
                "flip averaging",
                "rank correlation",
            ],
            rows,
        ),
        f"RMSE in px of every {CORRUPTED_EVERY}rd of these faces, corrupted as in [release.md](release.md);"
        " means over seeds:",
        _corruption_table(results),
        CONCLUSIONS,
    )


def _table_row(name: str, results: Results) -> list[str]:
    runs = results[name]
    base = {} if ROWS[name].full_length or name == BASELINE else results.get(BASELINE, {})
    differences = [run["rmse"] - base[seed]["rmse"] for seed, run in runs.items() if seed in base]
    correlations = [run["rank correlation"] for run in runs.values()]
    return [
        name,
        str(max(run["epochs"] for run in runs.values())),
        f"{np.mean([run['minutes'] for run in runs.values()]):.1f}",
        str(len(runs)),
        mean_and_std([run["rmse"] for run in runs.values()]),
        mean_and_std(differences, "+.3f") if differences else "",
        mean_and_std([run["flip averaging"] for run in runs.values()]),
        "" if None in correlations else f"{np.mean(correlations):.2f}",
    ]


def _gpu_row(original: Results) -> list[list[str]]:
    """Return the row of the last result of original_config.py."""
    iterations = max(int(name) for name in original if name != "setting")
    run, setting = original[str(iterations)], original["setting"]
    return [
        [
            f"original config, {iterations:,} iterations",
            f"{iterations / setting['iterations per epoch']:.0f}",
            f"{run['minutes']:.1f} of an {setting['machine'].split(',')[0]}",
            "1",
            f"{run['rmse']:.3f}",
            "",
            f"{run['flip averaging']:.3f}",
        ]
    ]


def _corruption_table(results: Results) -> str:
    names = [name for name in CORRUPTED_ROWS if results.get(name)]
    runs = {name: [run["corrupted"] for run in results[name].values()] for name in names}
    rows = [
        [corruption, *(f"{np.mean([run[corruption] for run in runs[name]]):.2f}" for name in names)]
        for corruption in (runs[names[0]][0] if names else ())
    ]
    return markdown_table(["corruption", *names], rows)


FILES = ResultFiles("accuracy", render, related=("original_config",))


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_argument("--only", action="append", choices=ROWS, help="run this row only; repeatable")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="run this seed only")
    options, files = parser.parse()
    torch.set_num_threads(1)  # the time of one core is measured
    dataset, groups = load_with_groups(options.data)
    train, held_out = hold_out(groups, 0.2, seed=0)
    setting = {
        "train": len(train),
        "held out": len(held_out),
        "sha256": dataset.digest,
        "epochs": EPOCHS,
        "machine": describe_machine(),
    }
    experiment = Experiment(dataset, train, held_out)
    runs = [
        ((name, str(seed)), partial(experiment.measure, name, seed, partial(_known_epochs, files, name)))
        for seed in (SEEDS if options.seed is None else (options.seed,))
        for name in options.only or ROWS
    ]
    run_missing(files, setting, runs)


def _known_epochs(files: ResultFiles, name: str) -> int | None:
    """Return the number of epochs of the other seeds of a row; None before its first seed."""
    return max((run["epochs"] for run in files.read().get(name, {}).values()), default=None)


if __name__ == "__main__":
    main()
