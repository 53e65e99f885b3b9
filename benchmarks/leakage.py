"""Measure by how much a split after augmentation, as in the original project, underestimates the test error.

    python benchmarks/leakage.py --data facial-keypoints-detection.zip

The original project wrote ten augmented copies of each face to disk and then drew the test rows among all
copies, so that nearly every test row has rotated and recolored copies of itself in training. This script does
the same with some faces, with the network and the augmentation of the original config at a size that a CPU
can train. The reference is the error of the same network on copies of held-out identities. Writes
leakage.json and leakage.md after each run; results that are in leakage.json are not computed again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from _common.arguments import BenchmarkParser
from _common.data import Indices, hold_out, load_with_groups
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import ResultFiles, Results, run_missing
from _common.training import evaluate_rows, train_on
from fastai.torch_core import set_seed

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import OriginalAugment
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.training.augmentation import original

SEEDS = (0, 1, 2)
FACES, COPIES = 150, 10
TEST_FRACTION = 0.2
EPOCHS = (5, 20)
SETTINGS = ("model.input_size=48", "model.head=lin-relu-lin", "training.loss=l1", "augment=none")


def augmented_copies(dataset: LandmarkDataset, rows: Indices, count: int) -> LandmarkDataset:
    """Return `count` copies of each row, augmented once, as the original project stored them on disk."""
    repeated = dataset.subset(np.repeat(rows, count))
    images = torch.from_numpy(repeated.images[:]).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(repeated.points).float()
    images, points = original(images, labels, dataset.size, OriginalAugment())
    pixels = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return replace(repeated, images=pixels.numpy(), points=points.numpy())


def measure(
    dataset: LandmarkDataset, known: Indices, held_out: Indices, epochs: int, seed: int
) -> dict[str, float]:
    """Train on copies, and return the RMSE on these, on test copies and on copies of held-out identities."""
    set_seed(seed)
    rng = np.random.default_rng(seed)
    copies = augmented_copies(dataset, rng.permutation(known)[:FACES], COPIES)
    others = augmented_copies(dataset, held_out, 1)
    joined = replace(
        copies,
        images=np.concatenate([copies.images[:], others.images[:]]),
        points=np.concatenate([copies.points, others.points]),
        names=(*copies.names, *others.names),
    )
    order = rng.permutation(len(copies))
    test, train = np.split(order, [round(TEST_FRACTION * len(copies))])
    config = load_config("default", {"seed": seed, "training.epochs": epochs}, SETTINGS)
    predictor = train_on(config, joined, train, test)
    parts = {"train": train, "test": test, "held out": np.arange(len(copies), len(joined))}
    return {name: evaluate_rows(predictor, joined, rows).overall.rmse for name, rows in parts.items()}


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    rows = []
    for epochs in EPOCHS:
        runs = results.get(str(epochs), {}).values()
        train, test, held_out = (
            np.array([run[name] for run in runs]) for name in ("train", "test", "held out")
        )
        if len(train) > 1:  # the standard deviation needs two runs
            cells = [mean_and_std(values, ".2f") for values in (train, test, held_out)]
            rows.append([str(epochs), *cells, mean_and_std(1 - test / held_out, ".0%")])
    return markdown_page(
        "Test error if rows are split after augmentation",
        f"`python benchmarks/leakage.py`: {setting['faces']} faces, {setting['copies']} augmented copies of"
        " each (augmentation of the original config, with rotation over the full circle). As in the original"
        " project, a fifth of the copies is then drawn at random for testing. Head and L1 loss of the"
        f" original config, ResNet18 at 48 px, one training run per row and seed; {setting['machine']}. RMSE"
        " in px of the 96 px images, mean ± standard deviation over seeds"
        f" {', '.join(results.get(str(EPOCHS[0]), {}))}.",
        markdown_table(
            [
                "epochs",
                "training copies",
                "test copies",
                "copies of held-out identities",
                "test RMSE is too low by",
            ],
            rows,
        ),
    )


FILES = ResultFiles("leakage", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    known, held_out = (rows[dataset.complete[rows]] for rows in hold_out(groups, 0.2, seed=0))
    setting = {"faces": FACES, "copies": COPIES, "machine": describe_machine()}
    runs = [
        ((str(epochs), str(seed)), partial(measure, dataset, known, held_out, epochs, seed))
        for seed in SEEDS
        for epochs in EPOCHS
    ]
    run_missing(files, setting, runs)


if __name__ == "__main__":
    main()
