"""What a test says whose faces were split after they had been copied, as the origin did; and what is true.

    python benchmarks/leakage.py --data facial-keypoints-detection.zip

The origin wrote ten augmented copies of each face to disk and then drew the test faces from among all copies,
so that nearly every test face has copies of itself, turned and lit otherwise, in training. Here the same is
done with some faces: the network and the augmentation are the origin's, at a size that a CPU can train. The
truth is what the same network does on copies of people whom it has never seen. Writes leakage.json and
leakage.md; seeds that stand in leakage.json are not run again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch
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

from landmarks_fastai.config import OriginAugment, load_recipe
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.training.augment import origin

SEEDS = (0, 1, 2)
FACES, COPIES = 150, 10
TEST = 0.2
EPOCHS = (5, 20)
SETTINGS = ("model.input_size=48", "model.head=lin-relu-lin", "training.loss=l1", "augment=none")


def copies(table: FaceTable, rows: NDArray[np.int64], times: int) -> FaceTable:
    """Return so many copies of each row, augmented once and for all, as the origin's lay on its disk."""
    many = table.rows(np.repeat(rows, times))
    images = torch.from_numpy(many.images).permute(0, 3, 1, 2).float() / 255
    images, points = origin(images, torch.from_numpy(many.points).float(), table.size, OriginAugment())
    pixels = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return replace(many, images=pixels.numpy(), points=points.numpy())


def main() -> None:
    """Train, judge twice, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    options = parser.parse_args()
    table, groups = load(options.data)
    seen, unseen = (rows[table.complete[rows]] for rows in hold_out(groups, 0.2, seed=0))
    for seed in SEEDS:
        for epochs in EPOCHS:
            results = read_results("leakage")
            if str(seed) in results.get(str(epochs), {}):
                continue
            set_seed(seed)
            rng = np.random.default_rng(seed)
            mine = copies(table, rng.permutation(seen)[:FACES], COPIES)
            others = copies(table, unseen, 1)
            both = replace(
                mine,
                images=np.concatenate([mine.images, others.images]),
                points=np.concatenate([mine.points, others.points]),
                names=(*mine.names, *others.names),
            )
            order = rng.permutation(len(mine))
            test, train = np.split(order, [round(TEST * len(mine))])
            recipe = load_recipe("default", {"seed": seed, "training.epochs": epochs}, SETTINGS)
            predictor, _, _ = train_on(recipe, both, train, test)
            new = np.arange(len(mine), len(both))
            scores = {
                name: judge(predictor, both, rows).overall.rmse
                for name, rows in (("train", train), ("its test faces", test), ("people not seen", new))
            }
            results.setdefault(str(epochs), {})[str(seed)] = scores
            results["setting"] = {"faces": FACES, "copies": COPIES, "machine": machine()}
            write_results("leakage", results)
            print(epochs, seed, scores, flush=True)
    _write_table(read_results("leakage"))


def _write_table(results: dict[str, Any]) -> None:
    lines = [
        "# What a test says whose faces were copied before they were split",
        "",
        f"`python benchmarks/leakage.py`: {FACES} faces, {COPIES} copies of each by the origin's augmentation"
        f" (turned by any angle), split at random after that, a fifth to test, as the origin did; its head"
        f" and L1, ResNet18 at 48 px, one schedule for each row; {results['setting']['machine']}."
        " RMSE in px at 96 px, mean ± standard deviation over"
        f" seeds {', '.join(results[str(EPOCHS[0])])}.",
        "",
        "| epochs | trained on | its test copies | copies of people not seen | the test is too low by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for epochs in EPOCHS:
        runs = list(results.get(str(epochs), {}).values())
        if len(runs) < 2:  # of one there is no spread
            continue
        columns = {name: np.array([run[name] for run in runs]) for name in runs[0]}
        gap = 1 - columns["its test faces"] / columns["people not seen"]
        cells = [mean_and_spread(values, ".2f") for values in columns.values()]
        lines.append(f"| {epochs} | {' | '.join(cells)} | {mean_and_spread(gap, '.0%')} |")
    (HERE / "leakage.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
