"""What it is worth to lay the square anew around the points: whole frames, also turned, people held out.

    python benchmarks/refine.py --data facial-keypoints-detection.zip --frames faces68 --run runs/x

Judged by the faces that stand on the other side of the run's own split. Writes refine.json and refine.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from frames68 import Frame68, match
from holdout import HERE, load, machine, over_people, write_results
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.source import default_cache
from landmarks_fastai.evaluation import inter_ocular_distance, nme
from landmarks_fastai.framing import Square, apart, cut_square, turn_points
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.faces import open_detector
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.inference.tracking import SAME
from landmarks_fastai.schema import KAGGLE15
from landmarks_fastai.tasks.evaluate import unseen_rows

PASSES = (0, 1, 2)
LOOSE = {
    "0.15 too far right": (0.15, 1.0),
    "1.3 times too large": (0.0, 1.3),
    "1.3 times too small": (0.0, 1 / 1.3),
}
"""Crops that are wrong on purpose: by how much of their side, and how many times as large."""

TILTS = (15, 30, 45, 60, 90)
"""Degrees by which frames are turned, with the true crops as upright as before."""

picture = cache(read_image)

Picture = NDArray[np.uint8]
Starts = dict[str, list[Square | None]]


def starts(frames: Sequence[Frame68], detectors: Sequence[str]) -> Starts:
    """Return where each way of finding the face begins in each frame; None where it finds none."""
    squares: Starts = {"the true crop": [frame.square for frame in frames]}
    for name, (right, larger) in LOOSE.items():
        squares[f"the true crop, {name}"] = [_loose(frame.square, right, larger) for frame in frames]
    for name in detectors:
        detect = open_detector(name, default_cache())
        squares[name] = [nearest(detect(picture(frame.image)).squares, frame.square) for frame in frames]
    return squares


def nearest(found: Sequence[Square], true: Square) -> Square | None:
    """Return which of the squares that were found is the true one; None if none is near."""
    best = min(found, key=lambda square: apart(square, true), default=None)
    return best if best is not None and apart(best, true) < SAME else None


def _loose(square: Square, right: float, larger: float) -> Square:
    side = square.side * larger
    x, y = square.moved(right * square.side, 0).middle
    return Square(x - side / 2, y - side / 2, side)


def tilted(frame: Frame68, degrees: float) -> tuple[Picture, NDArray[np.float64], Square]:
    """Turn a frame clockwise about its face's middle; return it, its points, and the crop, still upright.

    Of the frame three times the crop is left; beyond, it is black.
    """
    side, (x, y) = frame.square.side, frame.square.middle
    size = ceil(3 * side)
    whole = Square(x - size / 2, y - size / 2, size)
    shown = Image.fromarray(cut_square(picture(frame.image), whole, size, 3))
    middle = size / 2, size / 2
    points = turn_points(whole.from_picture(frame.points, size) + 0.5, np.deg2rad(degrees), middle) - 0.5
    crop = Square((size - side) / 2, (size - side) / 2, side)
    return np.asarray(shown.rotate(-degrees, Image.Resampling.BICUBIC)), points, crop


def errors(
    predictor: Predictor, frames: Sequence[Frame68], begin: Sequence[Square | None], refine: int
) -> NDArray[np.float64]:
    """Return each frame's NME by the inter-ocular distance; NaN where no face was found."""
    pictures, true = [picture(frame.image) for frame in frames], np.stack([frame.points for frame in frames])
    return errors_in(predictor, pictures, true, begin, refine)


