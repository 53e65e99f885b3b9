"""The results of `predict` grow image by image: nothing is lost or overwritten silently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.killing import run_killed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from landmarks_fastai.commands.landmark_files import ImageResult
from landmarks_fastai.commands.predict import PredictSummary, predict_images
from landmarks_fastai.commands.prediction_folder import (
    Existing,
    choose_folder,
    open_folder,
    split_drawings,
)
from landmarks_fastai.commands.prediction_outputs import Outputs
from landmarks_fastai.commands.prediction_record import PredictionRecord
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.interrupt import Interrupt

PAIR = LandmarkSchema("pair", ("left", "right"))
MADE = {"models": ["abc"], "detector": "none", "refine": 0, "names": False, "boxes": None, "outputs": []}
ALL = Outputs(json=True, csv=True, formats=("csv", "yolo"))


class FakePredictor:
    """Stand-in for `Predictor` whose landmarks depend on the image.

    Parameters
    ----------
    shift
        Added to all coordinates, so that two models differ.
    """

    schema, default_refine, predicts_visibility = PAIR, 0, False

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def predict_crops(self, image: NDArray[np.uint8], crops: Sequence[Crop], refine: int) -> Landmarks:
        x = float(image.mean()) / 100 + self.shift
        points = np.array([[[x, 1 / 3], [x + 2, 4]]], np.float32)
        confidence = np.array([[0.1, 0.2]], np.float32)
        return Landmarks(points, PAIR, confidence, confidence, (Crop(0.1, 0, 8),))


class InterruptAfter:
    """Stand-in for an `Interrupt` that is requested after a number of images was begun."""

    def __init__(self, images: int) -> None:
        self._images = images

    @property
    def requested(self) -> bool:
        """Whether no other image is to be begun."""
        self._images -= 1
        return self._images < 0


def detect(image: NDArray[np.uint8]) -> Any:
    """Stand-in for a detector."""
    return SimpleNamespace(crops=[Crop(0, 0, 8)])


def write_images(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    """Write small images of different gray values."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"i{number}{suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (12, 8), (number % 256, number // 256, 40)).save(path)
    return paths


def predict(
    images: Sequence[Path],
    out: Path,
    existing: Existing = Existing.REFUSE,
    *,
    predictor: FakePredictor | None = None,
    outputs: Outputs = ALL,
    stop_after: int | None = None,
    made: dict[str, Any] | None = None,
) -> PredictSummary:
    """Predict images as the command does; optionally, Ctrl-C comes after a number of images was begun."""
    model = predictor or FakePredictor()
    errors: list[UserError] = []
    interrupt: Any = Interrupt() if stop_after is None else InterruptAfter(stop_after)
    with open_folder(out, made or MADE, outputs, existing) as folder:
        summary = predict_images(
            model,  # type: ignore[arg-type]
            images,
            folder,
            detector=detect,
            interrupt=interrupt,
            found=lambda result: None,
            failed=errors.append,
        )
        if not (summary.remaining and folder.replaces):
            folder.finish(outputs, PAIR, visibility=False)
    assert summary.failed == len(errors)
    return summary


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder and its subfolders, without the record and schema.json."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "schema.json"}


def image_names(out: Path) -> list[str]:
    """Return the names of the images in landmarks.json."""
    images = json.loads((out / "landmarks.json").read_text())["images"]
    return [Path(image["image"]).name for image in images]


# --- the record -----------------------------------------------------------------------------------


VALUES = st.floats(width=32, allow_infinity=False) | st.just(float("nan"))


@given(data=st.data(), faces=st.integers(0, 3))
def test_record_restores_landmarks_exactly(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, faces: int
) -> None:
    points, confidence, scales, visibility = (
        data.draw(arrays.arrays(np.float32, (faces, 2, *more), elements=VALUES))
        for more in ((2,), (), (), ())
    )
    crops = tuple(Crop(*data.draw(st.tuples(*[st.floats(-1e6, 1e6)] * 4))) for _ in range(faces))
    landmarks = Landmarks(points, PAIR, confidence, scales, crops, visibility=visibility)
    folder = tmp_path_factory.mktemp("record")
    record = PredictionRecord.create(folder / "predictions.jsonl", MADE)
    record.add_image(ImageResult(folder / "ä.png", (7, 5), landmarks, folder / "d.png"), (1, 2), 3)
    restored = PredictionRecord.read(record.path)
    assert restored is not None
    assert restored.made == MADE
    (result,) = restored.results(PAIR, folder)
    assert (result.image, result.size, result.drawing) == (folder / "ä.png", (7, 5), folder / "d.png")
    assert result.landmarks.crops == crops
    for name in ("points", "confidence", "scales", "visibility"):
        np.testing.assert_array_equal(getattr(result.landmarks, name), getattr(landmarks, name), name)


def test_record_cut_off_anywhere_keeps_its_complete_lines(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    predict(images, tmp_path / "out", outputs=Outputs(json=False))
    path = tmp_path / "out" / "predictions.jsonl"
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    assert len(ends) == 4
    around_ends = {end + offset for end in ends[:-1] for offset in (-2, -1, 0, 1)}
    for length in sorted({*range(0, len(data), 97), *around_ends}):
        path.write_bytes(data[:length])
        record = PredictionRecord.read(path)
        complete = sum(end <= length for end in ends)
        if not complete:
            assert record is None
            continue
        assert record is not None
        assert len(record.images) == complete - 1
        record.add_output("landmarks.json", "x")
        again = PredictionRecord.read(path)
        assert again is not None
        assert (again.images, again.outputs) == (record.images, {"landmarks.json": "x"})


@pytest.mark.parametrize(
    "line", ["{}", "[]", "notes", '{"output": "a"}', '{"drawing": "a"}', "[" * 100_000, '{"drawing": [1, 2]}']
)
@pytest.mark.parametrize("is_first", [True, False])
def test_file_that_is_no_record_is_refused_in_one_line(tmp_path: Path, line: str, is_first: bool) -> None:
    path = tmp_path / "predictions.jsonl"
    head = json.dumps({"format": "landmarks-fastai predictions", "version": 1, "made": MADE}) + "\n"
    path.write_text(f"{'' if is_first else head}{line}\n")
    with pytest.raises(UserError, match=rf"line {2 - is_first}: is not a line of a record of predictions"):
        PredictionRecord.read(path)
    # it does not stop other commands from reading the images beside it
    images = write_images(tmp_path, 1)
    assert split_drawings(images) == (images, [])


# --- streaming and resuming -----------------------------------------------------------------------


def test_interrupted_results_are_complete_and_resume_adds_the_rest(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 9)
    predict(images, tmp_path / "expected")
    out = tmp_path / "out"
    assert predict(images, out, stop_after=8) == PredictSummary(predicted=8, remaining=1)
    assert image_names(out) == [path.name for path in images[:8]]
    assert (
        len((out / "landmarks.csv").read_text().splitlines())
        == len((out / "labels-csv.csv").read_text().splitlines()) * 2 - 1
        == 17
    )
    assert predict(images, out, Existing.RESUME) == PredictSummary(predicted=1, skipped=8)
    assert contents(out) == contents(tmp_path / "expected")
    assert predict(images, out, Existing.RESUME) == PredictSummary(skipped=9)
    assert contents(out) == contents(tmp_path / "expected")


def test_resume_repeats_images_that_changed_and_drawings_that_are_missing(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    out = tmp_path / "out"
    predict(images, out)
    Image.new("RGB", (12, 8), "white").save(images[0])
    drawing = (out / "i1_landmarks.png").read_bytes()
    (out / "i1_landmarks.png").unlink()
    assert predict(images, out, Existing.RESUME) == PredictSummary(predicted=2, skipped=1)
    assert (out / "i1_landmarks.png").read_bytes() == drawing
    assert image_names(out) == ["i0.png", "i1.png", "i2.png"]
    predict(images, tmp_path / "expected")
    assert contents(out) == contents(tmp_path / "expected")


def test_resume_adds_images_to_those_that_are_not_named_again(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4)
    predict(images[:2], tmp_path / "out")
    predict(images[2:], tmp_path / "out", Existing.RESUME)
    assert image_names(tmp_path / "out") == ["i0.png", "i1.png", "i2.png", "i3.png"]


@pytest.mark.parametrize("key", sorted(MADE))
def test_resume_with_other_options_is_refused(tmp_path: Path, key: str) -> None:
    images = write_images(tmp_path / "images", 2)
    out = tmp_path / "out"
    predict(images, out, stop_after=1)
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"out: its results were made with a different --.*; repeat the options"
    ):
        predict(images, out, Existing.RESUME, made={**MADE, key: "other"})
    assert contents(tmp_path) == before


def test_unreadable_images_are_skipped_and_tried_again(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    good = images[1].read_bytes()
    images[1].write_bytes(good[:40])
    assert predict(images, tmp_path / "out") == PredictSummary(predicted=2, failed=1)
    images[1].write_bytes(good)
    assert predict(images, tmp_path / "out", Existing.RESUME) == PredictSummary(predicted=1, skipped=2)
    assert image_names(tmp_path / "out") == ["i0.png", "i2.png", "i1.png"]


def test_name_that_is_not_unicode_is_reported(tmp_path: Path) -> None:
    (image,) = write_images(tmp_path / "images", 1)
    odd = image.rename(os.fsdecode(os.fsencode(image.parent) + b"/caf\xe9.png"))
    assert predict([odd], tmp_path / "out") == PredictSummary(failed=1)
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 60)
    alive: list[weakref.ref[ImageResult]] = []
    most = 0

    def found(result: ImageResult) -> None:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(result))

    outputs = Outputs(json=True, csv=True)
    with open_folder(tmp_path / "out", MADE, outputs, Existing.REFUSE) as folder:
        model: Any = FakePredictor()
        predict_images(model, images, folder, detector=detect, found=found, failed=pytest.fail)
    assert len(alive) == 60
    assert most <= 1


# --- killed ---------------------------------------------------------------------------------------


def is_begun(out: Path, expected: dict[str, bytes]) -> bool:
    """Return whether a folder has results of the run that was killed: --resume would else add to others."""
    staged = PredictionRecord.read(out / ".predictions" / "predictions.jsonl")
    table = out / "landmarks.json"
    is_complete = table.exists() and table.read_bytes() == expected[table.name]
    return is_complete or (staged is not None and bool(staged.images))


@pytest.mark.parametrize("replaces", [False, True])
def test_killed_at_random_moments_loses_nothing(tmp_path: Path, replaces: bool) -> None:
    images = write_images(tmp_path / "images", 12)
    model = FakePredictor(shift=5)
    predict(images, tmp_path / "expected", predictor=model)
    started = time.monotonic()
    predict(images, tmp_path / "timed", predictor=model)
    duration = time.monotonic() - started
    expected = contents(tmp_path / "expected")
    rng = np.random.default_rng(int(replaces))
    for attempt in range(10):
        out = tmp_path / f"out-{attempt}"
        earlier = None
        if replaces:
            predict(images[:2], out)
            earlier = (out / "landmarks.json").read_bytes()
        mode = Existing.OVERWRITE if replaces else Existing.REFUSE
        delay = duration
        while not run_killed(
            rng.uniform(0, delay), partial(predict, images, out, mode, predictor=FakePredictor(5))
        ):
            delay *= 1.1  # the machine may have become busy
            if (out / "landmarks.json").exists():
                assert (out / "landmarks.json").read_bytes() in (earlier, expected["landmarks.json"])
            mode = Existing.RESUME if is_begun(out, expected) or not replaces else Existing.OVERWRITE
        assert contents(out) == expected
        assert split_drawings(sorted(out.glob("*.png")))[0] == []


def test_temporary_files_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 1)
    predict(images, tmp_path / "expected", outputs=ALL)
    out = tmp_path / "out"
    out.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in ("landmarks.csv", "labels-csv.csv", "schema.json", "labels-csv.interface.xml"):
        (out / f".{Path(name).stem}.{ended.pid}{Path(name).suffix}").touch()
    predict(images, out, outputs=ALL)
    assert contents(out) == contents(tmp_path / "expected")


# --- existing files -------------------------------------------------------------------------------


def test_existing_results_are_refused_or_replaced(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    out = tmp_path / "out"
    predict(images, out)
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"out: contains results of an earlier run \(3 images\); add .*--resume.*"
    ):
        predict(images, out)
    assert contents(tmp_path) == before
    predict(images[1:2], out, Existing.OVERWRITE, predictor=FakePredictor(5), outputs=Outputs(csv=True))
    assert sorted(contents(out)) == [
        "i1_landmarks.png",
        "landmarks.csv",
        "landmarks.json",
    ]
    assert image_names(out) == ["i1.png"]
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_interrupted_replacement_keeps_the_earlier_results_until_it_is_resumed(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4)
    out, model = tmp_path / "out", FakePredictor(shift=9)
    predict(images, out)
    before = {name: (out / name).read_bytes() for name in contents(out)}
    summary = predict(images, out, Existing.OVERWRITE, predictor=FakePredictor(9), stop_after=2)
    assert summary.remaining == 2
    assert {name: (out / name).read_bytes() for name in before} == before
    assert predict(images, out, Existing.RESUME, predictor=model) == PredictSummary(predicted=2, skipped=2)
    predict(images, tmp_path / "expected", predictor=model)
    assert contents(out) == contents(tmp_path / "expected")


def test_overwrite_without_usable_images_keeps_the_earlier_results(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 2)
    out = tmp_path / "out"
    predict(images, out)
    before = contents(out)
    for path in images:
        path.write_bytes(b"broken")
    assert predict(images, out, Existing.OVERWRITE).failed == 2
    assert contents(out) == before


def test_results_without_a_record_are_replaced_only_with_overwrite(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 1)
    out = tmp_path / "out"
    out.mkdir()
    (out / "landmarks.csv").write_text("mine")
    for existing, message in (
        (Existing.REFUSE, r"contains results of an earlier run \(landmarks\.csv\)"),
        (Existing.RESUME, r"cannot be resumed, because predictions\.jsonl is missing"),
    ):
        with pytest.raises(UserError, match=message):
            predict(images, out, existing)
    assert contents(out) == {"landmarks.csv": b"mine"}
    predict(images, out, Existing.OVERWRITE)
    assert (out / "landmarks.csv").read_text() != "mine"


@pytest.mark.parametrize(
    "name", ["landmarks.json", "landmarks.csv", "labels-csv.csv", "labels-yolo/data.yaml"]
)
def test_resume_refuses_to_overwrite_what_was_changed(tmp_path: Path, name: str) -> None:
    images = write_images(tmp_path / "images", 2)
    out = tmp_path / "out"
    predict(images, out, stop_after=1)
    (out / name).write_text("corrected")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"{name.split('/')[0]}: was changed since it was written and may"):
        predict(images, out, Existing.RESUME)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("is_corrected", [True, False])
