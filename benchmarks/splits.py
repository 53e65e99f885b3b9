"""How far each split's validation RMSE is from the RMSE on people who are in neither part.

    python benchmarks/splits.py --data facial-keypoints-detection.zip

A fifth of the faces is held out by whole groups. The rest is split at random, or by groups; a model is
trained on one part and judged on the other, and on the people held out. Three seeds. Writes splits.json
after each run, and splits.md; what stands in splits.json is not run again.
"""

from __future__ import annotations

import argparse

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
from landmarks_fastai.data.split import split

SEEDS = (0, 1, 2)
EPOCHS = 6
SETTINGS = [
    "augment=none",
    "model.input_size=48",
    "training.schedule={name: one_cycle, max_lr: 0.002}",
]


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    options = parser.parse_args()
    results = read_results("splits")
    table, groups = load(options.data)
    for seed in SEEDS:
        rest, out = hold_out(groups, 0.2, seed)
        for kind in ("random", "grouped"):
            key = f"{kind}, seed {seed}"
            if key in results:
                continue
            print(key)
            parts = split(table.rows(rest), kind, 0.2, seed)
            recipe = load_recipe("default", {"seed": seed, "training.epochs": EPOCHS}, SETTINGS)
            predictor, _, _ = train_on(recipe, table, rest[parts.train], rest[parts.valid])
            validation, unseen = (judge(predictor, table, rows) for rows in (rest[parts.valid], out))
            results[key] = {"validation": validation.overall.rmse, "unseen": unseen.overall.rmse}
            write_results("splits", results)
    lines = [
        "# What a validation split says, and what is true",
        "",
        f"`python benchmarks/splits.py`: the default network for {EPOCHS} epochs at 48 px without"
        f" augmentation, on {len(table):,} faces of which a fifth is held out by whole groups;"
        f" {machine()}. RMSE in px at {table.size} px, mean ± standard deviation over seeds"
        f" {', '.join(map(str, SEEDS))}.",
        "",
        "| split | its validation RMSE | RMSE on people held out | validation is too low by |",
        "| --- | --- | --- | --- |",
    ]
    for kind in ("random", "grouped"):
        rows = [results[f"{kind}, seed {seed}"] for seed in SEEDS]
        valid, unseen = (np.array([row[name] for row in rows]) for name in ("validation", "unseen"))
        gap = (unseen - valid) / unseen
        lines.append(
            f"| {kind} | {mean_and_spread(valid)} | {mean_and_spread(unseen)} |"
            f" {mean_and_spread(gap, '.1%')} |"
        )
    lines += [
        "",
        "The groups come from pixels, so some people still stand on both sides of the grouped split, in"
        " another scene or light: it, too, flatters a little.",
    ]
    (HERE / "splits.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
