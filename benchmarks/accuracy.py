"""What each part of the recipe is worth: one change at a time, at equal training time; people held out.

    python benchmarks/accuracy.py --data facial-keypoints-detection.zip

Every row differs from the first by what its name says. The first has `EPOCHS`; any other has as many, at
least one, as take as long: before its first seed, batches of both are timed by turns in one process, since
other work on the machine adds even to the processor's time. The last rows alone have all of their recipe's
epochs. Rows are run seed by seed, the first rows first. Writes accuracy.json and accuracy.md after each run;
what stands in the former is not run again. So it may be stopped at any time, and several may run beside each
other, each with rows of its own (--only).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import set_seed
from holdout import (
    HERE,
    hold_out,
    judge,
    load,
    machine,
    mean_and_spread,
    read_results,
    train_on,
    write_results,
)
from numpy.typing import NDArray
from release import robustness

from landmarks_fastai.config import Recipe, load_recipe
from landmarks_fastai.data.split import Split
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.training.learner import build_learner

EPOCHS = 8
SEEDS = (0, 1, 2)
SPOILT = 3
"""Of so many faces one is spoilt too, where augmentation is compared."""

BASE = "the default recipe"


@dataclass(frozen=True)
class Row:
    """A recipe, as it differs from the default one.

    Parameters
    ----------
    settings
        As `--set` takes them.
    complete
        Train on rows with all points alone.
    recipe
        What it differs from.
    whole
        Train for the recipe's own epochs, however long.
    """

    settings: Sequence[str] = ()
    complete: bool = False
    recipe: str = "default"
    whole: bool = False


HALF = (
    "augment.rotate=10",
    "augment.scale=0.07",
    "augment.shift=0.04",
    "augment.light=0.07",
    "augment.contrast=0.2",
    "augment.blur=0.1",
    "augment.erase=0.15",
)
CYCLIC = "{name: cyclic, mode: exp_range, base_lr: 0.0001, max_lr: 0.002, step_up: 150, gamma: 0.999}"
ROWS: Mapping[str, Mapping[str, Row]] = {
    "": {BASE: Row()},
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
    "Rows": {
        "rows of four points dropped": Row(complete=True),
    },
    "Augmentation": {
        "none": Row(["augment=none"]),
        "half as strong": Row(HALF),
        "twice as strong": Row(
            [
                "augment.rotate=40",
                "augment.scale=0.3",
                "augment.shift=0.16",
                "augment.light=0.3",
                "augment.contrast=0.8",
                "augment.blur=0.4",
                "augment.erase=0.6",
            ]
        ),
        "no flip": Row(["augment.flip=0"]),
        "flips that shift the labels": Row(["augment.label_shift=0"]),
        "a tenth of hard faces": Row(["augment.hard=0.1"]),
    },
    "Weights": {"no moving average": Row(["training.ema=0"])},
    "Input": {f"{size} px": Row([f"model.input_size={size}"]) for size in (96, 128, 160, 224)},
    "Schedule": {
        "one-cycle": Row(["training.schedule={name: one_cycle, max_lr: 0.002}"]),
        "cyclic exp_range": Row([f"training.schedule={CYCLIC}"]),
    },
    "Body": {name: Row([f"model.arch={name}"]) for name in ("resnet34", "resnet50")},
    "The origin": {
        # one epoch of its ten copies would take many times the budget; all are drawn anew anyway
        "the origin's recipe": Row(["data.multiplier=1"], complete=True, recipe="resnet18")
    },
    "Whole": {
        "25 epochs": Row(whole=True),
        "25 epochs, soft-argmax": Row(["model.head=soft-argmax"], whole=True),
        "25 epochs, augmentation half as strong": Row(HALF, whole=True),
    },
}


CHOICES = """
## What the default recipe is, and why

- **`simcc`** learns fastest of all heads. The lead over soft-argmax shrinks as training goes on; after 45
  epochs at 96 px they are as good as each other ([release.md](release.md)).
- **Laplace** is as good as L1 and smooth L1, and is the likelihood that the confidence is read from.
- **All rows**: without those of four points there is time for more epochs, and by that alone little is
  gained.
- **Augmentation as it is**: half as strong is better on upright faces, by little once training is long, but
  far worse on faces turned by 30°. A tenth of hard faces costs a little on clean ones and pays on far
  tilted, dark and covered ones: it is in the recipes of the released models, which train for longer.
