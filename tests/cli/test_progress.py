"""Progress on the command line: plain lines and no bars without a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from landmarks_fastai.cli.progress import (
    TrainingProgress,
    data_progress,
    frame_progress,
    summary_lines,
)
from landmarks_fastai.training.reporting import RunSummary

SUMMARY = RunSummary(
    folder=Path("runs/folds/fold-1"),
    source="kaggle",
    rows=7049,
    landmarks=15,
    train_rows=5639,
    valid_rows=1410,
    split="grouped",
    groups=6510,
    fold=1,
    folds=5,
    arch="resnet34",
    head="simcc",
    input_size=64,
    channels=3,
    parameters=21_420_000,
    init_from="resnet18",
    device="cuda:0",
    precision="bfloat16",
    epochs=25,
    epochs_done=5,
    batch_size=32,
)


def test_summary_lines_of_resumed_fold() -> None:
    assert summary_lines(SUMMARY) == [
        "data       kaggle, 7,049 rows, 15 landmarks",
        "fold       1 of 5",
        "split      5,639 training rows, 1,410 validation rows (6,510 groups, grouped split)",
        "model      resnet34, simcc head, 21.4 million parameters, 64 px RGB input",
        "init from  resnet18",
        "device     cuda:0, bfloat16",
        "epochs     25 (5 done), batch size 32",
        "results    runs/folds/fold-1",
    ]


def test_summary_lines_say_how_processes_share_a_batch() -> None:
    assert summary_lines(replace(SUMMARY, processes=3))[-2] == (
        "processes  3, which share the 32 rows of a batch (10.7 each); the learning rate is that of one"
        " process"
    )


def test_next_fold_prints_changed_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    second = replace(SUMMARY, fold=2, folder=Path("runs/folds/fold-2"), epochs_done=0)
    with TrainingProgress() as reporter:
        reporter.start(SUMMARY)
        capsys.readouterr()
        reporter.start(second)
    assert capsys.readouterr().out.splitlines() == [
        "fold       2 of 5",
        "epochs     25, batch size 32",
        "results    runs/folds/fold-2",
        "",
    ]


def test_training_progress_in_log_prints_notes_and_epochs_only(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "epoch": 1,
        "train_loss": 0.5,
        "valid_loss": 0.25,
        "rmse": 1.5,
        "nme": 0.0625,
        "lr": 0.002,
        "seconds": 3.21,
    }
    with TrainingProgress() as reporter:
        reporter.note("[bold]a long note[/bold] " + "x" * 200)
        reporter.batch(1, 2, 0.5, 0.002)
        reporter.epoch(row)
    assert capsys.readouterr().out.splitlines() == [
        "[bold]a long note[/bold] " + "x" * 200,
        "epoch   1  train loss 0.5000  valid loss 0.2500  rmse 1.500 px  nme 6.25%  lr 2.00e-03  3.2 s",
    ]


def test_progress_bars_print_nothing_without_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with data_progress() as progress:
        progress(5, None)
        progress(10, 10)
    with frame_progress() as progress:
        progress(1, 2)
    printed = capsys.readouterr()
    assert (printed.out, printed.err.strip()) == ("", "")
