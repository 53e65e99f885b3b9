"""The processes that train one model together, as torchrun and `accelerate launch` start them.

Both describe the processes in environment variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
A run takes a `Processes`, which is `SINGLE_PROCESS` without them: its methods then do nothing. Code between
two of its calls may differ from process to process, but every process must make the same calls in the same
order. The first process alone writes files and reports.

Processes exchange Python objects by pickling, so all of them trust one another, as torch's do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from landmarks_fastai.errors import LandmarksError, RunError, UserError
from landmarks_fastai.inference.backends import resolve_device
from landmarks_fastai.utils.text import format_count

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup

Value = TypeVar("Value")

STEP_TIMEOUT = timedelta(minutes=10)
"""Time after which a process that answers no more ends the run; one that has ended is noticed at once."""

WAIT_TIMEOUT = timedelta(days=1)
"""The same while one process works alone: it reads the data set for the first time, or writes the results."""

FAILURES = "failures"
"""Key of the number of failed processes in the store of the processes."""


class ProcessError(RunError):
    """An error of another process than the first, which does not report it."""


class OtherProcessFailedError(RunError):
    """The run has failed, and another process reports why."""


def process_count() -> int:
    """Return the number of processes that were started together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Return the number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and what they exchange.

    Parameters
    ----------
    rank
        Number of this process, from 0. The first process is the main one.
    count
        Number of processes.
    patient
        Group of all processes whose calls wait for `WAIT_TIMEOUT`; None for a single process.
    """

    rank: int = 0
    count: int = 1
    patient: ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there is another process."""
        return self.count > 1

    def __reduce__(self) -> tuple[type[Processes], tuple[int, int]]:
        """Leave the connections out of worker processes, which only load batches."""
        return Processes, (self.rank, self.count)

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order."""
        if not self.are_several:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def from_main(self, compute: Callable[[], Value]) -> Value:
        """Call a function in the main process, and return its result in all."""
        if not self.are_several:
            return compute()
        values = [compute() if self.is_main else None]
        distributed.broadcast_object_list(values, 0, group=self.patient)
        return values[0]  # type: ignore[return-value]

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Overwrite a tensor with that of the main process, and return it."""
        if self.are_several:
            distributed.broadcast(tensor, 0)
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """Overwrite a tensor with its sum over all processes, and return it."""
        if self.are_several:
            distributed.all_reduce(tensor)
        return tensor

    @contextmanager
    def one_after_another(self) -> Iterator[None]:
        """Execute the block first in one process of each machine, then in the others.

        The first one fills the caches, of which the others read.
        """
        is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
        if self.are_several and not is_first:
            distributed.barrier(group=self.patient)
        yield
        if self.are_several and is_first:
            distributed.barrier(group=self.patient)


SINGLE_PROCESS = Processes()


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Connect to the other processes, and yield them; a single process is yielded at once.

    If a process fails, the others notice that their connections to it are closed. Only the first to fail
    raises its own error, so that one error is printed.

    Raises
    ------
    UserError
        If the environment variables are incomplete.
    RunError
        If a process cannot be reached or has ended.
    ProcessError
        In the place of an error of another process than the first.
    OtherProcessFailedError
        If another process has failed before.
    """
    if process_count() == 1:
        yield SINGLE_PROCESS
        return
    store = _initialize()
    patient = distributed.new_group(timeout=WAIT_TIMEOUT, backend="gloo")
    assert isinstance(patient, distributed.ProcessGroup), "this process is in the group of all"
    try:
        yield Processes(process_rank(), process_count(), patient)
        distributed.barrier(group=patient)
        distributed.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        if not torch.cuda.is_available():  # closing the connections of GPUs waits for calls that never end
            distributed.destroy_process_group()
        if not _fails_first(store):
            raise OtherProcessFailedError("another process of this run has failed") from error
        explained = _explain(error)
        if explained is error:
            raise
        raise explained from error


@cache
def _find_store() -> Store:
    """Return the key-value store of the processes, which all runs of this process use."""
    return next(rendezvous("env://", timeout=STEP_TIMEOUT))[0]


def _initialize() -> Store:
    """Create torch's default process group; return the part of the store that is this run's."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    rank = process_rank()
    try:
        number = _find_store().add(f"runs of process {rank}", 1)  # the same in all processes
        store = PrefixStore(f"run {number}", _find_store())
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=process_count(), timeout=STEP_TIMEOUT
        )
    except ValueError as error:  # a variable is missing
        raise UserError(
            f"WORLD_SIZE={process_count()} is set in the environment, but torch cannot find the other"
            f" processes ({error}); start training with torchrun, or unset WORLD_SIZE"
        ) from error
    except RuntimeError as error:
        reason = str(error).partition("\n")[0][:200]
        raise RunError(
            f"the other processes of this run cannot be reached ({reason}); start it again"
        ) from error
    return store


def _explain(error: BaseException) -> BaseException:
    """Return the error to report in the place of one of this process."""
    explained = lost_process() if is_lost_connection(error) else error
    if process_rank() == 0 or not isinstance(explained, LandmarksError):
        return explained
    return ProcessError(f"process {process_rank() + 1} of {process_count()}: {explained}", explained.details)


def _fails_first(store: Store) -> bool:
    """Count this process as failed; return True if no other is."""
    with suppress(RuntimeError):  # the store has ended with the process that it was in
        return bool(store.add(FAILURES, 1) == 1)
    return True


def is_lost_connection(error: BaseException) -> bool:
    """Return True for the errors of torch when another process has ended, hangs or is unreachable."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def lost_process(advice: str = "start it again") -> RunError:
    """Return the error for a run that has lost a process."""
    return RunError(f"another process of this run has ended or cannot be reached any more; {advice}")


def check_single_process(task: str, advice: str = "") -> None:
    """Check that a task which cannot be divided was not started in several processes.

    Raises
    ------
    UserError
        If it was.
    """
    if process_count() > 1:
        raise UserError(f"{task} runs in one process; start it without torchrun or accelerate launch{advice}")


def local_device(device: str) -> str:
    """Return the torch device of this process: of several, each uses the GPU of its number on the machine.

    Raises
    ------
    UserError
        If this machine has no such device, fewer GPUs than processes, or the processes would share a GPU.
    """
    resolved = resolve_device(device)
    if process_count() == 1 or resolved == "cpu":
        return resolved
    if not resolved.startswith("cuda") or device not in ("auto", "cuda"):
        raise UserError(f"--device {device}: not possible with several processes; use auto, cuda or cpu")
    number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= gpus:
        raise UserError(
            f"this machine has {format_count(gpus, 'GPU')}, but more processes were started; use"
            f" --nproc-per-node {gpus}, or --device cpu"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"