def test_overwrite_keeps_corrected_labels(tmp_path: Path, is_corrected: bool) -> None:
    images = write_images(tmp_path / "images", 2)
    out = tmp_path / "out"
    predict(images, out)
    if not is_corrected:
        predict(images, out, Existing.OVERWRITE, predictor=FakePredictor(3))
        return
    (out / "labels-csv.csv").write_text("corrected")
    with pytest.raises(UserError, match="already exists and may contain corrections"):
        predict(images, out, Existing.OVERWRITE)
    predict(images, out, Existing.OVERWRITE, outputs=Outputs())  # it is not written, and stays
    assert (out / "labels-csv.csv").read_text() == "corrected"
    assert sorted(contents(out)) == [
        "i0_landmarks.png",
        "i1_landmarks.png",
        "labels-csv.csv",
        "landmarks.json",
    ]


def test_files_of_another_origin_are_not_overwritten_by_drawings(tmp_path: Path) -> None:
    (tmp_path / "photo_landmarks.png").write_bytes(b"mine")
    image = tmp_path / "photo.png"
    Image.new("RGB", (12, 8)).save(image)
    predict([image], tmp_path, outputs=Outputs())
    assert (tmp_path / "photo_landmarks.png").read_bytes() == b"mine"
    predict([image], tmp_path, Existing.OVERWRITE, outputs=Outputs())
    (tmp_path / "photo-2_landmarks.png").write_bytes(b"painted over")
    predict([image], tmp_path, Existing.OVERWRITE, outputs=Outputs())
    assert (tmp_path / "photo_landmarks.png").read_bytes() == b"mine"
    assert (tmp_path / "photo-2_landmarks.png").read_bytes() == b"painted over"
    assert (tmp_path / "photo-3_landmarks.png").is_file()


