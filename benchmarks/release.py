r"""Measure the accuracy of the released models on crops, on whole frames and on corrupted images.

    python benchmarks/release.py --data facial-keypoints-detection.zip --frames faces68 \
        --run runs/release-resnet18 --run runs/release-resnet34

Evaluated on the validation rows of each run's own split. Runs of one config with other seeds are named like
the first, with -seed1, -seed2. Writes release.json and release.md after each run; the results of runs that
are not given are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.corruptions import corrupted_rmse, mix_corruptions
from _common.data import Indices, bootstrap_over_groups, load_with_groups
from _common.frames68 import Frame68, match_frames, select_rows
from _common.initial_crops import frame_errors, initial_crops
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import ResultFiles, Results
from numpy.typing import NDArray

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.evaluation.calibration import measure_calibration
from landmarks_fastai.evaluation.metrics import point_distances
from landmarks_fastai.evaluation.report import evaluate_dataset
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.training_images import unseen_rows


def oracle_rank_correlation(predicted: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """Return the rank correlation of the errors with an estimate that uses the labels.

    The estimate for a landmark is its mean error over all faces, times the mean error of the other landmarks
    of its face: it shows what a confidence could achieve that knows how difficult each landmark and face is.
    """
    from scipy.stats import spearmanr

    errors = point_distances(predicted, labels)
    known = np.isfinite(errors)
    others = np.nansum(errors, axis=1, keepdims=True) - np.nan_to_num(errors)
    others /= known.sum(axis=1, keepdims=True) - 1
    return float(spearmanr((np.nanmean(errors, axis=0) * others)[known], errors[known]).statistic)


def measure_crops(
    predictor: Predictor, dataset: LandmarkDataset, groups: Indices, flip: bool
) -> dict[str, Any]:
    """Evaluate a model on rows that it was not trained on."""
    predicted = predictor.predict_batch(dataset.images, flip=flip)
    entries = evaluate_dataset(predicted, dataset).to_dict()
    differences = predicted.points - dataset.points
    squares = np.nansum(differences.astype(np.float64) ** 2, axis=(1, 2))
    mean_squares = bootstrap_over_groups(squares, groups, np.isfinite(differences).sum(axis=(1, 2)))
    return {
        **entries["overall"],
        "calibration": entries["calibration"],
        "standard error": float(np.sqrt(mean_squares).std()),
        "oracle rank correlation": oracle_rank_correlation(predicted.points, dataset.points),
    }


def measure_frames(predictor: Predictor, frames: Sequence[Frame68]) -> dict[str, Any]:
    """Evaluate a model on whole frames, by initial crop and number of refinement passes."""
    crops = initial_crops(frames)
    evaluated = np.array(
        [all(crop is not None for crop in of_frame) for of_frame in zip(*crops.values(), strict=True)]
    )
    result: dict[str, Any] = {"all": len(frames), "evaluated": int(evaluated.sum())}
    for name, of_origin in crops.items():
        for refine in (0, 1):
            errors = frame_errors(predictor, frames, of_origin, refine)[evaluated]
            result[f"{name}, {refine}"] = float(errors.mean())
    return result


def measure_mixed(predictor: Predictor, dataset: LandmarkDataset) -> dict[str, float]:
    """Measure the calibration on images of mixed quality."""
    images, labels = mix_corruptions(dataset.images[:], dataset.points)
    predicted = predictor.predict_batch(images)
    calibration = measure_calibration(predicted.points, labels, predicted.scales, dataset.size)
    assert calibration is not None, "the released configs predict confidence"
    return {"rank_correlation": calibration.rank_correlation, "ece": calibration.ece}


def measure(
    run: Path, dataset: LandmarkDataset, groups: Indices, frames: Sequence[Frame68]
) -> dict[str, Any]:
    """Evaluate the model of a run folder."""
    predictor = Predictor.open(run, "cpu")
    rows = unseen_rows([run], dataset)
    assert rows is not None, "the run was not trained on --data"
    unseen = dataset.subset(rows)
    return {
        "machine": describe_machine(),
        "faces": len(unseen),
        "plain": measure_crops(predictor, unseen, groups[rows], flip=False),
        "flip averaging": measure_crops(predictor, unseen, groups[rows], flip=True),
        "frames": measure_frames(predictor, select_rows(frames, rows)),
        "corrupted": corrupted_rmse(predictor, unseen.images[:], unseen.points),
        "mixed": measure_mixed(predictor, unseen),
    }


def render(results: Results) -> str:
    """Return the page."""
    first = next(iter(results.values()))
    crops = [name for name in first["frames"] if ", " in name]
    seeds = _over_seeds(results)
    return markdown_page(
        "The released models",
        "`python benchmarks/release.py`: faces of held-out identities (the validation rows of each run);"
        f" {' or '.join(sorted({_evaluation_machine(result) for result in results.values()}))}. RMSE in px of"
        " the 96 px images, ± standard error over identities (bootstrap); NME by inter-ocular distance. On"
        " the same faces, the epoch of each run was selected, and its calibration factor was fitted. Rank"
        " correlation of confidence and accuracy; in parentheses, for comparison, that of an estimate that"
        " uses the labels: the mean errors of the landmark and of the other landmarks of the face. *Mixed*:"
        " images of mixed quality: in turn, one is unchanged, and one has each corruption of the last table.",
        markdown_table(
            [
                "model",
                "faces",
                "RMSE",
                "flip averaging",
                "NME",
                "failure rate at 8 %",
                "rank correlation",
                "ECE",
                "mixed: rank correlation",
                "mixed: ECE",
            ],
            [_table_row(name, result) for name, result in results.items()],
        ),
        *(
            ["Mean ± standard deviation over seeds, each with other held-out identities:", seeds]
            if seeds
            else []
        ),
        "NME on whole frames, by the initial crop and the number of refinement passes:",
        markdown_table(
            ["initial crop, passes", *results],
            [[name, *(f"{result['frames'][name]:.2%}" for result in results.values())] for name in crops],
        ),
        "RMSE on corrupted images, px:",
        markdown_table(
            ["corruption", *results],
            [
                [name, *(f"{result['corrupted'][name]:.2f}" for result in results.values())]
                for name in first["corrupted"]
            ],
        ),
    )


def _evaluation_machine(result: Results) -> str:
    """Return the machine without the data type of training: models are evaluated in float32."""
    return str(result["machine"]).rpartition(", ")[0]


def _table_row(name: str, result: Results) -> list[str]:
    plain, mixed = result["plain"], result["mixed"]
    calibration = plain["calibration"]
    return [
        name,
        str(result["faces"]),
        *(f"{one['rmse']:.3f} ± {one['standard error']:.3f}" for one in (plain, result["flip averaging"])),
        f"{plain['nme_inter_ocular']:.2%}",
        f"{plain['failure_rate_8']:.1%}",
        f"{calibration['rank_correlation']:.2f} ({plain['oracle rank correlation']:.2f})",
        f"{calibration['ece']:.1%}",
        f"{mixed['rank_correlation']:.2f}",
        f"{mixed['ece']:.1%}",
    ]


def _over_seeds(results: Results) -> str:
    """Return a list item for each config that was run with several seeds."""
    runs: dict[str, list[Results]] = {}
    for name, result in results.items():
        runs.setdefault(name.partition("-seed")[0], []).append(result)
    return "\n".join(
        f"- {name}, {len(same)} seeds: RMSE {mean_and_std([one['plain']['rmse'] for one in same])} px, flip"
        f" averaging {mean_and_std([one['flip averaging']['rmse'] for one in same])} px."
        for name, same in runs.items()
        if len(same) > 1
    )


FILES = ResultFiles("release", render)


def main() -> None:
    """Evaluate every run, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_frames()
    parser.add_argument("--run", required=True, type=Path, action="append", help="a run folder; repeatable")
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    frames = match_frames(options.frames, dataset)
    for run in options.run:
        result = measure(run, dataset, groups, frames)
        print(run.name, result, flush=True)
        files.write(files.read() | {run.name: result})


if __name__ == "__main__":
    main()
