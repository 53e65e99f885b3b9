"""On a full disk, a command fails with one line, and files of earlier runs stay as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import write_noise_clip
from helpers.small_disk import small_disk
from PIL import Image

from landmarks_fastai.cli import run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB."""
    with small_disk(tmp_path / "disk", 1) as folder:
        yield folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder and its subfolders."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_full(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a command fails because the disk is full, and says so in one line."""
    capsys.readouterr()
    assert run(arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert "cannot be written (No space left on device); free some space" in lines[0]


@pytest.fixture
def predict(workspace: Path, tmp_path: Path, disk: Path) -> list[str]:
    """Write twelve images, whose drawings do not fit onto the disk; return the command."""
    noise = np.random.default_rng(0)
    for number in range(12):
        pixels = noise.integers(0, 256, (200, 200, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    command = ["predict", str(tmp_path / "*.png"), "--model", "runs/quick", "--detector", "none"]
    return [*command, "--device", "cpu", "--out", str(disk / "out")]


def test_predict_keeps_what_is_done_and_resume_goes_on(
    predict: list[str], disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = disk / "blocker"
    blocker.write_bytes(b"x" * 500_000)
    assert_full(predict, capsys)
    before = contents(disk / "out")
    done = sorted(name for name in before if name.endswith(".png"))
    assert 1 <= len(done) < 12
    assert sorted(before) == [*done, "predictions.jsonl"]
    assert_full([*predict, "--resume"], capsys)
    assert {name: content for name, content in contents(disk / "out").items() if name in done} == {
        name: before[name] for name in done
    }
    # the rest does not fit either, but somewhere else it does
    os.system(f"cp -r {disk / 'out'} {tmp_path / 'moved'}")
    assert run([*predict, "--resume", "--out", str(tmp_path / "moved")]) == 0
    assert f"{len(done)} images done before, skipped" in capsys.readouterr().out
    assert len(list((tmp_path / "moved").glob("*_landmarks.png"))) == 12


def test_predict_overwrite_keeps_the_earlier_results(
    predict: list[str], disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [predict[0], str(Path(predict[1]).with_name("0[0-3].png")), *predict[2:]]
    assert run(first) == 0
    before = contents(disk / "out")
    assert len(before) == 6
    assert_full([*predict, "--overwrite"], capsys)
    assert before.items() <= contents(disk / "out").items()


@pytest.mark.parametrize("option", ["--out", "--frames", "--landmarks"])
def test_video_keeps_the_earlier_files(
    workspace: Path, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    clip = write_noise_clip(tmp_path / "a.mp4")
    name = {"--out": "o.mp4", "--frames": "frames", "--landmarks": "points.json"}[option]
    command = ["video", str(clip), option, str(disk / "out" / name), "--overwrite"]
    command += [] if option == "--out" else ["--no-draw"]
    if option != "--frames":
        command += ["--model", "runs/quick", "--detector", "none", "--device", "cpu"]
    assert run([*command, "--end", "0.1"]) == 0
    before = contents(disk)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
    blocker = b"x" * (free - 12_288)
    (disk / "blocker").write_bytes(blocker)
    assert_full(command, capsys)
    assert contents(disk) == {**before, "blocker": blocker}


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_export_keeps_the_earlier_file(
    workspace: Path, disk: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    out = disk / f"model{suffix}"
    out.write_bytes(b"earlier")
    assert_full(["export", "runs/quick", "--out", str(out), "--overwrite"], capsys)
    assert contents(disk) == {out.name: b"earlier"}
