"""The runner: every kind of wrong outcome is found, and an input is repeated by its seed and number."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import runner
from fuzz.mutator import EDITS, mutate
from fuzz.runner import REFUSED, SUCCESS, InputMaker, Target, run_inputs, run_target
from landmarks_fastai.errors import LandmarksError, RunError, UserError

SEEDS = [{"a.txt": b"left_eye,1.5,2\nnose,3,4\n", "b.txt": b"other"}, {"a.txt": b"x: [1, 2]"}]


def target(read: Callable[[Path], object]) -> Target:
    return Target("test", read, lambda: SEEDS, "a.txt")


def raise_error(error: Exception) -> Callable[[Path], object]:
    def read(_: Path) -> None:
        raise error

    return read


def loop(_: Path) -> None:
    while True:
        pass


def allocate(_: Path) -> object:
    return bytearray(3 << 30)


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_SECONDS", 0.2)


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda folder: (folder / "a.txt").read_bytes(), SUCCESS),
        (raise_error(UserError("short")), REFUSED),
        (raise_error(RunError("short")), REFUSED),
        (raise_error(UserError("x" * runner.MAX_MESSAGE)), "long message:xxx"),
        (raise_error(LandmarksError("short", ["x" * runner.MAX_MESSAGE])), "long message:xxx"),
        (raise_error(KeyError("a")), "exception:KeyError: 'a'"),
        (loop, "hang:more than 0.2 s of CPU time"),
        (allocate, "memory:"),
        (lambda _: os.kill(os.getpid(), signal.SIGSEGV), "crash:SIGSEGV"),
        (lambda _: os._exit(3), "crash:exit status 3"),
    ],
    ids=["success", "user", "run", "long", "details", "exception", "loop", "memory", "crash", "exit"],
)
@pytest.mark.usefixtures("short_limits")
def test_run_inputs_classifies_outcome(read: Callable[[Path], object], outcome: str) -> None:
    (found,) = run_inputs(target(read), SEEDS[:1])
    assert found.startswith(outcome)


def test_run_inputs_ends_an_input_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_WAIT", 0.5)
    assert run_inputs(target(lambda _: time.sleep(60)), SEEDS) == ["hang:no outcome after 0.5 s"]


def test_run_target_goes_on_after_an_input_that_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PER_WORKER", 7)

    def read(folder: Path) -> None:
        if b"left" not in (folder / "a.txt").read_bytes():
            os.kill(os.getpid(), signal.SIGKILL)

    outcomes = run_target(target(read), 0, range(40))
    assert sum(outcomes.counts.values()) == 40
    assert outcomes.counts["crash"] == len(outcomes.failures) > 2
    maker = InputMaker(target(read), 0)
    for failure in outcomes.failures:
        assert b"left" not in maker.make(failure.case)["a.txt"]
    assert str(outcomes.failures[0]).endswith("crash: SIGKILL")


def test_folder_contains_the_files_of_the_input_only() -> None:
    def read(folder: Path) -> None:
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert found in SEEDS

    assert run_inputs(target(read), [SEEDS[0], SEEDS[1], SEEDS[0]]) == [SUCCESS] * 3


def test_inputs_are_repeated_and_differ() -> None:
    one, other = InputMaker(target(loop), 3), InputMaker(target(loop), 3)
    inputs = [one.make(case) for case in range(200)]
    assert inputs[:2] == SEEDS
    assert [other.make(case) for case in reversed(range(200))] == inputs[::-1]
    assert len({str(each) for each in inputs}) > 150
    assert inputs[50] != InputMaker(target(loop), 4).make(50)
    assert all("a.txt" in each for each in inputs)


def test_packed_inputs_are_mutated_before_and_after_packing() -> None:
    packed = Target("test", loop, lambda: SEEDS[1:], "a.txt", pack=lambda content: b"<<" + content + b">>")
    maker = InputMaker(packed, 0)
    contents = [maker.make(case)["a.txt"] for case in range(100)]
    intact = [content[:2] == b"<<" and content[-2:] == b">>" for content in contents]
    assert 50 < sum(intact) < 95


def test_every_edit_changes_files_of_any_size() -> None:
    rng = random.Random(0)
    for edit in EDITS:
        for content in (b"", b"\n", SEEDS[0]["a.txt"]):
            changed = [edit(rng, content, b"donor") for _ in range(50)]
            assert any(each != content for each in changed) or not content
    assert len(mutate(rng, {"a": b"9" * 10_000})["a"]) <= 1 << 18
