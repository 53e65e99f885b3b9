r"""How well the released models do: on crops, on whole photos through the detector, and on spoilt faces.

    python benchmarks/release.py --data facial-keypoints-detection.zip --frames faces68 \
        --run runs/release-resnet18 --run runs/release-resnet34

Judged by the faces that stand on the other side of each run's own split. Runs of one recipe with other seeds
are called as the first, with -seed1, -seed2. Writes release.json and release.md after each run; a run that is
not named keeps what stands there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from frames68 import match
from holdout import (
    HERE,
    load,
    machine,
    mean_and_spread,
    over_people,
    read_results,
    score,
    write_results,
)
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from refine import errors, starts

from landmarks_fastai.calibration import Calibration, calibrate
from landmarks_fastai.evaluation import point_distances, rmse
from landmarks_fastai.framing import turn_points
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.tasks.evaluate import unseen_rows

Picture = NDArray[np.uint8]
Spoil = Callable[[Picture, float, np.random.Generator], Picture]


def turned(face: Picture, degrees: float, rng: np.random.Generator) -> Picture:
    """Turn the face in its plane; its points turn with it, see `turned_points`."""
    return np.asarray(Image.fromarray(face).rotate(degrees, Image.Resampling.BILINEAR))


def darker(face: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Leave so much of the light, and a camera's noise as it is."""
    return (face * share + rng.normal(0, 4, face.shape)).clip(0, 255).astype(np.uint8)