- **Flips** cost nothing, and flip averaging gains with them alone. They must keep the labels' shift.
- **The moving average** changes little where the rate falls to nothing at the end; it steadies what is seen
  before.
- **64 px, ResNet18**: larger inputs and deeper bodies have too few epochs in this time.
- **Flat-cosine** is as good as one-cycle, and needs no peak that fits the length of the run.

The origin's recipe is made for hundreds of epochs on a GPU, with batches of 625 faces; in this time it
takes a few steps. On a GPU it comes to 1.41 px after 8,000 iterations and stands still there, while the
error on the faces that it is trained on goes on falling ([origin.md](origin.md)).
"""


class Stop(Callback):
    """Time the batches of a fit, and end it after a few."""

    BATCHES, SECONDS = 8, 10

    def before_fit(self) -> None:
        """Begin."""
        self.times: list[float] = []

    def after_batch(self) -> None:
        """Take the time."""
        if self.training:
            self.times.append(time.process_time())
        slow = len(self.times) > 2 and self.times[-1] - self.times[1] > self.SECONDS
        if len(self.times) > self.BATCHES or slow:
            raise CancelFitException


def time_batches(recipe: Recipe, table: FaceTable, train: NDArray[np.int64]) -> list[float]:
    """Return the processor's seconds for some epochs of a recipe, one for each of a few batches."""
    set_seed(recipe.seed, reproducible=True)
    parts = Split(train, train[:1], np.arange(len(table)), "grouped", recipe.seed)
    learn = build_learner(recipe, table, parts, HERE)
    stop = Stop()
    with learn.no_logging():
        learn.fit(Stop.BATCHES + 1, cbs=[stop])
    return list(np.diff(stop.times[1:]) * len(learn.dls.train))


def fitting_epochs(
    recipe: Recipe, base: Recipe, table: FaceTable, mine: NDArray[np.int64], train: NDArray[np.int64]
) -> int:
    """Return how many epochs of a recipe on `mine` take as long as `EPOCHS` of `base` on `train`."""
    took: list[float] = []
    wanted: list[float] = []
    begun = time.process_time()
    while len(took) < 3 * Stop.BATCHES - 3 and time.process_time() - begun < 60:
        took += time_batches(recipe, table, mine)
        wanted += time_batches(base, table, train)
    return max(1, round(EPOCHS * float(np.median(wanted) / np.median(took))))


def measure(
    recipe: Recipe, table: FaceTable, train: NDArray[np.int64], out: NDArray[np.int64], spoil: bool
) -> dict[str, Any]:
    """Train, and judge by the faces held out, and some of them spoilt."""
    begun = time.process_time()
    predictor, _, _ = train_on(recipe, table, train, out[:64])
    minutes = (time.process_time() - begun) / 60
    report, flipped = judge(predictor, table, out), judge(predictor, table, out, flip=True)
    found = {
        "rmse": report.overall.rmse,
        "nme": report.overall.nme_inter_ocular,
        "flipped": flipped.overall.rmse,
        "rank correlation": report.calibration.rank_correlation if report.calibration else None,
        "minutes": minutes,
    }
    if spoil:
        faces = table.rows(out[::SPOILT])
        found["spoilt"] = robustness(predictor, faces.images, faces.points)
    return found


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--only", action="append", help="run this row alone; repeatable")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="run this seed alone")
    options = parser.parse_args()
    table, groups = load(options.data)
    train, out = hold_out(groups, 0.2, seed=0)
    setting = {
        "train": len(train),
        "held out": len(out),
        "sha256": table.digest,
        "epochs": EPOCHS,
        "machine": machine(),
    }
    rows = {name: row for part in ROWS.values() for name, row in part.items()}
    for seed in SEEDS if options.seed is None else (options.seed,):
        for name, row in rows.items():
            done = read_results("accuracy").get(name, {})
            if str(seed) in done or (options.only and name not in options.only):
                continue
            mine = train[table.complete[train]] if row.complete else train
            recipe = load_recipe(row.recipe, {"seed": seed}, row.settings)
            if row.whole:
                epochs = recipe.training.epochs
            elif name == BASE:
                epochs = EPOCHS
            else:
                base = load_recipe("default", {"seed": seed})
                epochs = done.get("epochs") or fitting_epochs(recipe, base, table, mine, train)
            print(f"{name}, seed {seed}: {epochs} epochs", flush=True)
            recipe = recipe.model_copy(
                update={"training": recipe.training.model_copy(update={"epochs": epochs})}
            )
            spoil = row.whole or name == BASE or name in ROWS["Augmentation"]
            found = measure(recipe, table, mine, out, spoil)
            print(f"  {found['rmse']:.3f}, flip averaged {found['flipped']:.3f}", flush=True)
            results = read_results("accuracy") | {"setting": setting}
            results[name] = results.get(name, {}) | {"epochs": epochs, str(seed): found}
            write_results("accuracy", results)
            _write_table(results)


