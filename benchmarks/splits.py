"""Measure how far the validation RMSE of a split is from the RMSE on held-out identities.

    python benchmarks/splits.py --data facial-keypoints-detection.zip

A fifth of the rows is held out by whole near-duplicate groups. The remaining rows are split at random, or by
groups; a model is trained on one side, and evaluated on the other side and on the held-out identities.
Writes splits.json and splits.md after each run; results that are in splits.json are not computed again.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from _common.arguments import BenchmarkParser
from _common.data import Indices, hold_out, load_with_groups
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import ResultFiles, Results, run_missing
from _common.training import evaluate_rows, train_on

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.splits import split_dataset

SEEDS = (0, 1, 2)
KINDS = ("random", "grouped")
EPOCHS = 6
SETTINGS = (
    "augment=none",
    "model.input_size=48",
    "training.schedule={name: one_cycle, max_lr: 0.002}",
)


def measure(dataset: LandmarkDataset, groups: Indices, kind: str, seed: int) -> dict[str, float]:
    """Train on one side of a split, and return the RMSE on the other side and on the held-out identities."""
    remaining, held_out = hold_out(groups, 0.2, seed)
    split = split_dataset(dataset.subset(remaining), kind, 0.2, seed)
    config = load_config("default", {"seed": seed, "training.epochs": EPOCHS}, SETTINGS)
    valid = remaining[split.valid]
    predictor = train_on(config, dataset, remaining[split.train], valid)
    return {
        "validation": evaluate_rows(predictor, dataset, valid).overall.rmse,
        "held out": evaluate_rows(predictor, dataset, held_out).overall.rmse,
    }


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    rows = []
    for kind in KINDS:
        runs = results.get(kind, {}).values()
        valid, held_out = (np.array([run[name] for run in runs]) for name in ("validation", "held out"))
        if len(valid):
            gap = mean_and_std((held_out - valid) / held_out, ".1%")
            rows.append([kind, mean_and_std(valid), mean_and_std(held_out), gap])
    return markdown_page(
        "Validation RMSE of a split, and RMSE on held-out identities",
        f"`python benchmarks/splits.py`: the default network, {EPOCHS} epochs at 48 px without augmentation,"
        f" on {setting['faces']:,} faces. A fifth of them is held out by whole near-duplicate groups; the"
        f" rest is split at random or by groups; {setting['machine']}. RMSE in px of the {setting['size']} px"
        f" images, mean ± standard deviation over seeds {', '.join(map(str, SEEDS))}.",
        markdown_table(
            ["split", "validation RMSE", "RMSE on held-out identities", "validation RMSE is too low by"], rows
        ),
        "The groups are derived from pixels, so some identities are still on both sides of the grouped split,"
        " in different scenes or under different lighting; the same holds for the held-out identities.",
    )


FILES = ResultFiles("splits", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    setting = {"faces": len(dataset), "size": dataset.size, "machine": describe_machine()}
    runs = [
        ((kind, str(seed)), partial(measure, dataset, groups, kind, seed)) for seed in SEEDS for kind in KINDS
    ]
    run_missing(files, setting, runs)


if __name__ == "__main__":
    main()
