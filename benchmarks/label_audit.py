"""Measure how many of twenty injected label errors `data --audit` ranks among its first 25.

    python benchmarks/label_audit.py --data facial-keypoints-detection.zip

Ten rows get the labels of another row, and the labels of ten are shifted by several pixels. They are
injected through a file of corrections, so that everything else is as in normal use: the folds of the default
config are trained with it and audited. An interrupted run is resumed. Writes label_audit.json and
label_audit.md; results that are in label_audit.json are not computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.data import Indices
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results, run_missing
from _common.training import PrintReporter
from numpy.typing import NDArray

from landmarks_fastai.commands.audit import CSV_NAME, SHOWN, audit_run
from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.evaluation.metrics import point_distances
from landmarks_fastai.evaluation.out_of_fold import OOF_NAME, read_out_of_fold
from landmarks_fastai.evaluation.report import Report
from landmarks_fastai.training.cross_validation import (
    cross_validate,
    is_cross_validation,
    resume_cross_validation,
)
from landmarks_fastai.utils.files import write_csv

SHUFFLED, SHIFTED = 10, 10
SHIFT = (4.0, 8.0)
"""Range of the injected shifts, pixels of a 96-pixel image."""

Points = NDArray[np.float32]


def inject_errors(dataset: LandmarkDataset, seed: int) -> tuple[Indices, Points]:
    """Return rows, first the shuffled and then the shifted ones, and their wrong labels (n, K, 2)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(dataset.labeled.any(axis=1)))
    rows = order[: SHUFFLED + SHIFTED]
    wrong = dataset.points[rows]
    for i in range(SHUFFLED):
        others = dataset.points[order[len(rows) + i :]]
        wrong[i] = next(labels for labels in others if _differs(labels, wrong[i], dataset.size))
    for i in range(SHUFFLED, len(rows)):
        wrong[i] += _random_shift(rng, dataset.size)
    return rows, wrong


def _differs(labels: Points, own: Points, size: int) -> bool:
    """Return True if another row labels the same landmarks, on average at least the smallest shift away."""
    if (np.isnan(labels) != np.isnan(own)).any():
        return False
    return bool(np.nanmean(np.hypot(*(labels - own).T)) >= SHIFT[0] * size / 96)


def _random_shift(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Return a shift of random direction and length, (2,) pixels of an image of `size` pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(*SHIFT) * size / 96 * np.array([np.cos(angle), np.sin(angle)])


def write_corrections(path: Path, dataset: LandmarkDataset, rows: Indices, wrong: Points) -> None:
    """Write the wrong labels as corrections."""
    lines: list[tuple[object, ...]] = [("face", "landmark", "action", "x", "y")]
    for row, points in zip(rows.tolist(), wrong, strict=True):
        own = dataset.points[row].tolist()
        for name, (x, y), (own_x, own_y) in zip(dataset.schema.names, points.tolist(), own, strict=True):
            if np.isnan(x) and not np.isnan(own_x):
                lines.append((dataset.names[row], name, "unlabel", "", ""))
            elif not np.isnan(x) and (x, y) != (own_x, own_y):
                lines.append((dataset.names[row], name, "move", f"{x:.3f}", f"{y:.3f}"))
    write_csv(path, lines)


def measure(folder: Path, source: str, overrides: Mapping[str, object], seed: int) -> dict[str, Any]:
    """Inject label errors, train the folds in `folder`, audit them, and return the ranks of the errors."""
    dataset = load_dataset(source)
    rows, wrong = inject_errors(dataset, seed)
    corrections = folder.with_suffix(".csv")
    write_corrections(corrections, dataset, rows, wrong)
    config = load_config("default", {**overrides, "data.corrections": str(corrections)})
    report = _train_folds(folder, config)
    out = folder / "audit"
    (out / CSV_NAME).unlink(missing_ok=True)
    corrected = load_dataset(config.data, seed=config.seed)
    ranking = [error.row for error in audit_run(folder, corrected, out)]
    predicted = read_out_of_fold(folder / OOF_NAME, corrected).landmarks.points[rows]
    own, injected = (
        np.nanmean(point_distances(predicted, labels), axis=1) for labels in (dataset.points[rows], wrong)
    )
    ranks = [1 + ranking.index(row) for row in rows.tolist()]
    return {
        "faces": len(dataset),
        "sha256": dataset.digest,
        "machine": describe_machine(),
        "rmse": report.overall.rmse,
        "ranks": {"shuffled": ranks[:SHUFFLED], "shifted": ranks[SHUFFLED:]},
        "closer": [rank for rank, closer in zip(ranks, injected < own, strict=True) if closer],
    }


def _train_folds(folder: Path, config: TrainConfig) -> Report:
    """Train the folds, or resume training, and return the out-of-fold report."""
    if is_cross_validation(folder):
        result = resume_cross_validation(folder, reporter=PrintReporter())
    else:
        result = cross_validate(config, folder, reporter=PrintReporter())
    if result.report is None:
        raise SystemExit(f"interrupted; run the same command again to resume {folder}")
    return result.report


def render(results: Results) -> str:
    """Return the page."""
    first = next(iter(results.values()))
    rows, closer = [], []
    for name, result in results.items():
        ranks = result["ranks"]
        top = {kind: sum(rank <= SHOWN for rank in ranks[kind]) for kind in ("shuffled", "shifted")}
        cells = [f"{top[kind]} of {len(ranks[kind])} (last {max(ranks[kind])})" for kind in top]
        rows.append([name, *cells, f"{sum(top.values()) / SHOWN:.2f}", f"{result['rmse']:.2f} px"])
        closer += [f"rank {rank} in the run with {name}" for rank in result["closer"]]
    return markdown_page(
        "Label audit",
        f"`python benchmarks/label_audit.py`: twenty label errors injected into {first['faces']:,} faces of"
        f" 96 px. {SHUFFLED} rows get the labels of another row (shuffled), on average at least"
        f" {SHIFT[0]:g} px away; the labels of {SHIFTED} rows are shifted by {SHIFT[0]:g} to {SHIFT[1]:g} px."
        f" Cross-validation of the default config; {first['machine']}. For each kind: the number of errors"
        f" among the first {SHOWN} rows of `data --audit`, and the rank of the last error. Precision:"
        f" fraction of injected errors among the first {SHOWN} rows, at most 0.80.",
        markdown_table(["run", "shuffled", "shifted", "precision", "out-of-fold RMSE"], rows),
        "Other highly ranked rows may have label errors too: not all labels of this data were checked"
        " visually. Injected labels that are closer to the prediction than the original labels:"
        f" {', '.join(closer) or 'none'}. The original labels of such a row may be wrong, and the"
        " injected ones nearly correct.",
    )


FILES = ResultFiles("label_audit", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: 5)")
    parser.add_argument("--epochs", type=int, help="number of epochs (default: the config's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the errors and of training")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder in which the folds are trained"
    )
    options, files = parser.parse()
    overrides = {"seed": options.seed, "data.source": options.data, "data.folds": options.folds}
    if options.epochs is not None:
        overrides["training.epochs"] = options.epochs
    epochs = load_config("default", overrides).training.epochs
    name = f"{options.folds} folds, {epochs} epochs, seed {options.seed}"
    folder = options.runs / f"label-audit-{name.replace(', ', '-').replace(' ', '-')}"
    run_missing(files, {}, [((name,), partial(measure, folder, options.data, overrides, options.seed))])


if __name__ == "__main__":
    main()