def _on_gpu(results: dict[str, Any]) -> list[str]:
    """Return the line of origin.py's last result; none where it was not run."""
    done = max((int(name) for name in results if name != "setting"), default=None)
    if done is None:
        return []
    found, machine = results[str(done)], results["setting"]["machine"].split(",")[0]
    epochs = f"{done / results['setting']['epoch']:.0f}"
    cells = [f"the origin's recipe, {done:,} iterations", epochs, f"{found['minutes']:.1f} of an {machine}"]
    cells += ["1", f"{found['rmse']:.3f}", "", f"{found['flipped']:.3f}", ""]
    return [f"| {' | '.join(cells)} |"]


def _write_table(results: dict[str, Any]) -> None:
    setting = results["setting"]
    base = results.get(BASE, {})
    lines = [
        "# What each part is worth",
        "",
        f"`python benchmarks/accuracy.py`: {setting['train']:,} faces to train, {setting['held out']:,} faces"
        f" of other people held out (whole groups), the last weights; {setting['machine']}."
        " Each row is the default recipe with that one change, trained for as many epochs, at"
        f" least one, as take as long as {setting['epochs']} of the default's;"
        " at the end for all of the recipe's. RMSE in px of the 96 px images, mean ± standard deviation over"
        " seeds; the difference is to the default recipe's runs of the same seeds.",
        "",
        "| | epochs | minutes | seeds | RMSE | difference | flip averaged | rank correlation |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part, rows in ROWS.items():
        lines += [f"| **{part}** | | | | | | | |"] if part else []
        for name in rows:
            found = results.get(name, {})
            seeds = [str(seed) for seed in SEEDS if str(seed) in found]
            if not seeds:
                continue
            both = [] if rows[name].whole else [seed for seed in seeds if seed in base]
            gaps = [found[seed]["rmse"] - base[seed]["rmse"] for seed in both]
            flipped = [found[seed]["flipped"] for seed in seeds if found[seed]["flipped"] is not None]
            sure = [found[seed]["rank correlation"] for seed in seeds]
            cells = [
                name,
                str(found["epochs"]),
                f"{np.mean([found[seed]['minutes'] for seed in seeds]):.1f}",
                str(len(seeds)),
                mean_and_spread([found[seed]["rmse"] for seed in seeds]),
                "" if name == BASE or not both else mean_and_spread(gaps, "+.3f"),
                mean_and_spread(flipped) if flipped else "",
                "" if None in sure else f"{np.mean(sure):.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        if part == "The origin":
            lines += _on_gpu(read_results("origin"))
    shown = {
        name: [one["spoilt"] for one in results[name].values() if isinstance(one, dict) and "spoilt" in one]
        for name in (BASE, *ROWS["Augmentation"], *ROWS["Whole"])
        if name in results
    }
    lines += [
        "",
        f"Every {SPOILT}rd of these faces spoilt as in release.md: RMSE by augmentation, means over seeds.",
        "",
        f"| | {' | '.join(shown)} |",
        f"| --- |{' --- |' * len(shown)}",
    ]
    for how in next(iter(shown.values()), [{}])[0]:
        cells = [f"{np.mean([one[how] for one in runs]):.2f}" for runs in shown.values()]
        lines.append(f"| {how} | {' | '.join(cells)} |")
    (HERE / "accuracy.md").write_text("\n".join(lines) + "\n" + CHOICES)


if __name__ == "__main__":
    torch.set_num_threads(1)  # what is timed is one core
    main()
