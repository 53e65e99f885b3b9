"""The command `train`: options to config, printed output, and dispatch to runs and cross-validations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from landmarks_fastai.cli import run
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.report import evaluate_dataset
from landmarks_fastai.training.cross_validation import CrossValidationResult
from landmarks_fastai.utils.stopwatch import Stopwatch


@dataclass
class RecordedCalls:
    """Replaces `commands.train.train` and `resume`, and records their arguments.

    Attributes
    ----------
    trained
        Config, folder and overwrite of each call of `train`.
    resumed
        Folder of each call of `resume`.
    stopwatches
        Stopwatch of each call of `train`.
    result
        What both return; if None, they raise a UserError.
    """

    trained: list[tuple[TrainConfig, Path, bool]] = field(default_factory=list)
    resumed: list[Path] = field(default_factory=list)
    stopwatches: list[Stopwatch] = field(default_factory=list)
    result: CrossValidationResult | None = None

    def train(
        self,
        config: TrainConfig,
        out: Path,
        *,
        reporter: object,
        overwrite: bool,
        progress: object,
        stopwatch: Stopwatch,
    ) -> CrossValidationResult:
        self.trained.append((config, out, overwrite))
        self.stopwatches.append(stopwatch)
        return self._finish()

    def resume(
        self, run: Path, *, reporter: object, progress: object, stopwatch: Stopwatch
    ) -> CrossValidationResult:
        self.resumed.append(run)
        return self._finish()

    def _finish(self) -> CrossValidationResult:
        if self.result is None:
            raise UserError("not trained")
        return self.result


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedCalls:
    """Change to an empty folder, and record calls instead of training."""
    monkeypatch.chdir(tmp_path)
    recorded = RecordedCalls()
    monkeypatch.setattr("landmarks_fastai.commands.train.train", recorded.train)
    monkeypatch.setattr("landmarks_fastai.commands.train.resume", recorded.resume)
    return recorded


# --- output ---------------------------------------------------------------------------------------


def test_train_prints_summary_epochs_and_next_commands(trained_workspace: Path) -> None:
    lines = (trained_workspace / "train.log").read_text().splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[:7] == [
        "data       synthetic, 60 rows, 15 landmarks",
        "split      48 training rows, 12 validation rows (grouped split)",
        "model      resnet18, simcc head, 11.3 million parameters, 32 px gray input",
        "device     cpu, float32",
        "epochs     2, batch size 16",
        "results    runs/quick",
        "",
    ]
    assert [line[:9] for line in lines if line.startswith("epoch ")] == ["epoch   1", "epoch   2"]
    assert any(line.startswith("all  ") for line in lines)
    assert lines[-4:] == [
        "",
        "next:",
        "  landmarks-fastai evaluate runs/quick",
        "  landmarks-fastai predict photo.jpg --model runs/quick",
    ]
    names = {path.name for path in (trained_workspace / "runs" / "quick").iterdir()}
    assert {"config.yaml", "data.json", "metrics.json", "model.safetensors", "model.pkl"} <= names
    listed = {line.split()[0] for line in lines[lines.index("runs/quick:") + 1 : -4]}
    assert {"model.safetensors", "model.onnx", "model.pkl", "README.md", "metrics.json"} <= listed <= names


def test_train_writes_complete_config(trained_workspace: Path) -> None:
    config = yaml.safe_load((trained_workspace / "runs" / "quick" / "config.yaml").read_text())
    assert config["data"]["count"] == 60
    assert config["training"]["epochs"] == 2


# --- options --------------------------------------------------------------------------------------


def test_train_passes_every_option_to_config(calls: RecordedCalls) -> None:
    options = (
        "--arch resnet34 --epochs 3 --batch-size 8 --lr 0.02 --seed 4 --data synthetic --corrections f.csv"
    )
    more = "--device cpu --workers 2 --reduce-data --overwrite --set augment=original --set training.ema=0"
    assert run(["train", *options.split(), "--out", "there", *more.split(), "--init-from", "resnet18"]) == 2
    ((config, folder, overwrite),) = calls.trained
    assert folder == Path("there")
    assert overwrite
    assert (config.model.arch, config.model.init_from) == ("resnet34", "resnet18")
    assert config.seed == 4
    assert (config.data.source, config.data.limit) == ("synthetic", 200)
    assert (config.data.corrections, config.data.folds) == ("f.csv", None)
    training = config.training
    assert (training.epochs, training.batch_size, training.device, training.workers) == (3, 8, "cpu", 2)
    assert training.schedule.max_lr == 0.02
    assert training.ema == 0
    assert config.augment.name == "original"


def test_minutes_are_passed_to_config_and_exclude_epochs(calls: RecordedCalls) -> None:
    run(["train", "--minutes", "2.5"])
    assert calls.trained[0][0].training.minutes == 2.5
    assert calls.stopwatches[0].elapsed() >= 0
    assert run(["train", "--minutes", "2.5", "--epochs", "3"]) == 2
    assert len(calls.trained) == 1


def test_epochs_replace_time_limit_of_config(calls: RecordedCalls, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("training:\n  minutes: 5\n  epochs: 9\n")
    run(["train", "--config", str(config)])
    run(["train", "--config", str(config), "--epochs", "3"])
    assert [(run[0].training.minutes, run[0].training.epochs) for run in calls.trained] == [(5, 9), (None, 3)]


def test_train_names_run_folder_after_config(calls: RecordedCalls, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    for folder in ("quick", "quick-2"):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / "README.md").touch()
    for config in ("quick", "mine.yaml", "default"):
        run(["train", "--config", config])
    folders = [folder.as_posix() for _, folder, _ in calls.trained]
    assert folders == ["runs/quick-3", "runs/mine", "runs/default"]


def test_find_lr_prints_suggestion_and_does_not_use_run_folder(
    calls: RecordedCalls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_lr(config: TrainConfig, folder: Path, *, progress: object) -> tuple[float, Path]:
        assert config.data.source == "synthetic"
        folder.mkdir(parents=True)
        (folder / "lr_find.png").touch()
        return 0.00123, folder / "lr_find.png"

    monkeypatch.setattr("landmarks_fastai.training.lr_finder.find_lr", find_lr)
    assert run(["train", "-c", "quick", "--data", "synthetic", "--find-lr"]) == 0
    assert capsys.readouterr().out == "suggested: --lr 0.0012   plot: runs/quick-lr/lr_find.png\n"
    run(["train", "-c", "quick"])
    assert calls.trained[0][1] == Path("runs/quick")


# --- resume and cross-validation ------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        "--epochs 3",
        "--folds 2",
        "--corrections f.csv",
        "--config quick",
        "--set seed=3",
        "--out x",
        "--overwrite",
        "--find-lr",
        "--reduce-data",
    ],
)
def test_resume_refuses_other_options(
    option: str, calls: RecordedCalls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "--resume", "runs/quick", *option.split()]) == 2
    assert capsys.readouterr().err == (
        "error: --resume uses the config of the run and takes no other option\n"
    )
    assert not calls.resumed


def test_interrupted_cross_validation_prints_how_to_resume(
    calls: RecordedCalls, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.result = CrossValidationResult(Path("there"), 3, done=1, epochs=4, report=None)
    assert run(["train", "--folds", "3", "--out", "there", "--overwrite"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "",
        "interrupted after 4 completed epochs of fold 2 of 3",
        "resume with: landmarks-fastai train --resume there",
    ]
    ((config, folder, overwrite),) = calls.trained
    assert (config.data.folds, folder, overwrite) == (3, Path("there"), True)
    calls.result = CrossValidationResult(Path("there"), 3, done=2, epochs=0, report=None)
    assert run(["train", "--resume", "there"]) == 1
    assert capsys.readouterr().out.splitlines()[1] == "interrupted after 0 completed epochs of fold 3 of 3"
    assert calls.resumed == [Path("there")]


@pytest.mark.parametrize("resume", [False, True])
def test_second_interrupt_prints_how_to_resume_if_there_is_a_checkpoint(
    resume: bool,
    calls: RecordedCalls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there" / "run.json").touch()  # changes its time
        raise KeyboardInterrupt

    monkeypatch.setattr(f"landmarks_fastai.commands.train.{'resume' if resume else 'train'}", interrupt)
    command = ["train", "--resume", "there"] if resume else ["train", "--out", "there"]
    assert run(command) == 1
    shown = capsys.readouterr()
    assert shown.out == "there is no checkpoint yet, so this run cannot be resumed; train again\n"
    assert shown.err == "error: interrupted\n"
    (tmp_path / "there" / "checkpoints").mkdir(parents=True)
    (tmp_path / "there" / "checkpoints" / "last.pt").touch()
    assert run(command) == 1
    assert capsys.readouterr().out == "resume with: landmarks-fastai train --resume there\n"


def test_interrupt_before_the_run_begins_does_not_advise_to_resume_an_earlier_run(
    calls: RecordedCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "there" / "checkpoints").mkdir(parents=True)
    for name in ("run.json", "checkpoints/last.pt"):
        (tmp_path / "there" / name).touch()
    monkeypatch.setattr("landmarks_fastai.commands.train.train", interrupt)
    assert run(["train", "--out", "there", "--overwrite"]) == 1
    assert capsys.readouterr() == ("", "error: interrupted\n")


def test_finished_cross_validation_prints_scores_files_and_next_commands(
    calls: RecordedCalls, dataset: LandmarkDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("folds")
    (folder / "fold-1").mkdir(parents=True)
    for name in ("oof.csv", "metrics.json", "config.yaml"):
        (folder / name).touch()
    complete = replace(dataset, points=np.nan_to_num(dataset.points))
    report = evaluate_dataset(complete.landmarks, dataset)
    calls.result = CrossValidationResult(folder, 5, done=5, epochs=0, report=report)
    assert run(["train", "--folds", "5", "--out", "folds"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "out-of-fold scores: every row is predicted by a model that was not trained on it"
    assert [line.split()[:3] for line in lines if line.startswith("all ")] == [["all", "60", "0.000"]]
    assert lines[lines.index("folds:") :] == [
        "folds:",
        "  fold-1 … fold-5  the run folder of each fold",
        "  oof.csv          out-of-fold predictions of all rows",
        "  metrics.json     their scores",
        "  config.yaml      the config with all defaults",
        "",
        "next:",
        "  landmarks-fastai predict photo.jpg --model folds",
        "  landmarks-fastai data --audit folds",
    ]


def test_single_fold_is_passed_to_config(calls: RecordedCalls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--folds", "3", "--set", "data.fold=2"]) == 2
    assert calls.trained[0][0].data.fold == 2
    assert run(["train", "--folds", "1"]) == 2
    assert "data.folds: must be at least 2" in capsys.readouterr().err


def test_resume_of_finished_run_keeps_weights(workspace: Path) -> None:
    before = load_file(workspace / "runs" / "quick" / "model.safetensors")
    history = (workspace / "runs" / "quick" / "history.csv").read_bytes()
    assert run(["train", "--resume", "runs/quick"]) == 0
    after = load_file(workspace / "runs" / "quick" / "model.safetensors")
    assert all((before[name] == after[name]).all() for name in before)
    assert (workspace / "runs" / "quick" / "history.csv").read_bytes() == history
