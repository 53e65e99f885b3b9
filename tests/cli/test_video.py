"""The command `video`: its options and what it prints; tests/commands/test_video.py tests its output."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.clips import quadrant_frame, write_clip, write_gray_clip, write_wav
from PIL import Image

from landmarks_fastai.cli import run
from landmarks_fastai.model_files.header import SYNTHETIC_WARNING


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
    assert printed.err.splitlines() == [f"warning: {SYNTHETIC_WARNING}"]
    assert Path("predictions/a_landmarks.mp4").is_file()


@pytest.mark.parametrize(
    "options",
    [
        ["--model", "resnet18"],
        ["--detector", "dlib"],
        ["--device", "cpu"],
        ["--no-smooth"],
        ["--trust-pickle"],
    ],
    ids=lambda options: options[0],
)
def test_video_refuses_options_of_the_model_if_nothing_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gray_clip(tmp_path / "a.mp4", 3)
    assert run(["video", "a.mp4", "--frames", "frames", "--no-draw", *options]) == 2
    error = capsys.readouterr().err
    assert options[0] in error
    assert "have no effect with --no-draw unless --landmarks is given" in error
    assert not Path("frames").exists()


def test_video_without_landmarks_needs_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gray_clip(tmp_path / "a.mp4", 3)
    assert run(["video", "a.mp4", "--frames", "frames", "--no-draw"]) == 0
    assert capsys.readouterr().out == "3 frames: frames\n"
    assert len(list(Path("frames").glob("*.png"))) == 3


def test_video_prints_what_was_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        write_clip(tmp_path / f"{width}.ts", [quadrant_frame(width, 48)] * 3).read_bytes()
        for width in (64, 96)
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    out = tmp_path / "out.mp4"
    assert run(["video", str(tmp_path / "a.ts"), "--out", str(out), "--no-draw"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"6 frames: {out}",
        f"{tmp_path / 'a.ts'}: the size of the frames changes at 0.12 s; frames of another size are scaled to"
        " fit into 64 x 48 px, with black borders",
    ]


def test_video_of_other_kinds_of_files_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    write_wav(tmp_path / "a.wav")
    for name, message in (
        ("a.png", "an image, not a video; use the predict command"),
        ("a.wav", "an audio file, not a video; it has no video stream"),
    ):
        assert run(["video", str(tmp_path / name), "--out", str(tmp_path / "o.mp4"), "--no-draw"]) == 2
        assert capsys.readouterr().err == f"error: {tmp_path / name}: {message}\n"
