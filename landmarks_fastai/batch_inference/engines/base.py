"""What an engine gets: the shards to predict, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from landmarks_fastai.batch_inference.plan import ShardPlan
from landmarks_fastai.batch_inference.prediction import Job, ShardSummary

if TYPE_CHECKING:
    from landmarks_fastai.inference.detectors.base import Detector
    from landmarks_fastai.inference.predictor import Predictor


@dataclass(frozen=True)
class Run:
    """Shards to predict.

    Parameters
    ----------
    job
        What to do with each.
    plan
        The plan of the run.
    shards
        Numbers of the shards that are not done.
    stopped
        Returns True if the user has asked to stop.
    workers
        Number of processes; None for as many as there are processors or GPUs. Ignored by the engine `local`.
    predictor, detector
        What this process has opened already.
    """

    job: Job
    plan: ShardPlan
    shards: Sequence[int]
    stopped: Callable[[], bool]
    workers: int | None = None
    predictor: Predictor | None = None
    detector: Detector | None = None


Engine = Callable[[Run], Iterator[ShardSummary]]
"""Predicts shards, and yields what became of each as soon as it has ended."""
