"""Kill training with SIGKILL at random moments, resume, and compare the result with an uninterrupted run.

    python benchmarks/kill_resume.py

Half of the kills are at moments drawn uniformly over the run, half shortly after last.pt began to be written.
Cross-validations are killed at uniformly drawn moments.
Every second run replaces an earlier one. Runs are forked from one process that has imported everything, and
use one thread of the CPU. Writes kill_resume.json and kill_resume.md; kills that are in kill_resume.json are
not repeated. `--work` is the folder of the runs; it needs 2 GB.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results, run_missing
from safetensors.torch import load_file

from landmarks_fastai.config.loading import validate_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.evaluation.out_of_fold import FOLDS_NAME, OOF_NAME
from landmarks_fastai.model_files.run_marker import fold_folder
from landmarks_fastai.training.checkpoint import read_tensors
from landmarks_fastai.training.cross_validation import (
    cross_validate,
    is_cross_validation,
    resume_cross_validation,
)
from landmarks_fastai.training.run import resume_run, train_run
from landmarks_fastai.training.run_folder import METRICS_NAME, best_checkpoint, last_checkpoint

KILLS = 50
CROSS_VALIDATION_KILLS = 20
FOLDS = 2
SEED = 1
EPOCHS = 3
WRITE_SECONDS = 0.2
"""Roughly how long the write of last.pt takes."""

EARLIER = {"run.json": '{"format": 2}', "config.yaml": "seed: 9\n", "checkpoints/last.pt": "earlier"}
"""Files of the earlier run that every second run replaces."""

PRELOADED = ("matplotlib.pyplot", "onnx", "onnxruntime", "torch.onnx")
"""Modules that a run imports late; imported before the fork, because that takes longer than the training."""

MOMENTS = (
    "before training",
    "before the first checkpoint",
    "between checkpoints",
    "best.pt was being written",
    "last.pt was being written",
    "the results were being written",
    "after the end",
)


def tiny_config(folds: int | None = None) -> TrainConfig:
    """Return the config of a run of seconds that uses everything that a checkpoint restores.

    The runs of a cross-validation have one epoch.
    """
    return validate_config(
        {
            "seed": 3,
            "model": {"input_size": 32, "head": "soft-argmax"},
            "data": {"source": "synthetic", "count": 60, "folds": folds},
            "training": {
                "epochs": EPOCHS if folds is None else 1,
                "batch_size": 16,
                "loss": "l1",
                "schedule": {"name": "one_cycle", "max_lr": 0.003},
                "ema": 0.9,
                "patience": 2,
                "device": "cpu",
                "precision": "fp32",
            },
        },
        "kill_resume",
    )


@dataclass(frozen=True)
class CrossValidationTrials:
    """Cross-validations that are killed; see `Trials` for the parameters."""

    work: Path
    expected: Path
    seconds: float

    @classmethod
    def prepare(cls, work: Path) -> CrossValidationTrials:
        """Cross-validate without interruption."""
        expected = work / "expected"
        return cls(work, expected, run_uninterrupted(cls._train(work, expected)))

    @staticmethod
    def _train(work: Path, folder: Path) -> Callable[[], object]:
        return partial(cross_validate, tiny_config(FOLDS), folder, cache=work / "cache", overwrite=True)

    def kill(self, number: int) -> Results:
        """Cross-validate, kill, resume and compare; return where it was killed and whether all is equal."""
        draw = random.Random(f"{SEED}-cross-validation-{number}")
        folder = self.work / f"cross-validation-{number}"
        process = start(self._train(self.work, folder))
        time.sleep(draw.uniform(0.0, self.seconds))
        os.kill(process, signal.SIGKILL)
        killed = wait(process) == -signal.SIGKILL
        begun = is_cross_validation(folder)
        done = json.loads((folder / FOLDS_NAME).read_text())["done"] if begun else 0
        resume = partial(resume_cross_validation, folder, cache=self.work / "cache")
        if wait(start(resume if begun else self._train(self.work, folder))) != 0:
            raise RuntimeError(f"{folder}: the second process failed")
        difference = self._compare(folder)
        if difference is None:
            shutil.rmtree(folder)
        moment = f"with {done} of {FOLDS} folds done" if killed else MOMENTS[-1]
        return {"moment": moment, "earlier": False, "difference": difference}

    def _compare(self, folder: Path) -> str | None:
        """Return what differs from the uninterrupted cross-validation; None if nothing does."""
        for number in range(1, FOLDS + 1):
            difference = compare(fold_folder(folder, number), fold_folder(self.expected, number))
            if difference is not None:
                return f"fold {number}: {difference}"
        names = [{path.name for path in each.iterdir()} for each in (folder, self.expected)]
        if names[0] != names[1]:
            return f"files: {sorted(names[0] ^ names[1])}"
        for name in (FOLDS_NAME, OOF_NAME, METRICS_NAME):
            if (folder / name).read_bytes() != (self.expected / name).read_bytes():
                return name
        return None


@dataclass(frozen=True)
class Trials:
    """What all kills share.

    Parameters
    ----------
    work
        Folder of the runs and of the cache.
    expected
        Folder of the uninterrupted run.
    seconds
        Its duration.
    """

    work: Path
    expected: Path
    seconds: float

    @classmethod
    def prepare(cls, work: Path) -> Trials:
        """Train without interruption."""
        expected = work / "expected"
        run = partial(train_run, tiny_config(), expected, cache=work / "cache")
        return cls(work, expected, run_uninterrupted(run))

    def kill(self, number: int) -> Results:
        """Train, kill, resume and compare; return where it was killed and whether the results are equal."""
        draw = random.Random(f"{SEED}-{number}")
        folder = self.work / f"run-{number}"
        earlier = number % 2 == 1
        if earlier:
            write_files(folder, EARLIER)
        train = partial(train_run, tiny_config(), folder, cache=self.work / "cache", overwrite=True)
        process = start(train)
        if number % 4 < 2:
            time.sleep(draw.uniform(0.0, self.seconds))
        else:
            self._wait_for_last_checkpoint(folder, process, draw)
        os.kill(process, signal.SIGKILL)
        killed = wait(process) == -signal.SIGKILL
        moment = describe_moment(folder) if killed else MOMENTS[-1]
        resume = partial(resume_run, folder, cache=self.work / "cache")
        begun = (folder / "data.json").is_file() and last_checkpoint(folder).is_file()
        if earlier and not begun:
            check_earlier_run(folder, resume)
        if wait(start(resume if begun else train)) != 0:
            raise RuntimeError(f"{folder}: the second process failed")
        difference = compare(folder, self.expected)
        if difference is None:
            shutil.rmtree(folder)
        return {"moment": moment, "earlier": earlier, "difference": difference}

    def _wait_for_last_checkpoint(self, folder: Path, process: int, draw: random.Random) -> None:
        """Wait until last.pt is written for a random time, up to the duration of a write."""
        epoch, delay = draw.randrange(EPOCHS), draw.uniform(0.0, WRITE_SECONDS)
        deadline = time.monotonic() + 20 * self.seconds
        unfinished = folder / "checkpoints" / f".last.{process}.pt"
        for _ in range(epoch):
            poll(unfinished.exists, deadline)
            poll(lambda: not unfinished.exists(), deadline)
        poll(unfinished.exists, deadline)
        time.sleep(delay)


def run_uninterrupted(run: Callable[[], object]) -> float:
    """Call a function in a forked process; return how many seconds it took."""
    for module in PRELOADED:
        importlib.import_module(module)
    started = time.monotonic()
    if wait(start(run)) != 0:
        raise RuntimeError("the uninterrupted run failed")
    return time.monotonic() - started


def poll(condition: Callable[[], bool], deadline: float) -> None:
    """Wait until a condition is true."""
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.0002)


def start(run: Callable[[], object]) -> int:
    """Call a function in a forked process, and return its ID."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        torch.set_num_threads(1)
        run()
        code = 0
    except BaseException:  # a forked process must not return
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int) -> int:
    """Wait for a forked process; return its exit code, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write text files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def is_earlier(folder: Path) -> bool:
    """Return True if the run in a folder is the complete earlier run."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return set(files) == set(EARLIER) and all(files[name].read_text() == EARLIER[name] for name in EARLIER)


