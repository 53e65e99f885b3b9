"""What the mean of a run's folds gains over one model: people held out.

    python benchmarks/folds.py --data facial-keypoints-detection.zip

Trains one model on all faces that are not held out, and as many as there are folds, each on all but one fold
of them, whole groups in one fold, as `train --folds` does. Writes folds.json and folds.md; seeds that stand
in folds.json are not run again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
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

from landmarks_fastai.config import load_recipe
from landmarks_fastai.data.split import split_folds
from landmarks_fastai.inference.ensemble import Ensemble

SEEDS = (0, 1, 2)
FOLDS, EPOCHS = 5, 20
WAYS = ("one model", "each fold alone", "mean of the folds", "mean of the folds, flip averaged")


def main() -> None:
    """Train what is missing, judge, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="run this seed alone")
    options = parser.parse_args()
    table, groups = load(options.data)
    train, out = hold_out(groups, 0.2, seed=0)
    for seed in SEEDS if options.seed is None else (options.seed,):
        if str(seed) in read_results("folds"):
            continue
        overrides = {"seed": seed, "training.epochs": EPOCHS, "model.input_size": 48}
        recipe = load_recipe("default", overrides)
        known = replace(table.rows(train), groups=groups[train])
        parts = split_folds(known, "grouped", FOLDS, seed)
        members = [train_on(recipe, table, train[part.train], out[:64])[0] for part in parts]
        alone, _, _ = train_on(recipe, table, train, out[:64])
        scores = (
            judge(alone, table, out).overall.rmse,
            float(np.mean([judge(member, table, out).overall.rmse for member in members])),
            judge(Ensemble(members), table, out).overall.rmse,
            judge(Ensemble(members), table, out, flip=True).overall.rmse,
        )
        results = read_results("folds") | {str(seed): dict(zip(WAYS, scores, strict=True))}
        results["setting"] = {"train": len(train), "held out": len(out), "machine": machine()}
        write_results("folds", results)
        print(seed, results[str(seed)], flush=True)
        _write_table(results)


def _write_table(results: dict[str, Any]) -> None:
    setting = results["setting"]
    runs = [results[str(seed)] for seed in SEEDS if str(seed) in results]
    lines = [
        "# What the mean of folds gains",
        "",
        f"`python benchmarks/folds.py`: {setting['train']:,} faces to train, {setting['held out']:,} faces of"
        f" other people held out; {FOLDS} folds of whole groups; the default recipe at 48 px for {EPOCHS}"
        f" epochs each; {setting['machine']}. RMSE in px of the 96 px images, mean ± standard deviation over"
        f" seeds ({len(runs)}), and the difference to one model that trained on all of them.",
        "",
        "| | RMSE | difference |",
        "| --- | --- | --- |",
    ]
    for way in WAYS:
        values = np.array([run[way] for run in runs])
        gap = values - [run[WAYS[0]] for run in runs]
        cells = [mean_and_spread(values), "" if way == WAYS[0] else mean_and_spread(gap, "+.3f")]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    (HERE / "folds.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
