"""Landmark files: CSV, JSON and Parquet with the same content."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landmarks_fastai.commands.landmark_files import (
    VIDEO_COLUMNS,
    ImageResult,
    open_landmark_file,
    write_landmarks_csv,
    write_landmarks_json,
)
from landmarks_fastai.errors import UserError
from landmarks_fastai.geometry import Crop
from landmarks_fastai.landmarks import Landmarks
from landmarks_fastai.schema import LandmarkSchema

PAIR = LandmarkSchema("pair", ("left, of two", "right"))


def face(track_id: int, shift: float, confidence: float) -> Landmarks:
    """Return the landmarks of one tracked face."""
    points = np.array([[[1.25, 2.5], [3.125, 4.0]]], np.float32) + np.float32(shift)
    return Landmarks(
        points,
        PAIR,
        np.array([[confidence, 0.5]], np.float32),
        np.ones((1, 2), np.float32),
        (Crop(0, 0, 8, 12.5),),
        (track_id,),
    )


FRAMES = [
    (0, 0.0, Landmarks.concatenate([face(0, 0, 0.25), face(3, 100, 0.75)], PAIR)),
    (1, 0.04, Landmarks.empty(PAIR)),
    (2, 0.123456, face(3, 0.5, math.nan)),
]
ROWS = [
    (0, 0.0, 0, "left, of two", 1.25, 2.5, 0.25),
    (0, 0.0, 0, "right", 3.125, 4.0, 0.5),
    (0, 0.0, 3, "left, of two", 101.25, 102.5, 0.75),
    (0, 0.0, 3, "right", 103.125, 104.0, 0.5),
    (2, 0.123456, 3, "left, of two", 1.75, 3.0, math.nan),
    (2, 0.123456, 3, "right", 3.625, 4.5, 0.5),
]


def write_frames(path: Path, rows_per_flush: int = 1000) -> None:
    with open_landmark_file(path, PAIR, rows_per_flush) as write:
        for frame in FRAMES:
            write(*frame)


# --- videos ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_per_flush", [1, 2, 1000])
def test_csv_and_parquet_have_the_same_rows(tmp_path: Path, rows_per_flush: int) -> None:
    write_frames(tmp_path / "p.csv")
    write_frames(tmp_path / "p.Parquet", rows_per_flush)
    expected = pd.DataFrame(ROWS, columns=list(VIDEO_COLUMNS))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "p.csv"), expected)
    parquet = pd.read_parquet(tmp_path / "p.Parquet")
    pd.testing.assert_frame_equal(parquet, expected, check_dtype=False)


def test_json_has_every_frame(tmp_path: Path) -> None:
    write_frames(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    assert (content["schema"], content["names"]) == ("pair", ["left, of two", "right"])
    assert [(row["frame"], row["time"]) for row in content["frames"]] == [(0, 0.0), (1, 0.04), (2, 0.123456)]
    assert content["frames"][1]["faces"] == []
    (last,) = content["frames"][2]["faces"]
    assert last == {
        "track_id": 3,
        "landmarks": {
            "left, of two": {"x": 1.75, "y": 3.0, "confidence": None},
            "right": {"x": 3.625, "y": 4.5, "confidence": 0.5},
        },
    }


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.parquet"])
def test_file_of_video_without_faces_is_readable(tmp_path: Path, name: str) -> None:
    with open_landmark_file(tmp_path / name, PAIR) as write:
        write(0, 0.0, Landmarks.empty(PAIR))
    if name == "p.json":
        assert json.loads((tmp_path / name).read_text())["frames"] == [{"frame": 0, "time": 0.0, "faces": []}]
    else:
        read = pd.read_csv if name == "p.csv" else pd.read_parquet
        table = read(tmp_path / name)
        assert list(table) == list(VIDEO_COLUMNS)
        assert len(table) == 0


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.parquet"])
def test_failed_write_keeps_earlier_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("earlier")

    class BrokenLandmarks:
        """Two faces, the second of which cannot be read."""

        track_ids = (0, 1)

        def __iter__(self) -> Iterator[Landmarks]:
            yield face(0, 0, 0.5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), open_landmark_file(tmp_path / name, PAIR) as write:
        write(1, 0.04, BrokenLandmarks())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "earlier"


def test_other_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\.xlsx: landmarks are written as \.csv, \.json, \.parquet"):
        open_landmark_file(tmp_path / "p.xlsx", PAIR)


# --- images ---------------------------------------------------------------------------------------


@pytest.fixture
def results() -> list[ImageResult]:
    """Return an image with two faces, the first partly without confidence, and an image without faces."""
    faces = Landmarks.concatenate([face(0, 0, math.nan), face(1, 100, 0.75)], PAIR)
    return [
        ImageResult(Path("a.png"), (320, 240), faces, Path("out/a_landmarks.png")),
        ImageResult(Path("b.png"), (20, 10), Landmarks.empty(PAIR)[[]], Path("out/b_landmarks.png")),
    ]


def test_image_json_has_boxes_rolls_confidence_and_landmarks(
    tmp_path: Path, results: list[ImageResult]
) -> None:
    write_landmarks_json(tmp_path / "landmarks.json", results, PAIR)
    content = json.loads((tmp_path / "landmarks.json").read_text())
    assert (content["schema"], content["names"]) == ("pair", list(PAIR.names))
    first, second = content["images"]
    assert (first["image"], first["width"], first["height"]) == ("a.png", 320, 240)
    assert first["faces"][0] == {
        "box": [0.0, 0.0, 8.0, 8.0],
        "roll": 12.5,
        "confidence": None,
        "landmarks": {
            "left, of two": {"x": 1.25, "y": 2.5, "confidence": None},
            "right": {"x": 3.125, "y": 4.0, "confidence": 0.5},
        },
    }
    assert first["faces"][1]["confidence"] == 0.625
    assert second["faces"] == []


def test_image_csv_has_one_row_per_landmark(tmp_path: Path, results: list[ImageResult]) -> None:
    write_landmarks_csv(tmp_path / "landmarks.csv", results)
    assert (tmp_path / "landmarks.csv").read_text().splitlines() == [
        "image,face,landmark,x,y,confidence",
        'a.png,0,"left, of two",1.250,2.500,',
        "a.png,0,right,3.125,4.000,0.500",
        'a.png,1,"left, of two",101.250,102.500,0.750',
        "a.png,1,right,103.125,104.000,0.500",
    ]


# --- visibility ----------------------------------------------------------------------------------


def visible(landmarks: Landmarks, *values: float) -> Landmarks:
    """Return one face with the given visibility."""
    return replace(landmarks, visibility=np.array([values], np.float32))


@pytest.mark.parametrize("name", ["p.csv", "p.parquet", "p.json"])
def test_video_file_has_visibility_as_last_column_on_request(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with open_landmark_file(path, PAIR, visibility=True) as write:
        write(0, 0.0, visible(face(0, 0, 0.25), 0.125, math.nan))
    if name.endswith("json"):
        (found,) = json.loads(path.read_text())["frames"][0]["faces"]
        assert found["landmarks"]["left, of two"]["visibility"] == 0.125
        assert found["landmarks"]["right"]["visibility"] is None
        return
    table = pd.read_csv(path) if name.endswith("csv") else pd.read_parquet(path)
    assert list(table) == [*VIDEO_COLUMNS, "visibility"]
    np.testing.assert_array_equal(table["visibility"], [0.125, math.nan])


def test_image_files_have_visibility_on_request(tmp_path: Path) -> None:
    landmarks = visible(face(0, 0, 0.25), 0.125, 1.0)
    results = [ImageResult(Path("a.png"), (8, 8), landmarks, Path("a_landmarks.png"))]
    write_landmarks_json(tmp_path / "p.json", results, PAIR, visibility=True)
    (found,) = json.loads((tmp_path / "p.json").read_text())["images"][0]["faces"]
    assert [entry["visibility"] for entry in found["landmarks"].values()] == [0.125, 1.0]
    write_landmarks_csv(tmp_path / "p.csv", results, visibility=True)
    assert pd.read_csv(tmp_path / "p.csv")["visibility"].tolist() == [0.125, 1.0]
    write_landmarks_csv(tmp_path / "without.csv", results)
    assert "visibility" not in pd.read_csv(tmp_path / "without.csv")
