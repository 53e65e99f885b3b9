"""Input size, head and schedule under about the same training time; people held out.

    python benchmarks/recipe.py --data facial-keypoints-detection.zip

Writes recipe.json after each row, and recipe.md. A row that stands in recipe.json is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from holdout import HERE, hold_out, judge, load, machine, read_results, train_on, write_results

from landmarks_fastai.config import load_recipe
from landmarks_fastai.inference.modelfile import save_model

# name: (what differs from the default recipe, epochs that take about five minutes on the machine below)
ONE_CYCLE = "training.schedule={name: one_cycle, max_lr: 0.002}"
ROWS: dict[str, list[str]] = {
    "soft-argmax, 64 px, one-cycle, L1": ["training.epochs=11", ONE_CYCLE, "training.loss=l1"],
    "soft-argmax, 80 px, one-cycle, L1": [
        "training.epochs=8",
        ONE_CYCLE,
        "training.loss=l1",
        "model.input_size=80",
    ],
    "soft-argmax, 64 px, one-cycle, smooth L1": ["training.epochs=11", ONE_CYCLE],
    "soft-argmax, 64 px, flat-cosine, smooth L1": ["training.epochs=11"],
    "lin-relu-lin, 64 px, flat-cosine, smooth L1": ["training.epochs=11", "model.head=lin-relu-lin"],
    "soft-argmax, 64 px, one-cycle, smooth L1, longer": ["training.epochs=26", ONE_CYCLE],
    "the default recipe, whole: soft-argmax, 64 px, flat-cosine, smooth L1": [],
}


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--only", help="run this row alone")
    parser.add_argument("--save", type=Path, help="keep the last row's model here (.safetensors)")
    options = parser.parse_args()
    results = read_results("recipe")
    table, groups = load(options.data)
    train, out = hold_out(groups, 0.2, seed=0)
    results["setting"] = {
        "faces": len(table),
        "train": len(train),
        "held_out": len(out),
        "sha256": table.digest,
        "machine": machine(),
    }
    for name, settings in ROWS.items():
        if name in results or options.only not in (None, name):
            continue
        print(name)
        recipe = load_recipe("default", {"seed": 0}, settings)
        predictor, network, seconds = train_on(recipe, table, train, out)
        if options.save is not None:
            save_model(options.save, network.state_dict(), predictor.header)
        report = judge(predictor, table, out)
        results[name] = {
            "epochs": recipe.training.epochs,
            "minutes": round(seconds / 60, 1),
            "rmse": round(report.overall.rmse, 3),
            "rmse_complete": round(report.complete.rmse, 3),
            "nme": round(report.overall.nme_inter_ocular, 4),
            "failure_8": round(report.overall.failure_rate_8, 4),
        }
        write_results("recipe", results)
    setting = results["setting"]
    lines = [
        "# Which input size, head and schedule",
        "",
        f"`python benchmarks/recipe.py`: {setting['train']:,} faces to train, {setting['held_out']:,} faces"
        " of other people held out (whole groups), seed 0, the last weights, no test-time tricks;"
        f" {setting['machine']}, float32. RMSE in px of the 96 px images."
        " Epochs are fixed beforehand; the machine did other work beside some rows, which shows in their"
        " minutes.",
        "",
        "| recipe | epochs | minutes | RMSE | RMSE of complete rows | NME | failures at 8 % |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in ROWS:
        if name in results:
            row = results[name]
            lines.append(
                f"| {name} | {row['epochs']} | {row['minutes']} | {row['rmse']:.3f} |"
                f" {row['rmse_complete']:.3f} | {row['nme']:.2%} | {row['failure_8']:.1%} |"
            )
    (HERE / "recipe.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
