r"""Measure landmarks of an object that is not a face, in images in which nothing says where the object is.

    python benchmarks/whole_image.py --folder whole-image

Draws 1,000 labeled photos of a teapot with nine landmarks, trains on them with `landmarks-fastai train`, once
per seed, and evaluates on other photos, with the object at several sizes and places. Writes whole_image.json
and whole_image.md after each measurement; photos and runs in the folder, and results in whole_image.json, are
not made again.
"""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table, mean_and_std
from _common.results import Measurement, ResultFiles, Results, run_missing
from _common.teapots import HEIGHT, MAX_ROLL, WIDTH, TeapotPhoto, draw_teapot_photo, write_teapots
from numpy.typing import NDArray

from landmarks_fastai.cli import run
from landmarks_fastai.data.crops import MARGIN
from landmarks_fastai.geometry import Crop, center_crop, square_crop
from landmarks_fastai.inference.image_search import search_image, search_windows
from landmarks_fastai.inference.predictor import Predictor

TRAINING_PHOTOS = 1000
EPOCHS = 12
SIZES = (0.1, 0.2, 0.4, 0.8)
"""Sizes of the object in the evaluated photos, as fractions of the shorter side of the image."""

ABSENT = 0.0
"""Size that stands for photos without the object."""

LOCATED = 0.1
"""An object counts as located if the mean error of its landmarks is less than this fraction of its size."""

METHODS = (
    "box with margin, 1 pass",
    "tight box, no refinement",
    "tight box, 1 pass",
    "whole image, no refinement",
    "whole image, 1 pass",
    "whole image, 3 passes",
    "search, 1 pass",
)


def train(folder: Path, seed: int) -> Path:
    """Draw the training photos and train, unless that is done; return the run folder."""
    data, out = folder / "train", folder / "runs" / f"seed-{seed}"
    if not (data / "landmarks.csv").is_file():
        rng = np.random.default_rng(0)
        sizes = np.exp(rng.uniform(math.log(SIZES[0]), math.log(SIZES[-1]), TRAINING_PHOTOS))
        write_teapots(data, (draw_teapot_photo(rng, size) for size in sizes.tolist()))
    if not (out / "model.safetensors").is_file():
        options = ["--set", "augment.flip=0", "--set", f"training.epochs={EPOCHS}"]
        arguments = [
            "train",
            "--config",
            "quick",
            "--data",
            str(data),
            "--seed",
            str(seed),
            "--out",
            str(out),
        ]
        if run([*arguments, *options]):
            raise SystemExit("training failed")
    return out


def draw_photos(size: float, count: int) -> list[TeapotPhoto]:
    """Draw photos for the evaluation, with the object at random places."""
    # MAX_MOTION was chosen on photos of seed 1 without the object, so that others are evaluated
    rng = np.random.default_rng([2 if size == ABSENT else 1, round(1000 * size)])
    if size != ABSENT:
        return [draw_teapot_photo(rng, size) for _ in range(count)]
    photos = []
    for _ in range(count):
        photo = draw_teapot_photo(rng, 0.02)
        low, high = (
            edge.astype(int) for edge in (photo.points.min(axis=0) - 4, photo.points.max(axis=0) + 6)
        )
        image = photo.image.copy()
        image[max(low[1], 0) : high[1], max(low[0], 0) : high[0]] = 128  # covers the object
        photos.append(TeapotPhoto(image, photo.points))
    return photos


def predict(predictor: Predictor, photo: TeapotPhoto) -> dict[str, NDArray[np.float32] | None]:
    """Return the (K, 2) landmarks by each of `METHODS`; None if the object is not found."""
    box = (*(photo.points.min(axis=0) + 0.5).tolist(), *(photo.points.max(axis=0) + 0.5).tolist())
    tight, whole = square_crop(*box), center_crop(WIDTH, HEIGHT)
    (x, y), side = tight.center, MARGIN * tight.side
    found = search_image(predictor, photo.image).crops
    starts: list[tuple[list[Crop], int]] = [
        ([Crop(x - side / 2, y - side / 2, side)], 1),
        ([tight], 0),
        ([tight], 1),
        ([whole], 0),
        ([whole], 1),
        ([whole], 3),
        (found, 1),
    ]
    return {
        method: predictor.predict_crops(photo.image, crops, refine=passes).points[0] if crops else None
        for method, (crops, passes) in zip(METHODS, starts, strict=True)
    }


