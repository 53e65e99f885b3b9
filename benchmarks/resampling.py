"""Measure what it changes that training resamples crops like prediction does.

    python benchmarks/resampling.py --frames faces68

Crops of whole frames are stored at 128 px, as `train` stores the crops of labels of image files, and used at
64 px. Version 0.1.0 sampled them without antialiasing in the augmentation, and a prediction resized the crop
of a frame in one step, without the 128 px in between. Each model is evaluated on frames of held-out
identities. Writes resampling.json and resampling.md after each run; results that are in resampling.json are
not computed again.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from _common.arguments import BenchmarkParser
from _common.data import Indices, hold_out
from _common.frames68 import read_landmarks
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import ResultFiles, Results, run_missing
from _common.training import train_on
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.data.crops import choose_crop, map_to_crop
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.near_duplicates import group_near_duplicates
from landmarks_fastai.evaluation.metrics import rmse
from landmarks_fastai.geometry import Crop, extract_crop, extract_input
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.training import augmentation
from landmarks_fastai.utils.images import read_image
from landmarks_fastai.utils.text import format_count

SEEDS = (0, 1, 2)
STORED, INPUT = 128, 64
EVERY = 6
"""One of this many frames is used."""

EPOCHS = 6
TRAININGS = {"not antialiased, as in 0.1.0": False, "antialiased": True}
PREDICTIONS = {"in one step, as in 0.1.0": None, "by way of 128 px": STORED}


def warp_without_antialiasing(
    images: Tensor, matrix: Tensor, size: int, noise: Tensor | None = None
) -> Tensor:
    """Transform images like version 0.1.0: one bilinear sample for each pixel of the result."""
    assert noise is None
    grid = augmentation._sampling_grid(matrix, images.shape[-1], size, size)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


@cache
def load_frames(folder: Path) -> tuple[LandmarkDataset, tuple[Path, ...], tuple[Crop, ...], Indices]:
    """Return the stored crops, and of each its frame, its crop in the frame, and its near-duplicate group."""
    names, points = read_landmarks(folder)
    paths = tuple(folder / "images" / name for name in names[::EVERY])
    images, labels, crops = [], [], []
    for path, face in zip(paths, points[::EVERY], strict=True):
        frame = read_image(path)
        crop = choose_crop(face, None, frame.shape[1], frame.shape[0], "landmarks")
        images.append(extract_crop(frame, crop, STORED, 1))
        labels.append(map_to_crop(face, crop, STORED).astype(np.float32))
        crops.append(crop)
    dataset = LandmarkDataset(
        np.stack(images), np.stack(labels), KAGGLE15, tuple(path.name for path in paths), str(folder), ""
    )
    return dataset, paths, tuple(crops), group_near_duplicates(dataset)


def measure_crops(folder: Path) -> dict[str, float]:
    """Return how much the crops of a prediction differ from those of a training, in gray levels."""
    dataset, paths, crops, _ = load_frames(folder)
    batch = torch.from_numpy(dataset.images[:]).permute(0, 3, 1, 2).float()
    scale = augmentation.rotation_and_scale(
        torch.zeros(len(batch)), torch.full((len(batch),), INPUT / STORED)
    )
    matrix = augmentation.about_centers(scale, STORED, INPUT)
    trained = {
        name: (augmentation.warp_images if antialiased else warp_without_antialiasing)(batch, matrix, INPUT)
        for name, antialiased in TRAININGS.items()
    }
    differences = {}
    for (training, seen), (prediction, size) in zip(trained.items(), PREDICTIONS.items(), strict=True):
        predicted = np.stack(
            [
                extract_input(read_image(path), crop, INPUT, 1, size)
                for path, crop in zip(paths, crops, strict=True)
            ]
        )
        difference = np.abs(seen[:, 0].numpy() - predicted[..., 0])
        differences[f"{training}; {prediction}"] = float(difference.mean())
    return differences


def measure(folder: Path, antialiased: bool, seed: int) -> dict[str, float]:
    """Train one model, and return the RMSE of each kind of prediction on held-out frames."""
    dataset, paths, crops, groups = load_frames(folder)
    train, valid = hold_out(groups, 0.25, seed)
    settings = [f"training.epochs={EPOCHS}", f"model.input_size={INPUT}"]
    config = load_config("quick", {"seed": seed}, settings)
    original = augmentation.warp_images
    if not antialiased:
        augmentation.warp_images = warp_without_antialiasing
    try:
        predictor = train_on(config, dataset, train, valid)
    finally:
        augmentation.warp_images = original
    return {
        name: _evaluate(predictor, size, dataset, paths, crops, valid) for name, size in PREDICTIONS.items()
    }


def _evaluate(
    predictor: Predictor,
    image_size: int | None,
    dataset: LandmarkDataset,
    paths: tuple[Path, ...],
    crops: tuple[Crop, ...],
    rows: Indices,
) -> float:
    """Return the RMSE of the landmarks of some frames, in pixels of the stored crops."""
    header = predictor.header.model_copy(update={"image_size": image_size})
    resampled = Predictor(header, predictor._backend)
    predicted: list[NDArray[np.floating]] = []
    for row in rows.tolist():
        landmarks = resampled.predict_crops(read_image(paths[row]), [crops[row]])
        predicted.append(crops[row].to_crop(landmarks.points[0], STORED))
    return rmse(np.stack(predicted), dataset.points[rows])


def _worse(results: Results, seeds: list[str]) -> int:
    """Return the number of seeds with which the antialiased training has the larger error."""
    before, after = (
        [results[training][seed][prediction] for seed in seeds]
        for training, prediction in zip(TRAININGS, PREDICTIONS, strict=True)
    )
    return sum(a > b for a, b in zip(after, before, strict=True))


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    seeds = set.intersection(*(set(results.get(training, {})) for training in TRAININGS))
    rows = [
        [
            training,
            *(
                mean_and_std([results[training][seed][name] for seed in sorted(seeds)])
                for name in PREDICTIONS
            ),
        ]
        for training in (TRAININGS if seeds else ())
    ]
    differences = [f"- {name}: {value:.2f} gray levels" for name, value in results["crops"].items()]
    return markdown_page(
        "Resampling in training and prediction",
        f"`python benchmarks/resampling.py --frames faces68`: {setting['rows']:,} frames of videos, every"
        f" {EVERY}th of faces68, with faces about as large as the stored crops; {setting['machine']}.",
        "Mean absolute difference of the crops that a training without random changes and a prediction on the"
        " frame show the network:",
        "\n".join(differences),
        "A quarter of the frames, of other people, is held out. Crops around the landmarks are stored at"
        f" {STORED} px for the training; the network has {INPUT} px. The quick config with {EPOCHS} epochs,"
        " so the models are far from their best. RMSE on the held-out frames in px of the stored crops, mean"
        f" and standard deviation over {format_count(len(seeds), 'seed')} (of split and training), by how a"
        " prediction resizes the crop of the frame. The columns compare the same models; the rows are"
        f" different trainings, which also differ by chance. With {_worse(results, sorted(seeds))} of the"
        " seeds, the antialiased training has the larger error, by less than the seeds differ.",
        markdown_table(["augmentation", *PREDICTIONS], rows),
        "The released models have inputs of the size of their training images, 96 px, so nothing changes for"
        " them.",
    )


FILES = ResultFiles("resampling", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_frames()
    options, files = parser.parse()
    dataset = load_frames(options.frames)[0]
    setting = {"rows": len(dataset), "machine": describe_machine()}
    runs = [(("crops",), partial(measure_crops, options.frames))]
    for seed in SEEDS:
        for training, antialiased in TRAININGS.items():
            runs.append(((training, str(seed)), partial(measure, options.frames, antialiased, seed)))
    run_missing(files, setting, runs)


if __name__ == "__main__":
    main()
