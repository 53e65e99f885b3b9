"""How many of twenty planted label errors `data --audit` ranks among its first 25.

    python benchmarks/audit.py --data facial-keypoints-detection.zip

Ten rows get the labels of another row, and ten are moved as a whole by several px. They are planted as a file
of fixes, so all else is as a user has it: folds of the default recipe are trained with it, and audited. An
interrupted run goes on where it was. Writes audit.json and audit.md; what stands in audit.json is not run
again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from holdout import HERE, Quiet, machine, read_results, write_results
from numpy.typing import NDArray

from landmarks_fastai.config import load_recipe
from landmarks_fastai.data.source import default_cache, load_faces, load_table
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.evaluation import point_distances
from landmarks_fastai.files import write_csv
from landmarks_fastai.tasks.audit import CSV_NAME, SHOWN, audit_run
from landmarks_fastai.training.folds import is_folds, resume_folds, train_folds
from landmarks_fastai.training.oof import OOF_NAME, read_oof

SHUFFLED, SHIFTED = 10, 10
SHIFT = (4.0, 8.0)  # px at 96 px


def plant(table: FaceTable, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return rows, the shuffled and then the shifted, and their wrong labels (n, K, 2)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(table.labelled.any(axis=1)))
    rows = order[: SHUFFLED + SHIFTED]
    wrong = table.points[rows]
    for i in range(SHUFFLED):
        others = table.points[order[len(rows) + i :]]
        wrong[i] = next(labels for labels in others if is_other(labels, wrong[i], table.size))
    for i in range(SHUFFLED, len(rows)):
        wrong[i] += step(rng, SHIFT, table.size)
    return rows, wrong


def is_other(labels: NDArray[np.float32], own: NDArray[np.float32], size: int) -> bool:
    """Say whether another row's (K, 2) labels are of the same points, and as wrong as the least shift."""
    if (np.isnan(labels) != np.isnan(own)).any():
        return False
    return bool(np.nanmean(np.hypot(*(labels - own).T)) >= SHIFT[0] * size / 96)


def step(rng: np.random.Generator, lengths: tuple[float, float], size: int) -> NDArray[np.float64]:
    """Draw a direction, and a length for an image of `size` px."""
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(*lengths) * size / 96 * np.array([np.cos(angle), np.sin(angle)])


def mean_distance(predicted: NDArray[np.float32], labels: NDArray[np.float32]) -> list[float]:
    """Return the mean distance (n,) of predictions from labels, both (n, K, 2), px."""
    return list(np.nanmean(point_distances(predicted, labels), axis=1))


def write_plant(path: Path, table: FaceTable, rows: NDArray[np.int64], wrong: NDArray[np.float32]) -> None:
    """Write the wrong labels as fixes."""
    lines: list[tuple[object, ...]] = [("face", "point", "action", "x", "y")]
    for row, points in zip(rows.tolist(), wrong, strict=True):
        for name, (x, y), (old_x, old_y) in zip(
            table.schema.points, points.tolist(), table.points[row].tolist(), strict=True
        ):
            if np.isnan(x) and not np.isnan(old_x):
                lines.append((table.names[row], name, "unlabel", "", ""))
            elif not np.isnan(x) and (x, y) != (old_x, old_y):
                lines.append((table.names[row], name, "move", f"{x:.3f}", f"{y:.3f}"))
    write_csv(path, lines)


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="plants the errors, and trains")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the folds are trained")
    options = parser.parse_args()
    results = read_results("audit")
    table = load_faces(options.data, default_cache())
    rows, wrong = plant(table, options.seed)
    overrides = {"seed": options.seed, "data.source": options.data, "data.folds": options.folds}
    if options.epochs is not None:
        overrides["training.epochs"] = options.epochs
    recipe = load_recipe("default", overrides)
    key = f"{options.folds} folds, {recipe.training.epochs} epochs, seed {options.seed}"
    if key not in results:
        folder = options.runs / f"audit-{key.replace(', ', '-').replace(' ', '-')}"
        fixes = folder.with_suffix(".csv")
        write_plant(fixes, table, rows, wrong)
        recipe = load_recipe("default", {**overrides, "data.fixes": str(fixes)})
        if is_folds(folder):
            outcome = resume_folds(folder, default_cache(), Quiet())
        else:
            outcome = train_folds(recipe, folder, default_cache(), Quiet())
        if outcome.report is None:
            raise SystemExit(f"stopped; the same command goes on with {folder}")
        out = folder / "audit"
        (out / CSV_NAME).unlink(missing_ok=True)
        planted = load_table(recipe.data, default_cache(), recipe.seed)
        doubts = audit_run(folder, planted, out)
        predicted = read_oof(folder / OOF_NAME, planted).points[rows]
        own, now = (mean_distance(predicted, labels) for labels in (table.points[rows], wrong))
        place = {doubt.row: number for number, doubt in enumerate(doubts, start=1)}
        ranks = [place[row] for row in rows.tolist()]
        results[key] = {
            "faces": len(table),
            "sha256": table.digest,
            "machine": machine(),
            "rmse": outcome.report.overall.rmse,
            "ranks": {
                "shuffled": ranks[:SHUFFLED],
                "shifted": ranks[SHUFFLED:],
            },
            "mended": [
                rank for rank, of_own, of_plant in zip(ranks, own, now, strict=True) if of_plant < of_own
            ],
        }
        write_results("audit", results)
    write_report(results)


def write_report(results: dict[str, Any]) -> None:
    """Write audit.md."""
    first = next(iter(results.values()))
    lines = [
        "# Which labels are wrong",
        "",
        f"`python benchmarks/audit.py`: twenty wrong rows planted among {first['faces']:,} faces,"
        f" {SHUFFLED} with the labels of another row, at least {SHIFT[0]:g} px of 96 off on the mean,"
        f" and {SHIFTED} shifted by {SHIFT[0]:g} to {SHIFT[1]:g} px. Folds of the default recipe;"
        f" {first['machine']}. Of each kind: how many stand among the first {SHOWN} of `data --audit`, and"
        " the last of their ranks. Precision is the share of planted rows among these, 0.80 at most.",
        "",
        "| run | shuffled | shifted | precision | RMSE out of fold |",
        "| --- | --- | --- | --- | --- |",
    ]
    for key, result in results.items():
        kinds = result["ranks"]
        found = {kind: sum(rank <= SHOWN for rank in ranks) for kind, ranks in kinds.items()}
        cells = [f"{found[kind]} of {len(ranks)} (last {max(ranks)})" for kind, ranks in kinds.items()]
        precision = sum(found.values()) / SHOWN
        lines.append(f"| {key} | {' | '.join(cells)} | {precision:.2f} | {result['rmse']:.2f} px |")
    mended = [f"rank {rank} of {key}" for key, result in results.items() for rank in result.get("mended", ())]
    lines += [
        "",
        "What else ranks high may be wrong too: nobody has looked at every label of this data. Planted rows"
        f" that lie nearer to the prediction than the row's own labels did: {', '.join(mended) or 'none'}."
        " Such a plant mends what may have been wrong before, and there is little for an audit to find.",
    ]
    (HERE / "audit.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
