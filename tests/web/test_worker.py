"""The worker process: results, errors, and what happens when a job freezes, crashes or needs too much."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.web.limits import Limits
from landmarks_fastai.web.worker import Job, Worker
from landmarks_fastai.web.worker_service import open_service

LIMITS = Limits(memory_megabytes=200, storage_megabytes=1)


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module of the service, which the process finds by the path that it inherits."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("misbehaving")


@pytest.fixture
def worker(misbehaving: ModuleType) -> Iterator[Worker]:
    with closing(Worker(misbehaving.Service, LIMITS)) as opened:
        yield opened


def job(method: str, *arguments: object, seconds: float = 60, stall_seconds: float | None = None) -> Job:
    return Job(method, arguments, "a.png", seconds, stall_seconds)


def test_worker_keeps_its_process_from_job_to_job(worker: Worker) -> None:
    first = worker.run(job("process_id"))
    assert first != os.getpid()
    assert worker.run(job("process_id")) == first


def test_worker_reports_progress_before_its_result(worker: Worker) -> None:
    steps: list[int] = []
    result = worker.run(job("count", stall_seconds=60), lambda done, total, unit="": steps.append(done))
    assert (result, steps) == ("counted", [1, 2, 3])


def test_worker_raises_errors_of_the_service_and_goes_on(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    first = worker.run(job("process_id"))
    with pytest.raises(UserError, match=r"^a\.png: not an image$") as caught:
        worker.run(job("refuse"))
    assert caught.value.details == ("a detail",)
    with pytest.raises(RunError, match=r"^internal error: KeyError; the terminal shows the traceback"):
        worker.run(job("fail"))
    assert "KeyError: 'x'" in capfd.readouterr().err
    assert worker.run(job("process_id")) == first


@pytest.mark.parametrize(
    ("seconds", "stall_seconds", "message"),
    [
        (0.5, None, r"^a\.png: not finished after 0\.5 s; reduce its size$"),
        (60, 0.5, r"^a\.png: stopped because it did not advance for 0\.5 s"),
    ],
)
def test_frozen_job_is_stopped_and_the_next_one_runs(
    worker: Worker, seconds: float, stall_seconds: float | None, message: str
) -> None:
    first = worker.run(job("process_id"))
    with pytest.raises(RunError, match=message):
        worker.run(job("freeze", seconds=seconds, stall_seconds=stall_seconds))
    assert worker.run(job("process_id")) != first
    assert not is_running(first)


def test_crashed_job_is_reported_and_the_next_one_runs(worker: Worker) -> None:
    with pytest.raises(RunError, match=r"^a\.png: cannot be processed \(its decoder ended with code 77\)"):
        worker.run(job("crash"))
    assert worker.run(job("process_id"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_job_that_needs_too_much_memory_or_storage_is_refused(worker: Worker, tmp_path: Path) -> None:
    assert worker.run(job("allocate", 100)) == 100 * 2**20
    with pytest.raises(RunError, match=r"^a\.png: needs more than 200 MB of memory; reduce its size$"):
        worker.run(job("allocate", 300))
    worker.run(job("write", tmp_path / "small", 2**20))
    with pytest.raises(RunError, match=r"^internal error: OSError"):
        worker.run(job("write", tmp_path / "large", 2**20 + 1))


def test_exception_of_the_progress_does_not_mix_up_the_answers(worker: Worker) -> None:
    def cancel(done: int, total: int | None, unit: str = "") -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        worker.run(job("count", stall_seconds=60), cancel)
    assert isinstance(worker.run(job("process_id")), int)


def test_error_when_opening_the_service_is_raised_by_start(misbehaving: ModuleType) -> None:
    with (
        closing(Worker(misbehaving.refuse_to_open, LIMITS)) as worker,
        pytest.raises(UserError, match=r"^model\.safetensors: damaged$"),
    ):
        worker.start()


def test_close_stops_the_job_in_progress_and_refuses_others(worker: Worker) -> None:
    process = worker.run(job("process_id"))
    threading.Timer(0.3, worker.close).start()
    for _ in range(2):
        with pytest.raises(RunError, match="not finished because the server is stopping"):
            worker.run(job("freeze"))
    assert not is_running(process)


def is_running(process: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_temporary_files_of_libraries_are_written_to_the_folder_of_the_page(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # so that it is restored afterwards
    open_service(models[1:], "none", Limits(), tmp_path)
    assert tempfile.gettempdir() == str(tmp_path)