def blurred(face: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Blur by a Gaussian, px."""
    return np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(sigma)))


def smaller(face: Picture, side: float, rng: np.random.Generator) -> Picture:
    """Reduce to so many px, and enlarge again."""
    small = Image.fromarray(face).resize((int(side),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize(face.shape[::-1], Image.Resampling.BILINEAR))


def covered(face: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Cover a gray square of so much of the picture, anywhere."""
    out, side = face.copy(), round(share**0.5 * len(face))
    top, left = rng.integers(0, len(face) - side + 1, 2)
    out[top : top + side, left : left + side] = 127
    return out


SPOILS: Mapping[str, tuple[Spoil, tuple[float, float, float]]] = {
    "turned by °": (turned, (15, 30, 45)),
    "light left": (darker, (0.5, 0.25, 0.1)),
    "blurred, σ px": (blurred, (1, 2, 3)),
    "reduced to px": (smaller, (48, 32, 24)),
    "covered, share": (covered, (0.05, 0.1, 0.2)),
}


WAYS = tuple(
    (f"{name} {strength:g}", spoil, strength)
    for name, (spoil, strengths) in SPOILS.items()
    for strength in strengths
)


def turned_points(points: NDArray[np.float32], degrees: float, size: int) -> NDArray[np.float64]:
    """Turn points as Pillow turns a picture: counter-clockwise about its middle."""
    middle = (size - 1) / 2
    return turn_points(points.astype(np.float64), -np.deg2rad(degrees), (middle, middle))


def spoilt(
    images: Picture, points: NDArray[np.float32], spoil: Spoil, strength: float
) -> tuple[Picture, NDArray[np.float64]]:
    """Spoil (N, S, S, 1) gray faces in one way, and return them with their points."""
    rng = np.random.default_rng(0)
    faces = np.stack([spoil(face[..., 0], strength, rng) for face in images])[..., None]
    if spoil is turned:
        return faces, turned_points(points, strength, images.shape[1])
    return faces, points.astype(np.float64)


def robustness(predictor: Predictor, images: Picture, points: NDArray[np.float32]) -> dict[str, float]:
    """Return the RMSE of (N, S, S, 1) gray faces spoilt in each way."""
    found = {}
    for name, spoil, strength in WAYS:
        faces, true = spoilt(images, points, spoil, strength)
        found[name] = rmse(predictor.predict_crops(faces).points, true)
    return found


def mixed(predictor: Predictor, images: Picture, points: NDArray[np.float32]) -> Calibration | None:
    """Judge the confidence on faces of every quality: in turn one as it is, and one spoilt in each way."""
    faces, true = images.copy(), points.astype(np.float64)
    for number, (_, spoil, strength) in enumerate(WAYS, start=1):
        mine = slice(number, None, 1 + len(WAYS))
        faces[mine], true[mine] = spoilt(images[mine], points[mine], spoil, strength)
    found = predictor.predict_crops(faces)
    return calibrate(found.points, true, found.scales, images.shape[1])


def peeked(found: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Return the rank correlation of the errors with a guess that peeks at the truth.

    The guess for a point is its mean error over all faces, times the mean error of its face's other points:
    what a confidence could know at best of how hard a point and a face are.
    """
    from scipy.stats import spearmanr

    away = point_distances(found, true)
    known = np.isfinite(away)
    others = np.nansum(away, axis=1, keepdims=True) - np.nan_to_num(away)
    others /= known.sum(axis=1, keepdims=True) - 1
    return float(spearmanr((np.nanmean(away, axis=0) * others)[known], away[known]).statistic)


def main() -> None:
    """Judge every run, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--frames", required=True, type=Path, help="folder with images/ and landmarks.csv")
    parser.add_argument("--run", required=True, type=Path, action="append", help="a run folder; repeatable")
    options = parser.parse_args()
    table, groups = load(options.data)
    frames = match(options.frames, table)
    for run in options.run:
        predictor = Predictor.open(run, "cpu")
        rows = unseen_rows([run], table)
        assert rows is not None, "the runs were trained on --data"
        faces = table.rows(rows)
        result: dict[str, Any] = {
            "machine": machine(),
            "faces": len(faces),
        }
        for name, flip in (("plain", False), ("flip averaged", True)):
            found = predictor.predict_crops(faces.images, flip=flip)
            entries = score(found, faces).to_dict()
            result[name] = {**entries["overall"], "calibration": entries["calibration"]}
            away = found.points - faces.points
            squared = np.nansum(away.astype(np.float64) ** 2, axis=(1, 2))
            drawn = over_people(squared, groups[rows], np.isfinite(away).sum(axis=(1, 2)))
            result[name]["spread"] = float(np.sqrt(drawn).std())
            result[name]["peeked"] = peeked(found.points, faces.points)
        theirs = [frame for frame in frames if frame.row in set(rows.tolist())]
        begin = starts(theirs, ("centerface", "dlib"))
        seen = np.array([begin["centerface"][i] and begin["dlib"][i] for i in range(len(theirs))], bool)
        result["frames"] = {"all": len(theirs), "judged": int(seen.sum())}
        for name, squares in begin.items():
            for refine in (0, 1):
                each = errors(predictor, theirs, squares, refine)[seen]
                result["frames"][f"{name}, {refine}"] = float(each.mean())
        result["spoilt"] = robustness(predictor, faces.images, faces.points)
        sure = mixed(predictor, faces.images, faces.points)
        assert sure is not None, "the released recipes learn scales"
        result["mixed"] = {"rank_correlation": sure.rank_correlation, "ece": sure.ece}
        results = read_results("release") | {run.name: result}
        write_results("release", results)
        _write_tables(results)
        print(run.name, result, flush=True)


def _over_seeds(runs: dict[str, Any]) -> list[str]:
    """Write a line for each recipe that was run with several seeds."""
    recipes: dict[str, list[Any]] = {}
    for name, result in runs.items():
        recipes.setdefault(name.partition("-seed")[0], []).append(result)
    return [
        f"- {name}, {len(same)} seeds: RMSE {mean_and_spread([one['plain']['rmse'] for one in same])} px,"
        f" flip averaged {mean_and_spread([one['flip averaged']['rmse'] for one in same])} px."
        for name, same in recipes.items()
        if len(same) > 1
    ]


def _write_tables(runs: dict[str, Any]) -> None:
    machines = "; ".join(sorted({run["machine"] for run in runs.values()}))
    lines = [
        "# The released models",
        "",
        "`python benchmarks/release.py`: faces of people held out (each run's validation part);"
        f" {machines}. RMSE in px of 96 px images, ± the standard error over people (bootstrap), of"
        " each run; NME by inter-ocular distance. The runs kept the epoch that did best on these same"
        " faces. In brackets, beside the rank correlation of confidence and nearness: that of a guess by the"
        " true mean error of each point, and of each face's other points. Mixed is the confidence on faces"
        " of every quality: one as it is, the next ones spoilt in each way of the last table, in turn.",
        "",
        "| model | faces | RMSE | flip averaged | NME | failures at 8 % | rank correlation | ECE |"
        " mixed: rank correlation | ECE |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in runs.items():
        plain, sure, mix = result["plain"], result["plain"]["calibration"], result["mixed"]
        rmses = (f"{of['rmse']:.3f} ± {of['spread']:.3f}" for of in (plain, result["flip averaged"]))
        lines.append(
            f"| {name} | {result['faces']} | {' | '.join(rmses)} |"
            f" {plain['nme_inter_ocular']:.2%} | {plain['failure_rate_8']:.1%} |"
            f" {sure['rank_correlation']:.2f} ({plain['peeked']:.2f}) | {sure['ece']:.1%} |"
            f" {mix['rank_correlation']:.2f} | {mix['ece']:.1%} |"
        )
    if spread := _over_seeds(runs):
        lines += [
            "",
            "Mean ± standard deviation over seeds, which draw the people held out, too:",
            "",
            *spread,
        ]
    lines += ["", "Whole frames, NME, by where the square came from and how often it was laid anew:", ""]
    keys = [key for key in next(iter(runs.values()))["frames"] if ", " in key]
    lines += [f"| square, passes | {' | '.join(runs)} |", f"| --- |{' --- |' * len(runs)}"]
    for key in keys:
        cells = (f"{result['frames'][key]:.2%}" for result in runs.values())
        lines.append(f"| {key} | {' | '.join(cells)} |")
    lines += ["", "Spoilt faces, RMSE px:", ""]
    lines += [f"| how | {' | '.join(runs)} |", f"| --- |{' --- |' * len(runs)}"]
    for key in next(iter(runs.values()))["spoilt"]:
        cells = (f"{result['spoilt'][key]:.2f}" for result in runs.values())
        lines.append(f"| {key} | {' | '.join(cells)} |")
    (HERE / "release.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