def test_names_that_differ_in_case_get_different_drawings(tmp_path: Path) -> None:
    paths = [
        tmp_path / folder / name for folder, name in (("a", "Face.png"), ("b", "face.png"), ("c", "FACE.jpg"))
    ]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (12, 8)).save(path)
    out = tmp_path / "out"
    predict(paths, out, outputs=Outputs())
    assert len({path.name.lower() for path in out.glob("*.png")}) == 3
    assert (out / "Face_landmarks.png").is_file()


def test_second_process_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 1)
    with (
        open_folder(tmp_path / "out", MADE, ALL, Existing.REFUSE),
        pytest.raises(UserError, match="another process is writing predictions to it"),
        open_folder(tmp_path / "out", MADE, ALL, Existing.REFUSE),
    ):
        pass
    assert not (tmp_path / "out").exists()
    predict(images, tmp_path / "out")


# --- drawings are not images ----------------------------------------------------------------------


def test_drawings_are_recognized_by_the_record(tmp_path: Path) -> None:
    images = write_images(tmp_path, 2)
    other = tmp_path / "other_landmarks.png"
    Image.new("RGB", (12, 8)).save(other)
    predict([*images, other], tmp_path, outputs=Outputs())
    drawings = [tmp_path / f"{name}_landmarks.png" for name in ("i0", "i1", "other_landmarks")]
    everything = sorted(tmp_path.glob("*.png"))
    assert split_drawings(everything) == ([*images, other], drawings)
    Image.new("RGB", (99, 99)).save(drawings[0])  # an image of the user that took the name
    assert split_drawings(everything)[1] == drawings[1:]


