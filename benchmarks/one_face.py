r"""Measure how long one face takes from a whole frame, and how accurate it is, beside MediaPipe and dlib.

    python benchmarks/one_face.py --data facial-keypoints-detection.zip --frames faces68 \
        --model resnet18.onnx --int8 resnet18-int8.onnx --before CHECKOUT \
        --mediapipe ENVIRONMENT/bin/python --predictor shape_predictor_68_face_landmarks.dat

The frames are those of the held-out identities of the model, pasted into images of 640 x 360 pixels.
Everything runs in processes of its own, in turn, on the same frames. MediaPipe needs an environment of its
own; the file of dlib's predictor is in the package face-recognition-models. `--before` is a folder with this
package before a change, and `--int8` a quantized model (`export --precision int8`). What is not given is left
out. Writes one_face.json and one_face.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common.arguments import BenchmarkParser
from _common.data import bootstrap_over_groups, load_with_groups
from _common.frames68 import FROM_68, Frame68, match_frames, select_rows
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results
from detectors import WIDE, paste
from numpy.typing import NDArray

from landmarks_fastai.data.splits import split_dataset
from landmarks_fastai.evaluation.metrics import inter_ocular_distance, nme
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schemas import KAGGLE15

WORKER = Path(__file__).parent / "_common" / "one_face_worker.py"
CHECKOUT = Path(__file__).resolve().parents[1]
ROUNDS, TIMED_FRAMES = 5, 16
FIT_FRAMES = 100
UNIT = "MediaPipe: face mesh"

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Contender:
    """A program that locates the face of each frame.

    Parameters
    ----------
    python
        Its Python.
    kind, argument
        See one_face_worker.py.
    folder
        Folder of the package.
    accurate
        Whether its accuracy is measured.
    """

    python: str
    kind: str
    argument: str
    folder: Path = CHECKOUT
    accurate: bool = True


class Worker:
    """The process of a contender.

    Parameters
    ----------
    contender
        What it runs.
    frames
        File of the frames.
    """

    def __init__(self, contender: Contender, frames: Path) -> None:
        self._process = subprocess.Popen(
            [contender.python, str(WORKER), contender.kind, str(frames), contender.argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(contender.folder)},
        )
        self.methods: list[str] = self._answer()

    def run(self, method: str, count: int, target: Path | None = None) -> list[float]:
        """Return the milliseconds of each of the first frames; the landmarks go to a file."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, count, target and str(target)]) + "\n")
        self._process.stdin.flush()
        return list(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("["):  # other lines are messages of the libraries
                return json.loads(line)
        raise SystemExit(f"{self._process.args}: ended with exit code {self._process.wait()}")


# --- measurements --------------------------------------------------------------------------------


def measure_time(workers: Mapping[str, Worker]) -> dict[str, list[float]]:
    """Return the milliseconds per frame of each method in each round: the median, for tracking the mean."""
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, worker in workers.items():
            for method in worker.methods:
                milliseconds = worker.run(method, TIMED_FRAMES)
                # the detector runs in some frames only; the first one, which starts the track, is left out
                middle = np.mean(milliseconds[1:]) if method == "tracking" else np.median(milliseconds)
                times.setdefault(f"{name}: {method}", []).append(float(middle))
                if not method.startswith(("step", "tracking")):
                    times.setdefault(f"{name}: {method}, mean", []).append(float(np.mean(milliseconds)))
    return times


def measure_accuracy(
    worker: Worker, method: str, scenes: Sequence[Frame68], fitted: int, folder: Path
) -> dict[str, Any]:
    """Return the errors of a method on the scenes; the first `fitted` ones only fit its mean offsets."""
    target = folder / "points.npy"
    worker.run(method, len(scenes), target)
    points = np.load(target)
    if points.shape[1] == 68:
        points = np.stack([points[:, FROM_68[name]].mean(axis=1) for name in KAGGLE15.names], axis=1)
    labels = np.stack([scene.points for scene in scenes])
    sides = np.array([scene.crop.side for scene in scenes])[:, None, None]
    centers = np.array([scene.crop.center for scene in scenes])
    found = (np.abs(points.mean(axis=1) - centers) < sides[:, 0] / 4).all(axis=1)  # False for NaN
    train, held_out = found[:fitted], found[fitted:]
    offsets = np.median(((points - labels) / sides)[:fitted][train], axis=0)
    distance = inter_ocular_distance(labels, KAGGLE15)
    errors = np.full((2, len(scenes)), np.nan)
    errors[0, found] = nme(points[found], labels[found], distance[found])
    errors[1, found] = nme((points - offsets * sides)[found], labels[found], distance[found])
    return {"found": float(held_out.mean()), "errors": errors[:, fitted:].tolist()}


def make_scenes(frames: Sequence[Frame68], file: Path) -> list[Frame68]:
    """Write the frames, pasted into wide images, to a file; return them with their landmarks there."""
    scenes, images = [], []
    for frame in frames:
        image, crop = paste(frame, WIDE[1], WIDE)
        scale = crop.side / frame.crop.side
        corner = np.array(crop.box[:2]) - scale * np.array(frame.crop.box[:2])
        points = (frame.points + 0.5) * scale + corner - 0.5
        scenes.append(Frame68(frame.image, frame.row, crop, points, frame.correlation, frame.misfit))
        images.append(image)
    np.save(file, np.stack(images))
    return scenes


def summarize(accuracy: Mapping[str, Any], groups: NDArray[np.int64]) -> Results:
    """Return mean errors on the frames in which every method finds the face, with differences."""
    errors = {name: np.array(result["errors"], np.float64) for name, result in accuracy.items()}
    known = np.all([np.isfinite(one).all(axis=0) for one in errors.values()], axis=0)
    reference = errors["package: all faces, refined"][0]
    summary: Results = {}
    for name, (plain, shifted) in errors.items():
        difference = (plain - reference)[known]
        summary[name] = {
            "found": accuracy[name]["found"],
            "nme": float(plain[known].mean()),
            "nme without offset": float(shifted[known].mean()),
            "difference": float(difference.mean()),
            "standard error": float(bootstrap_over_groups(difference, groups[known]).std()),
        }
    return {"evaluated": int(known.sum()), "methods": summary}


# --- page ----------------------------------------------------------------------------------------

LABELS = {
    "package: all faces": "all faces of at least 24 px (default)",
    "package: largest face": "largest face (`max_faces=1`)",
    "package: largest face, refined": "largest face, always refined",
    "package: largest face, not refined": "largest face, never refined",
    "package: all faces, refined": "all faces, always refined (default before)",
    "int8: largest face": "largest face, landmarks in INT8",
    "before: all faces, refined": "all faces, before",
    "dlib: detector and predictor": "dlib: detector and predictor of 68 landmarks",
    UNIT: "MediaPipe: face mesh, single images",
}
TRACKED = {
    "package: tracking": "tracking",
    "int8: tracking": "tracking, landmarks in INT8",
    "before: tracking": "tracking, before",
    "MediaPipe: tracking": "MediaPipe: face mesh, video",
}
STEPS = (
    "step: detector",
    "step: detector, largest face",
    "step: crop",
    "step: network",
    "step: prediction without refinement",
    "tracking",
)


def render(results: Results) -> str:
    """Return the page."""
    setting, times = results["setting"], results.get("times", {})
    accuracy = results.get("accuracy", {"evaluated": 0, "methods": {}})
    return markdown_page(
        "One face from a whole frame",
        f"`python benchmarks/one_face.py`: {setting['frames']} frames of identities that {setting['model']}"
        f" was not trained on, pasted into images of 640 × 360 px; {setting['cores']} cores, ONNX Runtime"
        f" {setting['onnxruntime']}. Time: median of {ROUNDS} rounds, in turn, of the median over"
        f" {TIMED_FRAMES} frames, in parentheses of the mean; ratio to MediaPipe in the same rounds. NME of"
        " the 15 landmarks of Kaggle by inter-ocular distance, on the"
        f" {accuracy['evaluated']} frames in which every program finds the face. *Without offset*:"
        " the median offset of each landmark is subtracted first, measured on"
        f" {FIT_FRAMES} frames of other people, because every data set defines the landmarks in its own way;"
        " MediaPipe and dlib learned others. dlib's predictor was trained on photos of iBUG 300-W.",
        "## Time and accuracy",
        _comparison(times, accuracy["methods"]),
        _difference(accuracy["methods"]),
        "## Video",
        f"Mean milliseconds per frame of a moving face in {setting['clip']} frames, detections included.",
        markdown_table(
            ["program", "ms", "ratio"],
            [
                [label, *_time(times, name, "MediaPipe: tracking")]
                for name, label in TRACKED.items()
                if name in times
            ],
        ),
        "## Profile",
        "Milliseconds of each step; *before*: before the changes below. The crop has a side of 200 px.",
        markdown_table(
            ["step", "before", "after"],
            [
                [
                    step.removeprefix("step: "),
                    *(_milliseconds(times, f"{who}: {step}") for who in ("before", "package")),
                ]
                for step in STEPS
            ],
        ),
        "## What was changed, and what was not",
        NOTES,
    )


NOTES = """\
- **The largest face**: CenterFace runs on an image reduced by a whole number to at most 160 × 90 px, and
  on the whole image only if it finds no face there of at least 24 px. Nearly all faces of at least
  24 px in the reduced image are found, so that large faces are rarely lost. Whether smaller
  faces are beside a large one cannot be told from the reduced image: a threshold
  of the heatmap that misses few of them
  lets most images without them pass, too. Therefore it is the choice of the user (`--max-faces 1`), and
  the default still finds all faces.
- **The second pass runs where it pays**: not for a confident face whose crop would hardly change.
  `--refine 1` runs it always, with the results of earlier versions. The two thresholds were chosen among
  about 20 pairs on these same frames, so that their effect on the NME is a little too favorable here; with
  the crops of dlib, the NME rises by about 0.02 points. The default moves the landmarks of a photo by
  up to a few tenths of a pixel.
- **Crops** inside the image are cut out as a slice instead of pixel by pixel; the result is the same.
- **What remains** is the network in float32: each run takes longer than MediaPipe does for everything, and
  the detector, where small faces count. 9 ms with detection and 5 ms in tracking are reached in INT8 only.
- **INT8** landmarks differ by more than rounding, so they are an export target and not the default.
  CenterFace in INT8 gains less, and the reduced image makes it unimportant; it is not offered.
- **OpenVINO** takes as long as ONNX Runtime for the landmarks in float32. It is faster for CenterFace,
  but only if it is compiled for one image size; it is not used here.
- **Threads that spin** make both networks faster on an idle machine, and take the processors from other
  programs; they are not used. **A fixed batch size** of the landmark network changes nothing."""


def _milliseconds(times: Mapping[str, Sequence[float]], name: str) -> str:
    return f"{np.median(times[name]):.2f}" if name in times else "–"


def _time(times: Mapping[str, Sequence[float]], name: str, unit: str) -> list[str]:
    mean = f" ({np.median(times[f'{name}, mean']):.1f})" if f"{name}, mean" in times else ""
    if unit not in times:
        return [_milliseconds(times, name) + mean, "–"]
    ratio = np.median(np.array(times[name]) / np.array(times[unit]))
    return [f"{np.median(times[name]):.1f}{mean}", f"{ratio:.2f}"]


def _comparison(times: Mapping[str, Sequence[float]], methods: Mapping[str, Any]) -> str:
    rows = []
    for name, label in LABELS.items():
        if name in times:
            accuracy = methods.get(name)
            cells = ["", "", ""]
            if accuracy:
                cells = [
                    f"{accuracy['found']:.1%}",
                    f"{accuracy['nme']:.2%}",
                    f"{accuracy['nme without offset']:.2%}",
                ]
            rows.append([label, *_time(times, name, UNIT), *cells])
    return markdown_table(["program", "ms", "ratio", "found", "NME", "NME without offset"], rows)


def _difference(methods: Mapping[str, Any]) -> str:
    """Return a list of the differences of this package's methods from always refining all faces."""
    lines = [
        f"- {LABELS[name]}: {100 * one['difference']:+.3f} ± {100 * one['standard error']:.3f} points"
        for name, one in methods.items()
        if name.startswith(("package", "int8")) and name in LABELS and one["standard error"]
    ]
    heading = (
        "Difference of the NME from that of all faces, always refined, ± standard error over identities:"
    )
    return "\n".join([heading, "", *lines])


FILES = ResultFiles("one_face", render)


def contenders(options: argparse.Namespace) -> dict[str, Contender]:
    """Return the programs that are given."""
    chosen = {"package": Contender(sys.executable, "package", str(options.model.resolve()))}
    if options.int8:
        chosen["int8"] = Contender(sys.executable, "package", str(options.int8.resolve()))
    if options.before:
        model = str(options.model.resolve())
        chosen["before"] = Contender(sys.executable, "package", model, options.before, accurate=False)
    if options.predictor:
        chosen["dlib"] = Contender(sys.executable, "dlib", str(options.predictor))
    if options.mediapipe:
        chosen["MediaPipe"] = Contender(str(options.mediapipe), "mediapipe", "")
    return chosen


def main() -> None:
    """Measure accuracy, or with --time the time, and write the page."""
    import onnxruntime

    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_frames()
    parser.add_argument("--model", required=True, type=Path, help="an ONNX file")
    parser.add_argument("--int8", type=Path, help="the same model, quantized")
    parser.add_argument("--mediapipe", type=Path, help="a Python with MediaPipe")
    parser.add_argument("--predictor", type=Path, help="file of dlib's predictor of 68 landmarks")
    parser.add_argument("--before", type=Path, help="folder with this package before the changes")
    parser.add_argument(
        "--only", choices=["time", "accuracy"], help="keep the other results in one_face.json"
    )
    options, files = parser.parse()
    dataset, groups = load_with_groups(options.data)
    config = Predictor.open(options.model, "cpu").header.config
    split = split_dataset(dataset, config["data"]["split"], config["data"]["valid_fraction"], config["seed"])
    frames = match_frames(options.frames, dataset)
    held_out, others = select_rows(frames, split.valid), select_rows(frames, split.train)
    fit = others[:: len(others) // FIT_FRAMES][:FIT_FRAMES]
    results = files.read()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "frames.npy"
        programs = contenders(options)
        if options.only != "time":
            scenes = make_scenes([*fit, *held_out], file)
            accuracy = {}
            for program, contender in programs.items():
                worker = Worker(contender, file)
                for method in worker.methods:
                    if contender.accurate and f"{program}: {method}" in LABELS:
                        key = f"{program}: {method}"
                        accuracy[key] = measure_accuracy(worker, method, scenes, len(fit), folder)
                        print(key, accuracy[key]["found"], flush=True)
                worker.close()
            results["accuracy"] = summarize(accuracy, groups[[frame.row for frame in held_out]])
        if options.only != "accuracy":
            make_scenes(held_out[:: len(held_out) // TIMED_FRAMES][:TIMED_FRAMES], file)
            workers = {program: Worker(contender, file) for program, contender in programs.items()}
            results["times"] = measure_time(workers)
            for worker in workers.values():
                worker.close()
    results["setting"] = {
        "model": options.model.stem,
        "frames": len(held_out),
        "cores": len(os.sched_getaffinity(0)),
        "onnxruntime": onnxruntime.__version__,
        "clip": 100,
    }
    files.write(results)


if __name__ == "__main__":
    main()