def errors_in(
    predictor: Predictor,
    pictures: Sequence[Picture],
    true: NDArray[np.float64],
    begin: Sequence[Square | None],
    refine: int,
) -> NDArray[np.float64]:
    """Do the same where there are pictures and their (N, K, 2) points."""
    found = np.full(true.shape, np.nan)
    for row, (image, square) in enumerate(zip(pictures, begin, strict=True)):
        if square is not None:
            found[row] = predictor.predict_squares(image, [square], refine=refine).points[0]
    seen = np.isfinite(found).all(axis=(1, 2))
    each = np.full(len(true), np.nan)
    each[seen] = nme(found[seen], true[seen], inter_ocular_distance(true[seen], KAGGLE15))
    return each


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--frames", required=True, type=Path, help="folder with images/ and landmarks.csv")
    parser.add_argument("--run", required=True, type=Path, help="a run folder")
    options = parser.parse_args()
    table, groups = load(options.data)
    predictor = Predictor.open(options.run, "cpu")
    rows = unseen_rows([options.run], table)
    assert rows is not None, "the run was trained on --data"
    frames = [frame for frame in match(options.frames, table) if frame.row in set(rows.tolist())]
    people = groups[[frame.row for frame in frames]]
    begin = starts(frames, ("centerface", "dlib"))
    all_found = np.array(
        [all(start is not None for start in row) for row in zip(*begin.values(), strict=True)]
    )
    results: dict[str, Any] = {
        "setting": {
            "model": options.run.name,
            "frames": len(frames),
            "judged": int(all_found.sum()),
            "machine": machine(),
        }
    }
    for name, squares in begin.items():
        each = [errors(predictor, frames, squares, refine) for refine in PASSES]
        results[name] = _row(squares, each, people, all_found)
        print(name, results[name], flush=True)
        write_results("refine", results)
    detect = open_detector("centerface", default_cache())
    for degrees in TILTS:
        shown = [tilted(frame, degrees) for frame in frames]
        pictures, points, crops = zip(*shown, strict=True)
        detected = [nearest(detect(image).squares, crop) for image, _, crop in shown]
        for start, squares in (("the true crop", crops), ("centerface", detected)):
            each = [errors_in(predictor, pictures, np.stack(points), squares, refine) for refine in PASSES]
            name = f"{start}, the frame turned by {degrees}°"
            results[name] = _row(squares, each, people, np.isfinite(each[0]))
            print(name, results[name], flush=True)
            write_results("refine", results)
    _write_table(results)


def _row(
    squares: Sequence[Square | None],
    each: Sequence[NDArray[np.float64]],
    people: NDArray[np.int64],
    judged: NDArray[np.bool_],
) -> dict[str, Any]:
    """Return how many faces were found, the NME of each number of passes, and how much less than without."""
    plain = each[0][judged]
    row: dict[str, Any] = {"found": float(np.mean([square is not None for square in squares]))}
    for refine, errors_of_all in zip(PASSES, each, strict=True):
        some = errors_of_all[judged]
        row[str(refine)] = {
            "nme": float(some.mean()),
            "gain": float((plain - some).mean()),
            "gain_spread": float(over_people(plain - some, people[judged]).std()),
        }
    return row


def _write_table(results: dict[str, Any]) -> None:
    setting = results["setting"]
    lines = [
        "# What refining is worth",
        "",
        f"`python benchmarks/refine.py`: {setting['frames']:,} whole frames of people whom"
        f" {setting['model']} was not trained on (release.md), no flip averaging; {setting['machine']}. The"
        f" {setting['judged']:,} frames in which every way finds the face are judged, and of turned"
        " ones all, or those that CenterFace finds. NME of the 15 points by inter-ocular distance. So many"
        " times the square is laid anew around the points, turned with a head that leans by more than 10°;"
        " what was found in alike squares is averaged, the surer ones counting for more. In brackets what"
        " that gains over one look, ± the standard error over people (bootstrap).",
        "",
        "| the square is first | face found | no refining | 1 | 2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in results.items():
        if name == "setting":
            continue
        cells = [f"{row['0']['nme']:.2%}"]
        for refine in PASSES[1:]:
            one = row[str(refine)]
            cells.append(f"{one['nme']:.2%} ({100 * one['gain']:+.2f} ± {100 * one['gain_spread']:.2f})")
        lines.append(f"| {name} | {row['found']:.1%} | {' | '.join(cells)} |")
    (HERE / "refine.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
