"""The engine `local`: one shard after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator

from landmarks_fastai.batch_inference.engines.base import Run
from landmarks_fastai.batch_inference.plan import read_planned
from landmarks_fastai.batch_inference.prediction import ShardPredictor, ShardSummary, Stopped


def run_local(run: Run) -> Iterator[ShardSummary]:
    """Predict shards until all are done or the user asks to stop; the shard in progress is given up then."""
    predict = ShardPredictor(run.job, run.predictor, run.detector)
    for index in run.shards:
        if run.stopped():
            return
        shard = read_planned(run.job.out, run.plan.start(index))
        try:
            yield predict(index, shard, run.stopped)
        except Stopped:
            return
