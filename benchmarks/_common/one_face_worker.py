"""A process that locates one face in each of many frames, and times it: started by benchmarks/one_face.py.

    python one_face_worker.py KIND FRAMES.npy ARGUMENT

KIND is "package" (ARGUMENT: a model file), "dlib" (the file of its predictor) or "mediapipe". Each line
on its input names a method and a file; the landmarks of all frames are written to the file, and the
milliseconds of each frame to the output. MediaPipe has a Python environment of its own, so that this
file imports nothing of the package at its start.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Points = NDArray[np.float64]
Method = Callable[[Image], Any]
"""Returns the (K, 2) landmarks of the face in a frame, or None."""

CLIP = 100
"""Number of frames in which a face moves, for tracking."""

MESH_OF_68 = {
    **{17: 70, 21: 107, 22: 336, 26: 300, 30: 4, 48: 61, 51: 0, 54: 291, 57: 17},
    **{36: 33, 37: 160, 38: 158, 39: 133, 40: 153, 41: 144},
    **{42: 362, 43: 385, 44: 387, 45: 263, 46: 373, 47: 380},
}
"""The landmarks of MediaPipe's face mesh at the iBUG landmarks from which Kaggle's are computed."""


def moving_clip(frame: Image) -> list[Image]:
    """Return frames in which the image moves on a closed path, at up to 4 px per frame."""
    phases = 2 * np.pi * np.arange(CLIP) / CLIP
    shifts = np.stack([20 * np.sin(2 * phases), 40 * np.sin(phases)], axis=1).round().astype(int)
    return [np.ascontiguousarray(np.roll(frame, shift, axis=(0, 1))) for shift in shifts.tolist()]


def package_methods(model: str) -> dict[str, Callable[[], Method]]:
    """Return what this package does with a frame, as a whole and in steps."""
    import inspect

    from landmarks_fastai.geometry import Crop, extract_input
    from landmarks_fastai.inference.face_detection import open_detector
    from landmarks_fastai.inference.predictor import Predictor
    from landmarks_fastai.inference.tracking import Tracker

    predictor, detector = Predictor.open(model, "cpu"), open_detector("centerface")
    header, crop = predictor.header, Crop(220, 80, 200)
    blank = np.zeros((1, header.input_size, header.input_size, header.channels), np.uint8)

    def locate(find: Callable[[Image], Any], refine: Any) -> Method:
        def method(image: Image) -> Any:
            found = predictor.predict_crops(image, find(image).crops, refine=refine)
            return found.points[0] if len(found) else None

        return method

    def track() -> Method:
        tracker, count = Tracker(predictor, detector), iter(range(10**6))

        def method(image: Image) -> Any:
            found = tracker(image, next(count) / 25)
            return found.points[0] if len(found) else None

        return method

    def step(function: Callable[[Image], Any]) -> Callable[[], Method]:
        def method(image: Image) -> None:
            function(image)

        return lambda: method

    size = header.input_size, header.channels, header.image_size
    methods: dict[str, Callable[[], Method]] = {
        "all faces": lambda: locate(detector, predictor.default_refine),
        "all faces, refined": lambda: locate(detector, 1),
        "tracking": track,
        "step: detector": step(detector),
        "step: crop": step(lambda image: extract_input(image, crop, *size)),
        "step: network": step(lambda image: predictor._backend(blank)),
        "step: prediction without refinement": step(lambda image: predictor.predict_crops(image, [crop])),
    }
    if "max_faces" in inspect.signature(open_detector).parameters:
        largest = open_detector("centerface", max_faces=1)
        methods |= {
            "largest face": lambda: locate(largest, predictor.default_refine),
            "largest face, refined": lambda: locate(largest, 1),
            "largest face, not refined": lambda: locate(largest, 0),
            "step: detector, largest face": step(largest),
        }
    return methods


def dlib_methods(path: str) -> dict[str, Callable[[], Method]]:
    """Return dlib's frontal face detector with its predictor of 68 landmarks; the image is not upsampled."""
    import dlib  # type: ignore[import-not-found, import-untyped, unused-ignore]

    detector, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor(path)

    def locate(image: Image) -> Any:
        boxes = detector(image, 0)
        if not boxes:
            return None
        shape = predictor(image, max(boxes, key=lambda box: box.area()))
        return np.array([(point.x, point.y) for point in shape.parts()], np.float64)

    return {"detector and predictor": lambda: locate}


def mediapipe_methods(_: str) -> dict[str, Callable[[], Method]]:
    """Return MediaPipe's face mesh for single images and for videos; by default, it finds one face."""
    from mediapipe.python.solutions.face_mesh import FaceMesh  # type: ignore[import-not-found, unused-ignore]

    def locate(static: bool) -> Method:
        mesh = FaceMesh(static_image_mode=static, max_num_faces=1)

        def method(image: Image) -> Any:
            faces = mesh.process(image).multi_face_landmarks
            if not faces:
                return None
            height, width = image.shape[:2]
            points = np.full((68, 2), np.nan)
            for landmark, vertex in MESH_OF_68.items():
                position = faces[0].landmark[vertex]
                points[landmark] = position.x * width - 0.5, position.y * height - 0.5
            return points

        return method

    return {"face mesh": lambda: locate(True), "tracking": lambda: locate(False)}


KINDS = {"package": package_methods, "dlib": dlib_methods, "mediapipe": mediapipe_methods}


def run(method: Method, frames: Any) -> tuple[list[Points | None], list[float]]:
    """Return the landmarks in each frame, and the milliseconds that it took."""
    located, milliseconds = [], []
    for frame in frames:
        image = np.ascontiguousarray(frame)
        start = time.perf_counter()
        located.append(method(image))
        milliseconds.append(1000 * (time.perf_counter() - start))
    return located, milliseconds


def main() -> None:
    """Answer the requests."""
    kind, path, argument = sys.argv[1:]
    frames = np.load(path, mmap_mode="r")
    methods = KINDS[kind](argument)
    print(json.dumps(sorted(methods)), flush=True)
    for line in sys.stdin:
        name, count, target = json.loads(line)
        tracked = name == "tracking"
        images = moving_clip(frames[0]) if tracked else frames[:count]
        method = methods[name]()
        if not tracked:
            run(method, images[:2])  # warm-up
        located, milliseconds = run(method, images)
        known = [one for one in located if one is not None]
        if target and known:
            missing = np.full_like(known[0], np.nan, np.float64)
            np.save(target, np.stack([missing if one is None else one for one in located]))
        print(json.dumps(milliseconds), flush=True)


if __name__ == "__main__":
    main()
