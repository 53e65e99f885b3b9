"""Time budgets, with a clock that every iteration advances: the time is used, the schedule completed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.reporter import RecordingReporter

from landmarks_fastai.config.loading import load_config
from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.errors import UserError
from landmarks_fastai.training import time_budget
from landmarks_fastai.training.checkpoint import read_tensors
from landmarks_fastai.training.cross_validation import _fold_config
from landmarks_fastai.training.run import resume_run, train_run
from landmarks_fastai.training.run_folder import last_checkpoint
from landmarks_fastai.training.time_budget import PLOTS_SECONDS, SAVING_SECONDS
from landmarks_fastai.utils.stopwatch import Stopwatch

SmallConfig = Callable[..., TrainConfig]

EXPORT = 2.0
STEPS_PER_EPOCH = 6
NEEDED_AFTER = SAVING_SECONDS + PLOTS_SECONDS + EXPORT


class FakeClock:
    """Returns a time that only the test changes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _export_takes_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_budget, "export_seconds", lambda learn: EXPORT)


def budget_config(small_config: SmallConfig, seconds: float) -> TrainConfig:
    """Return the small config with a time budget and epochs of `STEPS_PER_EPOCH` iterations."""
    config = small_config(minutes=seconds / 60, checkpoint_every=1, epochs=99)
    return config.model_copy(update={"data": config.data.model_copy(update={"multiplier": 2})})


def ticking_reporter(clock: FakeClock, step: Callable[[int], float]) -> RecordingReporter:
    """Return a reporter that advances the clock by the duration of each iteration."""

    def advance(done: int) -> None:
        clock.now += step(done)

    return RecordingReporter(on_batch=advance)


def test_run_uses_its_time_and_completes_the_schedule(tmp_path: Path, small_config: SmallConfig) -> None:
    clock, folder = FakeClock(), tmp_path / "run"
    reporter = ticking_reporter(clock, lambda done: 1.0)
    result = train_run(budget_config(small_config, 25), folder, reporter=reporter, stopwatch=Stopwatch(clock))
    # nothing else advances the clock, so that the files of an epoch take no time
    assert len(reporter.batches) == pytest.approx(25 - NEEDED_AFTER, abs=1.5)
    assert result.epochs == 4  # three full ones, and the last
    rates = [lr for _, _, _, lr in reporter.batches]
    assert max(rates) == pytest.approx(0.003, rel=0.05)
    assert rates[-1] < 0.02 * max(rates)
    assert all(abs(total - len(rates)) <= 3 for done, total, _, _ in reporter.batches if done > 8)
    assert reporter.summaries[0].minutes == pytest.approx(25 / 60)
    assert load_config(str(folder / "config.yaml")).training.epochs == 4
    assert [note for note in reporter.notes if "an iteration takes 1 s" in note and "expected end at" in note]


def test_run_on_a_machine_that_becomes_slower_still_uses_its_time(
    tmp_path: Path, small_config: SmallConfig
) -> None:
    clock = FakeClock()
    reporter = ticking_reporter(clock, lambda done: 1.0 if done <= 10 else 3.0)
    train_run(
        budget_config(small_config, 80), tmp_path / "run", reporter=reporter, stopwatch=Stopwatch(clock)
    )
    # the results will take three times as long, too
    assert clock.now - 1000 == pytest.approx(80 - SAVING_SECONDS - 3 * (PLOTS_SECONDS + EXPORT), abs=2)
    rates = [lr for _, _, _, lr in reporter.batches]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.003, rel=0.05)
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.05 * max(rates)


def test_resumed_run_has_the_time_that_was_left(tmp_path: Path, small_config: SmallConfig) -> None:
    clock, folder = FakeClock(), tmp_path / "run"

    def step(done: int) -> float:
        if done == 2 * STEPS_PER_EPOCH + 3:
            raise ValueError("killed")
        return 1.0

    with pytest.raises(ValueError, match="killed"):
        train_run(
            budget_config(small_config, 25),
            folder,
            reporter=ticking_reporter(clock, step),
            stopwatch=Stopwatch(clock),
        )
    state = read_tensors(last_checkpoint(folder))
    assert state["time"]["elapsed"] == pytest.approx(2 * STEPS_PER_EPOCH)
    clock.now += 3600  # nothing runs
    reporter = ticking_reporter(clock, lambda done: 1.0)
    result = resume_run(folder, reporter=reporter, stopwatch=Stopwatch(clock))
    assert reporter.batches[0][0] == 2 * STEPS_PER_EPOCH + 1
    assert reporter.batches[-1][0] == pytest.approx(25 - NEEDED_AFTER, abs=1.5)
    assert reporter.batches[-1][3] < 1e-4
    assert result.epochs == 4
    again = RecordingReporter()
    assert resume_run(folder, reporter=again, stopwatch=Stopwatch(clock)).epochs == 4
    assert not again.batches


def test_time_that_start_and_results_use_up_is_refused(tmp_path: Path, small_config: SmallConfig) -> None:
    with pytest.raises(UserError, match=r"training\.minutes: 0\.05 minutes are too short: .* take"):
        train_run(budget_config(small_config, 3), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_time_budget_in_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"--minutes.*--epochs"):
        time_budget.new_time_budget(1, None, Stopwatch(), print)  # type: ignore[arg-type]


def test_fold_has_its_share_of_the_time(small_config: SmallConfig) -> None:
    config = small_config(minutes=10)
    assert _fold_config(config, 4, 2).training.minutes == 2.5
    assert _fold_config(config, 4, 2).training.epochs == config.training.epochs
    assert _fold_config(small_config(), 4, 2).training.minutes is None


def test_export_is_timed_without_using_random_numbers(
    small_config: SmallConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from landmarks_fastai.training.preparation import prepare_run
    from landmarks_fastai.training.random_state import get_random_state

    monkeypatch.undo()
    learn = prepare_run(small_config(), tmp_path).learner
    before, weights = get_random_state(), [parameter.clone() for parameter in learn.model.parameters()]
    assert time_budget.export_seconds(learn) > 0
    after = get_random_state()
    assert before["numpy"] == after["numpy"]
    assert before["python"] == after["python"]
    assert bool((before["torch"] == after["torch"]).all())
    for parameter, weight in zip(learn.model.parameters(), weights, strict=True):
        assert bool((parameter == weight).all())
