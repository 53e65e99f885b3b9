"""Measure what averaging the models of a cross-validation gains over one model.

    python benchmarks/cross_validation.py --data facial-keypoints-detection.zip

Trains one model on all rows that are not held out, and one model per fold on the other folds, with whole
near-duplicate groups in one fold, as `train --folds` does. Evaluated on held-out identities. Writes
cross_validation.json and cross_validation.md after each seed; seeds that are in cross_validation.json are not
computed again.
"""

from __future__ import annotations

from dataclasses import replace
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
from landmarks_fastai.data.splits import split_into_folds
from landmarks_fastai.inference.ensemble import Ensemble

SEEDS = (0, 1, 2)
FOLDS, EPOCHS = 5, 20
BASELINE = "one model"
VARIANTS = (BASELINE, "model of a single fold", "mean of the folds", "mean of the folds, flip averaging")


def measure(
    dataset: LandmarkDataset, groups: Indices, train: Indices, held_out: Indices, seed: int
) -> dict[str, float]:
    """Train one model and the folds, and return the RMSE of each variant."""
    overrides = {"seed": seed, "training.epochs": EPOCHS, "model.input_size": 48}
    config = load_config("default", overrides)
    splits = split_into_folds(replace(dataset.subset(train), groups=groups[train]), "grouped", FOLDS, seed)
    members = [train_on(config, dataset, train[split.train], held_out) for split in splits]
    single = train_on(config, dataset, train, held_out)
    scores = (
        evaluate_rows(single, dataset, held_out).overall.rmse,
        float(np.mean([evaluate_rows(member, dataset, held_out).overall.rmse for member in members])),
        evaluate_rows(Ensemble(members), dataset, held_out).overall.rmse,
        evaluate_rows(Ensemble(members), dataset, held_out, flip=True).overall.rmse,
    )
    return dict(zip(VARIANTS, scores, strict=True))


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    runs = [results[str(seed)] for seed in SEEDS if str(seed) in results]
    rows = []
    for variant in VARIANTS:
        values = np.array([run[variant] for run in runs])
        difference = values - [run[BASELINE] for run in runs]
        rows.append(
            [
                variant,
                mean_and_std(values),
                "" if variant == BASELINE else mean_and_std(difference, "+.3f"),
            ]
        )
    return markdown_page(
        "Averaging the models of a cross-validation",
        f"`python benchmarks/cross_validation.py`: {setting['train']:,} training faces,"
        f" {setting['held out']:,} faces of held-out identities; {FOLDS} folds of whole near-duplicate"
        f" groups; the default config at 48 px, {EPOCHS} epochs per model; {setting['machine']}. RMSE in px"
        f" of the 96 px images, mean ± standard deviation over {len(runs)} seeds, and difference from one"
        " model that was trained on all training faces.",
        markdown_table(["", "RMSE", "difference"], rows),
    )


FILES = ResultFiles("cross_validation", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_argument("--seed", type=int, choices=SEEDS, help="run this seed only")
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    train, held_out = hold_out(groups, 0.2, seed=0)
    setting = {"train": len(train), "held out": len(held_out), "machine": describe_machine()}
    seeds = SEEDS if options.seed is None else (options.seed,)
    runs = [((str(seed),), partial(measure, dataset, groups, train, held_out, seed)) for seed in seeds]
    run_missing(files, setting, runs)


if __name__ == "__main__":
    main()
