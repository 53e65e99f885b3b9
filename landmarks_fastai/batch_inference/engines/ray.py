"""The engine `ray`: the shards are rows of a Ray data set, and each worker is an actor with its models."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, main_thread
from types import ModuleType
from typing import Any

from landmarks_fastai.batch_inference.engines.base import Run
from landmarks_fastai.batch_inference.plan import read_planned
from landmarks_fastai.batch_inference.prediction import Job, ShardPredictor, ShardSummary
from landmarks_fastai.errors import LandmarksError, RunError, UserError
from landmarks_fastai.utils.processors import PROCESSORS_VARIABLE
from landmarks_fastai.utils.text import shorten

FATAL = "fatal"
"""Column with the message of an error after which the other shards would fail as well: a full disk."""

POLL_SECONDS = 0.5
"""Interval at which the user is asked to stop while no shard ends."""


class ShardActor:
    """A worker: opens the models once, then predicts one shard after the other."""

    def __init__(self, job: Job) -> None:
        self._job = job
        # Ray has set OMP_NUM_THREADS, the processors of this actor, which not all libraries obey
        os.environ.setdefault(PROCESSORS_VARIABLE, os.environ.get("OMP_NUM_THREADS", "1"))
        self._predict = ShardPredictor(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict a shard, given by its number and its place in the plan; return its summary."""
        index = int(row["index"])
        shard = read_planned(self._job.out, int(row["start"]))
        try:
            return {**asdict(self._predict(index, shard)), FATAL: ""}
        except LandmarksError as error:
            return {**asdict(ShardSummary(index, shard.title)), FATAL: str(error)}


def run_ray(run: Run) -> Iterator[ShardSummary]:
    """Predict shards on the cluster of RAY_ADDRESS, or else on the processors of this machine.

    A shard whose worker is lost is given to another one. If the user asks to stop, the shards in progress are
    given up.

    Raises
    ------
    UserError
        If Ray is not installed, or there are not enough processors or GPUs.
    RunError
        If results cannot be written, or Ray fails.
    """
    ray = import_ray()
    started = not ray.is_initialized()
    if started:
        _start(ray)
    try:
        for row in _until_stopped(_results(ray, run), run.stopped):
            fatal = row.pop(FATAL)
            if fatal:
                raise RunError(fatal)
            yield ShardSummary(**row)
    except ray.exceptions.RayError as error:
        raise RunError(f"ray: {shorten(str(error).splitlines()[-1], 200)}; go on with --resume") from error
    finally:
        if started:
            ray.shutdown()


def _start(ray: ModuleType) -> None:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine."""
    previous = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises many types, the base class among them
        reason = shorten(str(error), 150) or type(error).__name__
        raise RunError(f"--engine ray: no cluster ({reason}); try again, or use --engine local") from error
    if current_thread() is main_thread() and previous is not None:
        signal.signal(signal.SIGTERM, previous)  # Ray's own handler would end the process at once


def import_ray() -> ModuleType:
    """Import Ray Data without its telemetry and its progress bars.

    Raises
    ------
    UserError
        If it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors are raised
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(
            f"--engine ray: Ray Data cannot be imported ({shorten(str(error), 80)}); pip install"
            " 'landmarks-fastai[ray]', or use --engine local"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    module: ModuleType = ray
    return module


def _results(ray: ModuleType, run: Run) -> Iterator[dict[str, Any]]:
    """Yield the summary of each shard as a row, in the order in which they end."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    resource = "GPU" if run.job.device.startswith("cuda") else "CPU"
    available = int(ray.cluster_resources().get(resource, 0))
    workers = min(run.workers or available, len(run.shards))
    if not 1 <= workers <= available:
        raise UserError(
            f"--workers {workers}: the cluster has {available} {resource}s; choose at most {available}"
        )
    items = [{"index": index, "start": run.plan.start(index)} for index in run.shards]
    gpus = {"num_gpus": 1} if resource == "GPU" else {}
    return iter(
        ray.data.from_items(items, override_num_blocks=len(items))
        .map(
            ShardActor,
            fn_constructor_args=(run.job,),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            **gpus,
        )
        .iter_rows()
    )


def _until_stopped(rows: Iterator[dict[str, Any]], stopped: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Yield rows, which a thread waits for, until `stopped` returns True."""
    arrived: SimpleQueue[dict[str, Any] | Exception | None] = SimpleQueue()

    def collect() -> None:
        try:
            for row in rows:
                arrived.put(row)
            arrived.put(None)
        except Exception as error:  # raised below, in the thread of the caller
            arrived.put(error)

    Thread(target=collect, daemon=True).start()
    while not stopped():
        try:
            row = arrived.get(timeout=POLL_SECONDS)
        except Empty:
            continue
        if row is None:
            return
        if isinstance(row, Exception):
            raise row
        yield row
