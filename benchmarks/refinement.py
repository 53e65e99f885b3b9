r"""Measure the gain of re-estimating the crop from the predicted landmarks and running the model again.

    python benchmarks/refinement.py --data facial-keypoints-detection.zip --frames faces68 \
        --run runs/release-resnet18

Evaluated on whole video frames, upright and rotated, whose rows the run was not trained on. Writes
refinement.json and refinement.md after each measurement; results that are in refinement.json are not measured
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.data import Indices, bootstrap_over_groups, load_with_groups
from _common.frames68 import Frame68, match_frames, select_rows
from _common.initial_crops import (
    frame_errors,
    image_errors,
    initial_crops,
    nearest_crop,
    read_frame,
)
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import Measurement, ResultFiles, Results, run_missing
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.geometry import ROLL_TOLERANCE, Crop, extract_crop, rotate_points
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.training_images import unseen_rows
from landmarks_fastai.utils.cache_folder import default_cache_dir

PASSES = (0, 1, 2)
ROTATIONS = (15, 30, 45, 60, 90)
"""Degrees by which frames are rotated, while the true crop stays upright."""

Crops = Sequence[Crop | None]


def rotate_frame(frame: Frame68, degrees: float) -> tuple[NDArray[np.uint8], NDArray[np.float64], Crop]:
    """Rotate a frame clockwise about the center of its crop.

    Returns
    -------
    tuple of NDArray, NDArray and Crop
        The region around the face, three crops wide and black where the rotated region does not reach; the
        landmarks; the crop, still upright.
    """
    side, (x, y) = frame.crop.side, frame.crop.center
    size = ceil(3 * side)
    region = Crop(x - size / 2, y - size / 2, size)
    image = Image.fromarray(extract_crop(read_frame(frame.image), region, size, 3))
    center = size / 2, size / 2
    points = rotate_points(region.to_crop(frame.points, size) + 0.5, degrees, center) - 0.5
    crop = Crop((size - side) / 2, (size - side) / 2, side)
    return np.asarray(image.rotate(-degrees, Image.Resampling.BICUBIC)), points, crop


def measure(
    crops: Crops,
    errors: Sequence[NDArray[np.float64]],
    groups: Indices,
    evaluated: NDArray[np.bool_],
) -> dict[str, Any]:
    """Return how many faces were detected, and the NME for each number of passes with its gain over none.

    Parameters
    ----------
    crops
        N initial crops; None where the face was not detected.
    errors
        (N,) NME for each of `PASSES`.
    groups
        (N,) near-duplicate groups.
    evaluated
        (N,) mask of the frames that count.
    """
    without = errors[0][evaluated]
    result: dict[str, Any] = {"detected": float(np.mean([crop is not None for crop in crops]))}
    for passes, each in zip(PASSES, errors, strict=True):
        gains = without - each[evaluated]
        result[str(passes)] = {
            "nme": float(each[evaluated].mean()),
            "gain": float(gains.mean()),
            "standard error": float(bootstrap_over_groups(gains, groups[evaluated]).std()),
        }
    return result


def measure_upright(
    predictor: Predictor,
    frames: Sequence[Frame68],
    crops: Crops,
    groups: Indices,
    evaluated: NDArray[np.bool_],
) -> dict[str, Any]:
    """Measure frames as they are, from given initial crops."""
    errors = [frame_errors(predictor, frames, crops, passes) for passes in PASSES]
    return measure(crops, errors, groups, evaluated)


def rotated_measurements(
    predictor: Predictor, frames: Sequence[Frame68], groups: Indices
) -> Iterator[Measurement]:
    """Yield the measurements on rotated frames."""
    detect = open_detector("centerface", default_cache_dir())

    def measure_rotated(degrees: float, detected: bool) -> dict[str, Any]:
        images, points, true = zip(*(rotate_frame(frame, degrees) for frame in frames), strict=True)
        crops: Crops = true
        if detected:
            crops = [
                nearest_crop(detect(image).crops, crop) for image, crop in zip(images, true, strict=True)
            ]
        labels = np.stack(points)
        errors = [image_errors(predictor, images, labels, crops, passes) for passes in PASSES]
        return measure(crops, errors, groups, np.isfinite(errors[0]))

    for degrees in ROTATIONS:
        for origin, detected in (("true crop", False), ("centerface", True)):
            yield (f"{origin}, frame rotated by {degrees}°",), partial(measure_rotated, degrees, detected)


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    rows = []
    for name, result in results.items():
        if name == "setting":
            continue
        row = [name, f"{result['detected']:.1%}", f"{result['0']['nme']:.2%}"]
        for passes in PASSES[1:]:
            one = result[str(passes)]
            row.append(f"{one['nme']:.2%} ({100 * one['gain']:+.2f} ± {100 * one['standard error']:.2f})")
        rows.append(row)
    return markdown_page(
        "Refinement",
        f"`python benchmarks/refinement.py`: {setting['frames']:,} whole frames that {setting['model']} was"
        f" not trained on ([release.md](release.md)), no flip averaging; {setting['machine']}. Evaluated on"
        f" the {setting['evaluated']:,} frames in which every detector finds the face; with rotated frames,"
        " on all of them, or on those in which CenterFace finds the face. NME of the 15 landmarks by"
        " inter-ocular distance. In each refinement pass, the crop is re-estimated from the predicted"
        f" landmarks, including roll beyond {ROLL_TOLERANCE:g}°, and the model runs again; predictions from"
        " similar crops are combined by inverse-variance weighting. In parentheses: improvement over no"
        " refinement in percentage points, ± standard error over identities (bootstrap).",
        markdown_table(["initial crop", "face detected", "no refinement", "1 pass", "2 passes"], rows),
    )


FILES = ResultFiles("refinement", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_frames()
    parser.add_argument("--run", required=True, type=Path, help="a run folder")
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    predictor = Predictor.open(options.run, "cpu")
    rows = unseen_rows([options.run], dataset)
    assert rows is not None, "the run was not trained on --data"
    frames = select_rows(match_frames(options.frames, dataset), rows)
    frame_groups = groups[[frame.row for frame in frames]]
    crops = initial_crops(frames)
    evaluated = np.array(
        [all(crop is not None for crop in of_frame) for of_frame in zip(*crops.values(), strict=True)]
    )
    setting = {
        "model": options.run.name,
        "frames": len(frames),
        "evaluated": int(evaluated.sum()),
        "machine": describe_machine(),
    }
    upright = [
        ((name,), partial(measure_upright, predictor, frames, of_origin, frame_groups, evaluated))
        for name, of_origin in crops.items()
    ]
    run_missing(files, setting, [*upright, *rotated_measurements(predictor, frames, frame_groups)])


if __name__ == "__main__":
    main()
