"""Measure the gain of modeling that incomplete rows were labeled under another annotation protocol.

    python benchmarks/annotation_protocols.py

Trains on synthetic faces, two thirds of which keep the labels of four landmarks only: eyes, nose and lower
lip. Under the second protocol the eyes are nearer to their inner corners, and the lip to the upper lip.
Evaluated on complete rows only. Writes annotation_protocols.json and annotation_protocols.md after each run;
results that are in annotation_protocols.json are not computed again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import ResultFiles, Results, run_missing
from _common.training import train_on

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.evaluation.metrics import rmse
from landmarks_fastai.schemas import KAGGLE15

SEEDS = (0, 1, 2)
TRAIN, EVALUATED = 600, 200
LABELED = ("left_eye_center", "right_eye_center", "nose_tip", "mouth_center_bottom_lip")
"""The landmarks of the incomplete rows."""

TOWARDS = {
    "left_eye_center": "left_eye_inner_corner",
    "right_eye_center": "right_eye_inner_corner",
    "mouth_center_bottom_lip": "mouth_center_top_lip",
}
"""The second protocol labels a landmark halfway to this one."""

VARIANTS = {
    "one protocol for all rows": (False, False),
    "two protocols, not modeled": (True, False),
    "two protocols, modeled (`model.two_protocols`)": (True, True),
}
"""Whether incomplete rows follow the second protocol, and whether the network predicts both."""


def make_incomplete(dataset: LandmarkDataset, second_protocol: bool) -> LandmarkDataset:
    """Reduce two thirds of the first `TRAIN` rows to four labels, optionally of the second protocol."""
    points = dataset.points.copy()
    rows = np.flatnonzero(np.arange(TRAIN) % 3 > 0)
    if second_protocol:
        for name, other in TOWARDS.items():
            column, target = KAGGLE15.names.index(name), KAGGLE15.names.index(other)
            points[rows, column] = (dataset.points[rows, column] + dataset.points[rows, target]) / 2
    unlabeled = np.array([name not in LABELED for name in KAGGLE15.names])
    points[np.ix_(rows, unlabeled)] = np.nan
    return replace(dataset, points=points)


def measure(variant: str, seed: int) -> dict[str, float]:
    """Train one variant, and return the RMSE of all landmarks and of the four in `LABELED`."""
    second_protocol, modeled = VARIANTS[variant]
    synthetic = draw_synthetic_faces(TRAIN + EVALUATED, seed=seed)
    train, valid = np.split(np.arange(TRAIN + EVALUATED), [TRAIN])
    settings = [f"model.two_protocols={modeled}", "model.input_size=48", "training.epochs=25"]
    config = load_config("default", {"seed": seed}, settings)
    predictor = train_on(config, make_incomplete(synthetic, second_protocol), train, valid)
    complete, four = synthetic.subset(valid), list(KAGGLE15.indices(LABELED))
    predicted = predictor.predict_batch(complete.images).points
    return {
        "all": rmse(predicted, complete.points),
        "four": rmse(predicted[:, four], complete.points[:, four]),
    }


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    rows = []
    for variant in VARIANTS:
        runs = results.get(variant, {}).values()
        if runs:
            rows.append([variant, *(mean_and_std([run[name] for run in runs]) for name in ("four", "all"))])
    return markdown_page(
        "Two annotation protocols",
        f"`python benchmarks/annotation_protocols.py`: {TRAIN} synthetic faces for training, two thirds of"
        f" which have only four labeled landmarks; {EVALUATED} other, complete faces for evaluation. The"
        f" default config at 48 px for 25 epochs; {setting['machine']}. RMSE in px of the {setting['size']}"
        f" px images, mean ± standard deviation over {len(SEEDS)} seeds (of faces and training).",
        markdown_table(["labels of the incomplete rows", "the four landmarks", "all landmarks"], rows),
    )


FILES = ResultFiles("annotation_protocols", render)


def main() -> None:
    """Run what is missing, and write the page."""
    _, files = BenchmarkParser(__doc__, FILES).parse()
    setting = {"size": draw_synthetic_faces(1, seed=0).size, "machine": describe_machine()}
    runs = [((variant, str(seed)), partial(measure, variant, seed)) for seed in SEEDS for variant in VARIANTS]
    run_missing(files, setting, runs)


if __name__ == "__main__":
    main()
