"""The points of a video in three layouts that say the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.tracking import TrackedFace
from landmarks_fastai.schema import Schema
from landmarks_fastai.tasks import pointfile
from landmarks_fastai.tasks.pointfile import COLUMNS, open_point_file

PAIR = Schema("pair", ("left, of two", "rechts"))


def face(number: int, shift: float, sure: float) -> TrackedFace:
    points = np.array([[1.25, 2.5], [3.125, 4.0]], np.float32) + np.float32(shift)
    return TrackedFace(number, points, np.array([sure, 0.5], np.float32))


FRAMES = [
    (0, 0.0, [face(0, 0, 0.25), face(3, 100, 0.75)]),
    (1, 0.04, []),
    (2, 0.123456, [face(3, 0.5, math.nan)]),
]
ROWS = [
    (0, 0.0, 0, "left, of two", 1.25, 2.5, 0.25),
    (0, 0.0, 0, "rechts", 3.125, 4.0, 0.5),
    (0, 0.0, 3, "left, of two", 101.25, 102.5, 0.75),
    (0, 0.0, 3, "rechts", 103.125, 104.0, 0.5),
    (2, 0.123456, 3, "left, of two", 1.75, 3.0, math.nan),
    (2, 0.123456, 3, "rechts", 3.625, 4.5, 0.5),
]


def write_all(path: Path) -> None:
    with open_point_file(path, PAIR) as write:
        for frame in FRAMES:
            write(*frame)


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_csv_and_parquet_hold_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(pointfile, "ROWS_AT_ONCE", at_once)
    write_all(tmp_path / "p.csv")
    write_all(tmp_path / "p.Parquet")
    expected = pd.DataFrame(ROWS, columns=list(COLUMNS))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "p.csv"), expected)
    parquet = pd.read_parquet(tmp_path / "p.Parquet")
    pd.testing.assert_frame_equal(parquet, expected, check_dtype=False)


def test_json_has_every_frame(tmp_path: Path) -> None:
    write_all(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    assert (content["schema"], content["points"]) == ("pair", ["left, of two", "rechts"])
    assert [(row["frame"], row["time"]) for row in content["frames"]] == [(0, 0.0), (1, 0.04), (2, 0.123456)]
    assert content["frames"][1]["faces"] == []
    (last,) = content["frames"][2]["faces"]
    assert last == {
        "face": 3,
        "points": {
            "left, of two": {"x": 1.75, "y": 3.0, "confidence": None},
            "rechts": {"x": 3.625, "y": 4.5, "confidence": 0.5},
        },
    }


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.parquet"])
def test_a_video_without_faces_gives_a_file_that_can_be_read(tmp_path: Path, name: str) -> None:
    with open_point_file(tmp_path / name, PAIR) as write:
        write(0, 0.0, [])
    if name == "p.json":
        assert json.loads((tmp_path / name).read_text())["frames"] == [{"frame": 0, "time": 0.0, "faces": []}]
    else:
        read = pd.read_csv if name == "p.csv" else pd.read_parquet
        table = read(tmp_path / name)
        assert list(table) == list(COLUMNS)
        assert len(table) == 0


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.parquet"])
def test_what_fails_leaves_the_earlier_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("earlier")

    class Broken:
        """A face whose points can't be read."""

        number = 0

        @property
        def points(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), open_point_file(tmp_path / name, PAIR) as write:
        write(1, 0.04, [face(0, 0, 0.5), Broken()])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "earlier"


def test_another_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\.xlsx: points are written as \.csv, \.json, \.parquet"):
        open_point_file(tmp_path / "p.xlsx", PAIR)