def check_earlier_run(folder: Path, resume: Callable[[], object]) -> None:
    """Check that a new run without a checkpoint cannot be resumed, and that the earlier one is complete."""
    with suppress(UserError):  # the checkpoint of the earlier run is none
        resume()
    if not is_earlier(folder):
        raise RuntimeError(f"{folder}: the earlier run is incomplete")


def describe_moment(folder: Path) -> str:
    """Return the one of `MOMENTS` at which the run in a folder was killed."""
    checkpoints = folder / "checkpoints"
    if not (folder / "data.json").is_file():  # the earlier run has none
        return MOMENTS[0]
    if list(checkpoints.glob(".last.*")):
        return MOMENTS[4]
    if list(checkpoints.glob(".best.*")):
        return MOMENTS[3]
    if not last_checkpoint(folder).is_file():
        return MOMENTS[1]
    return MOMENTS[5] if (folder / "metrics.json").is_file() else MOMENTS[2]


def compare(folder: Path, expected: Path) -> str | None:
    """Return what differs between two run folders, bit for bit; None if nothing does."""
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (folder, expected)]
    if names[0] != names[1]:
        return f"files: {sorted(set(names[0]) ^ set(names[1]))}"
    weights = [load_file(run / "model.safetensors") for run in (folder, expected)]
    weights += [read_tensors(last_checkpoint(run))["model"] for run in (folder, expected)]
    weights += [read_tensors(best_checkpoint(run))["weights"] for run in (folder, expected)]
    for first, second in zip(weights[::2], weights[1::2], strict=True):
        if first.keys() != second.keys() or not all(torch.equal(first[name], second[name]) for name in first):
            return "weights"
    histories = [pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (folder, expected)]
    return None if histories[0].equals(histories[1]) else "history.csv"


