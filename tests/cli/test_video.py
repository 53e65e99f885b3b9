"""The command `video`: its options and what it prints; tests/commands/test_video.py tests its output."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.clips import write_gray_clip

from landmarks_fastai.cli import run
from landmarks_fastai.cli.models import SYNTHETIC_WARNING


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "specify a video, or a folder of images with --from-frames"),
        (["a.mp4", "--from-frames", "."], "specify a video or --from-frames, not both"),
        (["."], ".: is a folder; to read its images as frames, use --from-frames"),
        (["--from-frames", "nothing"], "--from-frames nothing: no such folder"),
        (
            ["--from-frames", ".", "--start", "1"],
            "--start and --end select a part of a video; they cannot be combined with --from-frames",
        ),
        (
            ["--from-frames", ".", "--end", "1"],
            "--start and --end select a part of a video; they cannot be combined with --from-frames",
        ),
    ],
)
def test_video_with_invalid_source_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["video", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_video_prints_model_warning_and_default_output(
    trained_workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gray_clip(tmp_path / "a.mp4", 3)
    model = trained_workspace / "runs" / "quick"
    assert run(["video", "a.mp4", "--model", str(model), "--detector", "none", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"model: {model / 'model.safetensors'}",
        "3 frames, 1 track: predictions/a_landmarks.mp4",
    ]
    assert printed.err.splitlines() == [SYNTHETIC_WARNING]
    assert Path("predictions/a_landmarks.mp4").is_file()


def test_video_without_landmarks_needs_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gray_clip(tmp_path / "a.mp4", 3)
    assert run(["video", "a.mp4", "--frames", "frames", "--no-draw"]) == 0
    assert capsys.readouterr().out == "3 frames: frames\n"
    assert len(list(Path("frames").glob("*.png"))) == 3
