"""The application: help, entry points, and errors as one line with an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from landmarks_fastai.cli import main, run

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "video",
    "live",
    "web",
    "submit",
    "export",
    "data",
    "configs",
)
HEAVY = {"torch", "torchvision", "fastai", "pandas", "matplotlib", "numpy", "scipy", "PIL", "onnxruntime"}


def help_of(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(f"\n  {command} " in shown.out for command in COMMANDS)
    assert run([]) == 0
    assert capsys.readouterr().out == shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_command_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "For example" in shown.out
    assert f"  landmarks-fastai {command}" in shown.out.partition("For example")[2]


@pytest.mark.parametrize("command", [(), ("train",), ("web",)])
def test_help_imports_no_heavy_package(command: tuple[str, ...]) -> None:
    log = help_of("-X", "importtime", "cli.py", *command).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines()}
    assert "typer" in imported
    assert not HEAVY & imported


def test_entry_points_run_the_same_app() -> None:
    shown = help_of("cli.py").stdout
    assert "  train  " in shown
    assert help_of("-m", "landmarks_fastai").stdout == shown
    assert main.__name__ == "main"
    assert 'landmarks-fastai = "landmarks_fastai.cli:main"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("arguments", [["--debug", "configs", "nothing"], ["configs", "nothing", "--debug"]])
def test_debug_prints_traceback(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["landmarks-fastai", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.splitlines()[-1].startswith("error: no such config 'nothing'; known: ")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 1, "error: interrupted"),
        (OSError(28, "No space left on device", "x.npz"), 1, "error: x.npz: No space left on device"),
        (
            ZeroDivisionError("by\nzero"),
            1,
            "error: internal error: ZeroDivisionError: by zero; run again with --debug for the traceback",
        ),
    ],
)
def test_error_becomes_one_line_and_exit_code(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> list[str]:
        raise error

    monkeypatch.setattr("landmarks_fastai.config.loading.config_names", fail)
    assert run(["configs"]) == code
    assert capsys.readouterr().err.splitlines() == [message]


def test_sigterm_ends_command_as_interrupt_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminate() -> list[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr("landmarks_fastai.config.loading.config_names", terminate)
    assert run(["configs"]) == 1
    assert capsys.readouterr().err.splitlines() == ["error: interrupted"]