def render(results: Results) -> str:
    """Return the page."""
    kills = list(results["kills"].values())
    cross_validations = list(results["cross-validation kills"].values())
    replacing = sum(kill["earlier"] for kill in kills)
    return markdown_page(
        "Resuming after SIGKILL",
        f"`python benchmarks/kill_resume.py`: {len(kills)} runs of {EPOCHS} epochs on 60 synthetic faces were"
        " killed, half at moments drawn uniformly, half while last.pt was written. Then the run was resumed,"
        " or trained again if there was no checkpoint yet. Equal: the files of the run folder, the weights in"
        " `model.safetensors`, `last.pt` and `best.pt` and the history are those of an uninterrupted run, bit"
        " for bit. Nothing else is in the folder: no temporary file, no lock.",
        _kill_table(kills),
        f"{replacing} of the runs replaced an earlier run. Where the new run had no checkpoint yet, the"
        " earlier run was complete afterward.",
        f"{len(cross_validations)} cross-validations of {FOLDS} folds of one epoch were killed at moments"
        " drawn uniformly. Equal: the same for the run folder of each fold, and the out-of-fold predictions"
        " and their scores, byte for byte.",
        _kill_table(cross_validations),
        f"{results['setting']['machine']}.",
    )


def _kill_table(kills: Sequence[Results]) -> str:
    """Return a table of the moments of kills."""
    counts = Counter(kill["moment"] for kill in kills)
    equal = Counter(kill["moment"] for kill in kills if kill["difference"] is None)
    moments = [moment for moment in MOMENTS if counts[moment]]
    others = sorted(counts.keys() - set(MOMENTS))
    rows = [[moment, str(counts[moment]), str(equal[moment])] for moment in (*others, *moments)]
    rows.append(["all", str(len(kills)), str(sum(equal.values()))])
    return markdown_table(["killed", "kills", "equal after resuming"], rows)


FILES = ResultFiles("kill_resume", render)


def main() -> None:
    """Measure each kill, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--work", type=Path, help="existing folder for the runs; default: a temporary one")
    parser.add_argument("--kills", type=int, default=KILLS, help="number of kills")
    parser.add_argument(
        "--cross-validation-kills",
        type=int,
        default=CROSS_VALIDATION_KILLS,
        help="number of killed cross-validations",
    )
    options, files = parser.parse()
    torch.set_num_threads(1)
    counts = {"kills": options.kills, "cross-validation kills": options.cross_validation_kills}
    for (key, count), kind in zip(counts.items(), (Trials, CrossValidationTrials), strict=True):
        if len(files.read().get(key, {})) >= count:
            continue
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            trials = kind.prepare(Path(work))
            kills = [((key, f"{number:02}"), partial(trials.kill, number)) for number in range(count)]
            run_missing(files, {"machine": describe_machine()}, kills)
    files.write_page()


if __name__ == "__main__":
    main()
