"""Every command and every Python block of the README and the documentation runs."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.user_files import ROOT, ROWS, write_user_files

from landmarks_fastai.cli import run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("python cli.py ", "landmarks-fastai ")
NOT_RUN = {
    "conda env create -f environment.yml",
    "conda activate landmarks-fastai",
    "pip install -e '.[web]'",
    "uv venv && uv pip install -e '.[web]'",
    "make demo",
    "make test",
    # these run until they are stopped: tests/commands/test_live.py and tests/web
    "python cli.py live",
    "python cli.py live --camera 1 --model runs/default",
    "python cli.py web",
    "python cli.py web --model runs/default --port 8000 --no-browser",
}
# the same training on less data: a test is not the place to train for minutes
SMALL = ["--set", "training.epochs=1", "--set", "model.input_size=32", "--set", f"data.limit={ROWS}"]
SMALL += ["--set", "training.minutes=null"]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands() -> list[str]:
    """Return every distinct command of our program, in an order in which each finds what it needs."""
    lines = {line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines() if line}
    ours = {
        line.removeprefix(program)
        for line in lines - NOT_RUN
        for program in PROGRAMS
        if line.startswith(program)
    }
    return sorted(ours, key=stage)


def stage(command: str) -> tuple[int, str]:
    """Sort key: runs that others resume or use first, then data --audit, then corrections, then the rest."""
    arguments = command.split()
    if "--from-frames" in arguments:  # another command writes the frames
        return 7, command
    if arguments[0] == "predict" and "--resume" in arguments:  # another command begins
        return 7, command
    if arguments[0] == "convert":  # first from the CSV that exists
        return (2 if arguments[1].endswith(".csv") else 3), command
    if arguments[0] != "train":
        return (3 if "--audit" in arguments else 6), command
    if "--corrections" in arguments:
        return 5, command
    if "--resume" in arguments:
        return 4, command
    named = {"train": 0, "train --folds 5 --out runs/folds": 1}
    return named.get(command, 2), command


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder with everything that the documentation's commands name."""
    folder = tmp_path_factory.mktemp("workspace")
    write_user_files(folder)
    yield folder
    shutil.rmtree(folder)  # gigabytes of models


@pytest.fixture
def in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into the workspace, and replace the download of Kaggle's data by a small data set."""
    monkeypatch.chdir(workspace)
    for module in ("data.sources", "commands.submit"):
        name = f"landmarks_fastai.{module}.download_kaggle"
        monkeypatch.setattr(name, lambda cache, progress=None: workspace / "kaggle.zip")
    return workspace


def delete_checkpoints(folder: Path, remaining: list[str]) -> None:
    """Delete the checkpoints of runs that none of the remaining commands resumes: all have 10 GB."""
    for run_folder in folder.iterdir() if folder.is_dir() else ():
        if f"train --resume runs/{run_folder.name}" not in remaining:
            for checkpoints in run_folder.rglob("checkpoints"):
                shutil.rmtree(checkpoints)


def test_documented_commands_succeed(in_workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remaining = commands()
    assert len(remaining) >= 40
    failures = {}
    while remaining:
        command = remaining.pop(0)
        arguments = shlex.split(command)
        if arguments[0] == "train" and "--resume" not in arguments:
            arguments += SMALL
        if arguments[0] in ("predict", "video") and "--resume" not in arguments:
            arguments += ["--overwrite"]  # pages that write the same file are not read one after the other
        status = run(arguments)
        delete_checkpoints(in_workspace / "runs", remaining)
        errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
        if (status, errors) != (0, []):
            failures[command] = status, errors
    assert failures == {}
    for path in (
        "runs/default/model.onnx",
        "report/metrics.json",
        "found/landmarks.csv",
        "found/three_landmarks.png",
        "submission.csv",
        "audit/audit.png",
        "data-report/samples.png",
        "predictions/clip_landmarks.mp4",
    ):
        assert (in_workspace / path).is_file(), path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_documented_python_runs(page: Path, in_workspace: Path) -> None:
    assert (in_workspace / "runs" / "default").is_dir(), "the commands ran before"
    namespace: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), namespace)


def test_commands_that_are_not_run_are_listed_on_purpose() -> None:
    lines = {line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines() if line}
    assert {line for line in lines if not line.startswith(PROGRAMS)} | (lines & NOT_RUN) == NOT_RUN
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "landmarks-fastai"
    assert {"pip": ["-e .[web]"]} in environment["dependencies"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "docs", "lint", "test", "screen"} <= set(targets)


def test_config_tables_name_every_config() -> None:
    expected = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    for page in (ROOT / "README.md", ROOT / "docs" / "how-to" / "configs.md"):
        rows = re.findall(r"^\| (`[^|]+`) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == expected, page


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
