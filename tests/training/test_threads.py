"""The number of threads: chosen by measured durations, again on a busy machine, kept by a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.reporter import RecordingReporter

from landmarks_fastai.config.options import TrainConfig
from landmarks_fastai.training import threads
from landmarks_fastai.training.checkpoint import read_tensors
from landmarks_fastai.training.preparation import prepare_run
from landmarks_fastai.training.run import resume_run, train_run
from landmarks_fastai.training.run_folder import last_checkpoint
from landmarks_fastai.training.threads import WINDOW, ChooseThreads, step_seconds
from landmarks_fastai.utils.stopwatch import Stopwatch

SmallConfig = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "available_processors", lambda: 4)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class Machine:
    """A machine on which an iteration takes the given seconds for each number of threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now = seconds, 0.0
        self.measured: list[int] = []
        self.notes: list[str] = []
        self.chooser = self.new_chooser()

    def new_chooser(self, fixed: int | None = None, chooses: bool = True) -> ChooseThreads:
        chooser = ChooseThreads(fixed, self.notes.append, chooses, self.measure, Stopwatch(lambda: self.now))
        chooser.learn = SimpleNamespace(epoch=0)
        return chooser

    def measure(self, learn: object, count: int) -> float:
        self.measured.append(count)
        self.now += 3 * self.seconds[count]
        return self.seconds[count]

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.chooser.before_batch()
            assert self.chooser.count is not None
            self.now += self.seconds[self.chooser.count]

    def begin_epoch(self, epoch: int) -> None:
        self.chooser.learn.epoch = epoch
        self.chooser.before_epoch()

    def begin(self) -> None:
        self.chooser.before_fit()
        self.begin_epoch(0)


IDLE = {4: 1.0, 2: 1.9, 1: 3.6}
BUSY = {4: 9.0, 2: 5.0, 1: 4.0}


def test_idle_machine_uses_all_threads_silently() -> None:
    machine = Machine(IDLE)
    machine.begin()
    assert (machine.chooser.count, torch.get_num_threads()) == (4, 4)
    assert machine.measured == [4, 2, 1]
    assert not machine.notes


def test_small_advantage_of_fewer_threads_does_not_count() -> None:
    machine = Machine({4: 1.15, 2: 1.0, 1: 1.1})
    machine.begin()
    assert machine.chooser.count == 4


def test_busy_machine_uses_fewer_threads_and_says_so() -> None:
    machine = Machine(BUSY)
    machine.begin()
    assert (machine.chooser.count, torch.get_num_threads()) == (1, 1)
    assert machine.notes == [
        "training.threads: 1 of 4, because an iteration of 16 rows takes 4 s, and 9 s with 4"
    ]


def test_threads_are_chosen_again_when_iterations_become_slow() -> None:
    machine = Machine(dict(IDLE))
    machine.begin()
    machine.train(3 * WINDOW)
    machine.seconds = {4: 1.4, 2: 0.5, 1: 0.5}
    machine.train(3 * WINDOW)
    assert len(machine.measured) == 3  # 1.4 times as slow is not slow enough
    machine.seconds = BUSY
    machine.train(WINDOW)
    assert machine.measured == [4, 2, 1] * 2
    assert torch.get_num_threads() == 1
    machine.train(5 * WINDOW)
    assert machine.measured == [4, 2, 1] * 2


def test_all_threads_are_tried_again_between_epochs_at_small_cost() -> None:
    machine = Machine(BUSY)
    machine.begin()
    machine.begin_epoch(1)
    assert len(machine.measured) == 3  # too soon: measuring took 54 s
    machine.seconds = IDLE
    machine.train(400)
    machine.begin_epoch(2)
    assert machine.chooser.count == 4
    assert "training.threads: 4 of 4" in machine.notes[-1]
    machine.train(400)
    machine.begin_epoch(3)
    assert machine.measured == [4, 2, 1] * 2


def test_fixed_number_is_never_measured() -> None:
    machine = Machine(BUSY)
    machine.chooser = machine.new_chooser(fixed=2)
    machine.begin()
    machine.train(3 * WINDOW)
    machine.begin_epoch(1)
    assert (machine.chooser.count, torch.get_num_threads(), machine.measured) == (2, 2, [])


def test_number_that_is_not_chosen_is_that_of_the_processors() -> None:
    machine = Machine(BUSY)
    machine.chooser = machine.new_chooser(chooses=False)
    machine.begin()
    machine.train(3 * WINDOW)
    machine.begin_epoch(1)
    assert (machine.chooser.count, torch.get_num_threads(), machine.measured) == (4, 4, [])


@pytest.mark.parametrize("chooses", [True, False])
@pytest.mark.parametrize(("saved", "expected"), [(2, 2), (8, 4)])
def test_restored_number_is_kept_up_to_the_processors(saved: int, expected: int, chooses: bool) -> None:
    machine = Machine(BUSY)
    machine.chooser = machine.new_chooser(chooses=chooses)
    machine.chooser.restore(saved)
    machine.begin()
    assert (machine.chooser.count, machine.measured) == (expected, [])
    assert bool(machine.notes) == (saved != expected)


def test_run_is_resumed_with_its_number_of_threads(
    tmp_path: Path, small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "available_processors", lambda: 2)
    monkeypatch.setattr(threads, "step_seconds", lambda learn, count: BUSY[count])
    torch.set_num_threads(2)
    used: list[int] = []
    reporter = RecordingReporter(on_batch=lambda done: used.append(torch.get_num_threads()))
    train_run(small_config(epochs=1), tmp_path / "run", reporter=reporter)
    assert set(used) == {1}
    assert torch.get_num_threads() == 2
    assert any("training.threads: 1 of 2" in note for note in reporter.notes)
    assert read_tensors(last_checkpoint(tmp_path / "run"))["threads"] == 1
    again = RecordingReporter()
    resume_run(tmp_path / "run", reporter=again)
    assert not any("training.threads" in note for note in again.notes)


def test_measurement_leaves_network_random_numbers_and_threads_unchanged(
    tmp_path: Path, small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MEASURED_SECONDS", 0.0)
    learn = prepare_run(small_config(), tmp_path).learner
    state = {name: value.clone() for name, value in learn.model.state_dict().items()}
    random = torch.get_rng_state()
    assert step_seconds(learn, 1) > 0
    assert torch.get_num_threads() == 4
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in learn.model.state_dict().items())
    assert all(parameter.grad is None for parameter in learn.model.parameters())
