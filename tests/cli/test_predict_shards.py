"""The command `predict` with archives, lists, URLs and engines."""

from __future__ import annotations

import os
import signal
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from landmarks_fastai.batch_inference.prediction import ShardPredictor
from landmarks_fastai.cli import run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with 5 random images and an unreadable one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def options(model_path: Path) -> list[str]:
    """Return options that make `predict` fast."""
    return [
        "--model",
        str(model_path),
        "--device",
        "cpu",
        "--backend",
        "torch",
        "--detector",
        "none",
        "--refine",
        "0",
    ]


def landmarks(out: str | Path) -> pd.DataFrame:
    return pd.read_parquet(f"{out}/landmarks")


def test_shards_are_written_and_resumed_without_repetition(
    photos: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["predict", str(photos), "--engine", "local", "--shard-size", "2", "--out", str(out), *options]
    assert run(command) == 2  # because of the unreadable image
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"landmarks: {out} (3 Parquet shards, engine local, no drawings)"
    assert lines[2].startswith("shard 1 of 3: 2 faces in 2 images, ")
    assert lines[-2:] == [
        "3 shards: 5 faces in 5 images, 1 unreadable",
        f"images without landmarks, with the reason: {out}/rejected",
    ]
    first = landmarks(out)
    assert sorted(first["path"].unique()) == [str(photos / f"{number}.png") for number in range(5)]
    files = sorted((out / "landmarks").iterdir())
    files[1].unlink()
    states = {path: path.stat().st_mtime_ns for path in files if path.exists()}
    assert run(command) == 2
    assert "contains results of an earlier run (2 shards); go on with --resume" in capsys.readouterr().err
    assert run([*command, "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "2 shards done before, skipped" in printed
    assert "1 shard: 2 faces in 2 images" in printed
    assert {path: path.stat().st_mtime_ns for path in states} == states
    pd.testing.assert_frame_equal(landmarks(out), first)
    assert run([*command, "--resume", "--refine", "1"]) == 2
    assert "another value of --refine" in capsys.readouterr().err
    (out / "plan.jsonl").unlink()
    assert run([*command, "--resume"]) == 2
    assert "cannot be resumed, because plan.jsonl is missing" in capsys.readouterr().err


def test_overwrite_replaces_results(
    photos: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["predict", str(photos / "0.png"), "--engine", "local", "--out", str(out), *options]
    assert run(command) == 0
    command[1] = str(photos / "1.png")
    assert run([*command, "--overwrite"]) == 0
    assert f"{out}: results of 1 shard deleted" in capsys.readouterr().out
    assert list(landmarks(out)["path"].unique()) == [str(photos / "1.png")]


def test_urls_are_read_and_written(photos: Path, options: list[str], tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    try:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(photos / "0.png", "../0.png")
        fs.put_file(str(tmp_path / "a.tar"), "/in/a.tar")
        fs.put_file(str(photos / "1.png"), "/in/b/1.png")
        assert run(["predict", "memory://in", "--out", "memory://out", *options]) == 0
        assert sorted(fs.find("/out")) == [
            "/out/landmarks/part-00000.parquet",
            "/out/landmarks/part-00001.parquet",
            "/out/plan.jsonl",
        ]
        tables = [pd.read_parquet(f"memory://out/landmarks/part-0000{index}.parquet") for index in (0, 1)]
        assert [table["path"][0] for table in tables] == [
            "memory:///in/a.tar/../0.png",
            "memory:///in/b/1.png",
        ]
    finally:
        fs.rm("/", recursive=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.tar"], "none.tar: no such file or folder"),
        (["photos", "--engine", "spark"], "--engine spark: no such engine"),
        (["photos", "--workers", "2"], "--workers has an effect with --engine ray only"),
        (["photos", "--engine", "local", "--csv"], "have no effect on Parquet"),
        (["photos", "--engine", "local", "--out", "photos/0.png"], "is a file; choose another --out"),
        (["xyz://a.tar"], "xyz://a.tar: cannot be opened"),
    ],
)
def test_wrong_use_is_reported_in_one_line(
    photos: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos.parent)
    assert run(["predict", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (photos.parent / "landmark-shards").exists()


def test_missing_shard_is_an_error_and_the_others_are_done(
    photos: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text(f"{photos / '0.png'}\nnone.tar\n")
    out = tmp_path / "out"
    assert run(["predict", str(tmp_path / "list.txt"), "--out", str(out), *options]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'none.tar'}: no such file" in error
    assert "1 shard could not be read" in error
    assert len(landmarks(out)["path"].unique()) == 1


def test_ctrl_c_keeps_complete_shards(
    photos: Path,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predict, out = ShardPredictor.__call__, tmp_path / "out"

    def interrupted(self: ShardPredictor, index: int, *arguments: object) -> object:
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(self, index, *arguments)

    monkeypatch.setattr(ShardPredictor, "__call__", interrupted)
    command = ["predict", str(photos), "--shard-size", "2", "--out", str(out), *options]
    assert run(command) == 1
    assert "interrupted; 2 of 3 shards are left, go on with --resume" in capsys.readouterr().err
    assert [path.name for path in out.rglob("*.parquet")] == ["part-00000.parquet"]
    monkeypatch.undo()
    assert run([*command, "--resume"]) == 2
    assert len(landmarks(out)["path"].unique()) == 5


def test_default_folder_is_numbered(
    photos: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(["predict", "photos/0.png", "--engine", "local", *options]) == 0
    assert len(landmarks("landmark-shards-2")) == len(landmarks("landmark-shards"))


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_ray_gives_the_results_of_one_process(photos: Path, options: list[str], tmp_path: Path) -> None:
    command = ["predict", str(photos), "--shard-size", "2", *options]
    assert run([*command, "--out", str(tmp_path / "local")]) == 2
    assert run([*command, "--out", str(tmp_path / "ray"), "--engine", "ray", "--workers", "1"]) == 2
    pd.testing.assert_frame_equal(landmarks(tmp_path / "ray"), landmarks(tmp_path / "local"))
    rejected = [pd.read_parquet(tmp_path / name / "rejected") for name in ("local", "ray")]
    pd.testing.assert_frame_equal(*rejected)


def test_missing_ray_names_the_extra(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["predict", str(photos), "--engine", "ray"]) == 2
    assert "pip install 'landmarks-fastai[ray]'" in capsys.readouterr().err