def test_drawings_of_an_unfinished_run_are_recognized(tmp_path: Path) -> None:
    images = write_images(tmp_path, 2)

    def stop(result: ImageResult) -> None:
        raise KeyboardInterrupt

    def predict_until_stopped() -> None:
        model: Any = FakePredictor()
        with open_folder(tmp_path, MADE, Outputs(), Existing.REFUSE) as folder:
            predict_images(model, images, folder, detector=detect, found=stop, failed=pytest.fail)

    with pytest.raises(KeyboardInterrupt):
        predict_until_stopped()
    assert split_drawings(sorted(tmp_path.glob("*.png"))) == (images, [tmp_path / "i0_landmarks.png"])
    assert predict(images, tmp_path, Existing.RESUME) == PredictSummary(predicted=1, skipped=1)


def test_default_folder_is_the_first_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {choose_folder(existing) for existing in Existing} == {Path("predictions")}
    Path("predictions").mkdir()
    Path("predictions/clip_landmarks.mp4").touch()  # of `video`
    assert choose_folder(Existing.REFUSE) == Path("predictions")
    Path("predictions/landmarks.json").touch()
    Path("predictions-2").mkdir()
    Path("predictions-2/landmarks.csv").touch()
    Path("predictions-3").touch()  # a file
    assert choose_folder(Existing.REFUSE) == Path("predictions-4")
    assert choose_folder(Existing.RESUME) == choose_folder(Existing.OVERWRITE) == Path("predictions-2")