def measure(run_folder: Path, size: float, count: int) -> dict[str, Any]:
    """Return the error of each landmark relative to the object's size, by method; infinite if not found."""
    predictor = Predictor.open(run_folder, "cpu")
    photos = draw_photos(size, count)
    if size == ABSENT:
        started = time.process_time()
        found = [len(search_image(predictor, photo.image).crops) for photo in photos]
        return {"found": sum(found), "seconds": (time.process_time() - started) / count}
    errors: dict[str, list[float | None]] = {method: [] for method in METHODS}
    for photo in photos:
        for method, points in predict(predictor, photo).items():
            error = None if points is None else np.hypot(*(points - photo.points).T).mean() / photo.size
            errors[method].append(None if error is None else round(float(error), 4))
    return {"errors": errors, "at edge": [_is_at_edge(photo) for photo in photos]}


def _is_at_edge(photo: TeapotPhoto) -> bool:
    """Return True if a landmark is closer to an edge of the image than a tenth of the object's size."""
    near = 0.1 * photo.size
    return bool((photo.points < near).any() or (photo.points > np.array([WIDTH, HEIGHT]) - 1 - near).any())


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    seeds = {name: one for name, one in results.items() if name.startswith("seed")}
    header = ["crop"] + [f"object of {size:.0%}" for size in SIZES]
    errors, located = [], []
    for method in METHODS:
        cells = [
            [_summary(one[str(size)]["errors"][method]) for one in seeds.values() if str(size) in one]
            for size in SIZES
        ]
        errors.append([method, *(_percent([median for median, _ in cell]) for cell in cells)])
        located.append([method, *(_percent([share for _, share in cell], ".0%") for cell in cells)])
    absent = [one[str(ABSENT)] for one in seeds.values() if str(ABSENT) in one]
    places = _places(list(seeds.values()))
    return markdown_page(
        "Objects that are not faces",
        f"`python benchmarks/whole_image.py`: {TRAINING_PHOTOS:,} drawn photos of {WIDTH} × {HEIGHT} px of a"
        f" teapot with nine landmarks in front of clutter, {SIZES[0]:.0%} to {SIZES[-1]:.0%} of the image's"
        f" shorter side in size and rotated by up to {MAX_ROLL:g}°; config `quick` with {EPOCHS} epochs and"
        f" without mirroring, {len(seeds)} training seeds; {setting['machine']}. Evaluated on"
        f' {setting["photos"]} other photos of each size, with the object at random places. "Box with margin"'
        f' is {MARGIN:g} times as large as the bounding box of the landmarks, as in training; "tight box" is'
        ' that bounding box; "whole image" is the center crop of the image; "search" is the default of'
        f" `predict` without boxes, with {len(search_windows(WIDTH, HEIGHT))} windows.",
        "Median over the photos of the mean error of the landmarks, relative to the object's size (mean ±"
        " standard deviation over the seeds):",
        markdown_table(header, errors),
        f"Objects located, with a mean error below {LOCATED:.0%} of their size:",
        markdown_table(header, located),
        places,
        f"In photos without the object, the search finds one in {sum(one['found'] for one in absent)} of"
        f" {len(absent) * setting['photos']}. It takes {np.mean([one['seconds'] for one in absent]):.1f} s of"
        " processor time per photo."
        if absent
        else "",
    )


def _summary(errors: list[float | None]) -> tuple[float, float]:
    """Return the median error, infinite where the object is not found, and the share of located objects."""
    values = np.array([math.inf if error is None else error for error in errors])
    return float(np.median(values)), float((values < LOCATED).mean())


def _percent(values: list[float], form: str = ".1%") -> str:
    return mean_and_std(values, form) if values else ""


def _places(seeds: list[dict[str, Any]]) -> str:
    """Return a sentence about objects near an edge of the image and those away from it."""
    shares = []
    for at_edge in (True, False):
        values = [
            math.inf if error is None else error
            for one in seeds
            for size in SIZES
            if str(size) in one
            for error, edge in zip(
                one[str(size)]["errors"][METHODS[-1]], one[str(size)]["at edge"], strict=True
            )
            if edge == at_edge
        ]
        shares.append(f"{sum(value < LOCATED for value in values)} of {len(values)}")
    return (
        f"The search locates {shares[0]} objects with a landmark closer to an edge of the image than a tenth"
        f" of their size, and {shares[1]} others."
    )


FILES = ResultFiles("whole_image", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--folder", required=True, type=Path, help="folder of the photos and runs")
    parser.add_argument("--seeds", type=int, default=3, help="number of training seeds")
    parser.add_argument("--photos", type=int, default=40, help="photos of each size")
    options, files = parser.parse()
    setting = {"photos": options.photos, "machine": describe_machine()}

    def measure_seed(seed: int, size: float) -> dict[str, Any]:
        return measure(train(options.folder, seed), size, options.photos)

    measurements: list[Measurement] = [
        ((f"seed {seed}", str(size)), partial(measure_seed, seed, size))
        for seed in range(options.seeds)
        for size in (ABSENT, *SIZES)
    ]
    run_missing(files, setting, measurements)


if __name__ == "__main__":
    main()
