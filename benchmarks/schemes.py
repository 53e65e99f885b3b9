"""What it is worth to know that incomplete rows were labelled by another rule.

    python benchmarks/schemes.py

Drawn faces, two thirds of which lose all labels but the eyes', the nose's and the lower lip's; these are
labelled by another rule: the eyes nearer to their inner corners, the lip nearer to the upper one. Judged by
complete faces alone.
Writes schemes.json and schemes.md; what stands there already is not run again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from holdout import HERE, machine, mean_and_spread, read_results, train_on, write_results

from landmarks_fastai.config import load_recipe
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.data.table import FaceTable
from landmarks_fastai.evaluation import rmse
from landmarks_fastai.schema import KAGGLE15

SEEDS = (0, 1, 2)
TRAIN, JUDGED = 600, 200
KEPT = ("left_eye_center", "right_eye_center", "nose_tip", "mouth_center_bottom_lip")
TOWARDS = {
    "left_eye_center": "left_eye_inner_corner",
    "right_eye_center": "right_eye_inner_corner",
    "mouth_center_bottom_lip": "mouth_center_top_lip",
}
"""Where the other rule puts a point: half way to this one."""

WAYS = {
    "every row by the complete ones' rule": (False, False),
    "two rules, told nothing": (True, False),
    "two rules, told which": (True, True),
}


def relabelled(table: FaceTable, other_rule: bool) -> FaceTable:
    """Leave two thirds of the first `TRAIN` rows their four points, by the other rule if so."""
    points = table.points.copy()
    partial = np.arange(TRAIN) % 3 > 0
    rows = np.flatnonzero(partial)
    if other_rule:
        for name, goal in TOWARDS.items():
            at, to = KAGGLE15.points.index(name), KAGGLE15.points.index(goal)
            points[rows, at] = (table.points[rows, at] + table.points[rows, to]) / 2
    lost = [k for k, name in enumerate(KAGGLE15.points) if name not in KEPT]
    points[np.ix_(rows, lost)] = np.nan
    return replace(table, points=points)


def main() -> None:
    """Train three ways, three seeds each."""
    results = read_results("schemes")
    kept = list(KAGGLE15.indices(KEPT))
    for seed in SEEDS:
        drawn = draw_faces(TRAIN + JUDGED, seed=seed)
        judged = drawn.rows(np.arange(TRAIN, TRAIN + JUDGED))
        for name, (other_rule, told) in WAYS.items():
            key = f"{name}, {seed}"
            if key in results:
                continue
            settings = [f"model.two_schemes={told}", "model.input_size=48", "training.epochs=25"]
            recipe = load_recipe("default", {"seed": seed}, settings)
            table = relabelled(drawn, other_rule)
            predictor, _, _ = train_on(recipe, table, np.arange(TRAIN), np.arange(TRAIN, TRAIN + JUDGED))
            found = predictor.predict_crops(judged.images).points
            results[key] = {
                "all": rmse(found, judged.points),
                "four": rmse(found[:, kept], judged.points[:, kept]),
            }
            print(key, results[key], flush=True)
            write_results("schemes", results)
    lines = [
        "# Two ways of labelling",
        "",
        f"`python benchmarks/schemes.py`: {TRAIN} drawn faces to train on, two thirds of which have four"
        f" labels; {JUDGED} others, complete, to judge by. The default recipe at 48 px, 25 epochs;"
        f" {machine()}. RMSE in px of the {drawn.size} px images, mean ± standard deviation over"
        f" {len(SEEDS)} seeds (of faces and training).",
        "",
        "| labels of the incomplete rows | the four points | all points |",
        "| --- | --- | --- |",
    ]
    for name in WAYS:
        cells = []
        for what in ("four", "all"):
            values = [results[f"{name}, {seed}"][what] for seed in SEEDS]
            cells.append(mean_and_spread(values))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    (HERE / "schemes.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
