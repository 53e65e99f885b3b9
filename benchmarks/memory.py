"""Measure whether the peak memory of training depends on the multiplier.

    python benchmarks/memory.py --data facial-keypoints-detection.zip

Trains with multipliers 1, 10 and 100, each for the same number of iterations in a process of its own, and
measures the peak memory of the whole process. Writes memory.json and memory.md; results that are in
memory.json are not measured again.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import partial

from _common.arguments import BenchmarkParser
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results, run_missing

MULTIPLIERS = (1, 10, 100)
ITERATIONS = 40


def train_briefly(data: str, multiplier: int) -> Results:
    """Train for some iterations, and return the peak memory of this process and the rows of an epoch."""
    # imported here, so that the process that only starts the others does not load them
    from _common.training import new_learner
    from fastai.callback.core import Callback, CancelFitException

    from landmarks_fastai.config.loading import load_config
    from landmarks_fastai.data.sources import load_dataset
    from landmarks_fastai.data.splits import split_dataset

    class StopAfterIterations(Callback):
        """Ends the fit after `ITERATIONS`."""

        def after_batch(self) -> None:
            """End the fit."""
            if self.train_iter >= ITERATIONS:
                raise CancelFitException

    config = load_config("default", {"data.multiplier": multiplier, "data.source": data})
    dataset = load_dataset(data)
    split = split_dataset(dataset, "random", 0.2, 0)
    learn = new_learner(config, dataset, split.train, split.valid)
    with learn.no_logging():
        learn.fit(2, cbs=[StopAfterIterations()])  # it stops within the first epoch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"faces": learn.dls.train.n, "peak_mib": round(peak)}


def measure(data: str, multiplier: int) -> Results:
    """Train in another process, and return what it prints."""
    command = [sys.executable, __file__, "--data", data, "--multiplier", str(multiplier)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: Results = json.loads(output.splitlines()[-1])
    return result


def render(results: Results) -> str:
    """Return the page."""
    first = results[str(MULTIPLIERS[0])]["peak_mib"]
    rows = [
        [name, f"{row['faces']:,}", f"{row['peak_mib']:,}", f"{row['peak_mib'] / first - 1:+.1%}"]
        for name, row in results.items()
    ]
    return markdown_page(
        "Peak memory by multiplier",
        f"`python benchmarks/memory.py`: peak memory of the whole process during {ITERATIONS} iterations of"
        " the default config on the CPU. The multiplier (`data.multiplier`) is the number of times that each"
        " row is used per epoch.",
        markdown_table(["multiplier", "faces per epoch", "peak MiB", "difference from multiplier 1"], rows),
    )


FILES = ResultFiles("memory", render)


def main() -> None:
    """Measure each multiplier in a process of its own, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_data()
    parser.add_argument(
        "--multiplier", type=int, help="measure this multiplier in this process, and print the result"
    )
    options, files = parser.parse()
    if options.multiplier is not None:
        print(json.dumps(train_briefly(options.data, options.multiplier)))
        return
    runs = [((str(multiplier),), partial(measure, options.data, multiplier)) for multiplier in MULTIPLIERS]
    run_missing(files, {}, runs)


if __name__ == "__main__":
    main()
