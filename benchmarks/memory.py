"""Peak memory of training at multipliers 1, 10 and 100: the whole process, after the same iterations.

    python benchmarks/memory.py --data facial-keypoints-detection.zip

Each multiplier trains in a process of its own. Writes memory.json and memory.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

MULTIPLIERS = (1, 10, 100)
ITERATIONS = 40


def measure(data: str, multiplier: int) -> None:
    """Train for some iterations; print the process's peak memory in MiB and the faces of an epoch."""
    from fastai.callback.core import Callback, CancelFitException
    from holdout import HERE, load_faces

    from landmarks_fastai.config import load_recipe
    from landmarks_fastai.data.source import default_cache
    from landmarks_fastai.data.split import split
    from landmarks_fastai.training.learner import build_learner

    class Enough(Callback):
        """Ends the run."""

        def after_batch(self) -> None:
            """End it."""
            if self.train_iter >= ITERATIONS:
                raise CancelFitException

    recipe = load_recipe("default", {"data.multiplier": multiplier, "data.source": data})
    table = load_faces(data, default_cache())
    parts = split(table, "random", 0.2, 0)
    learn = build_learner(recipe, table, parts, HERE)
    with learn.no_logging():
        learn.fit(2, cbs=[Enough()])  # several epochs at multiplier 1, the start of one at 100
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"faces": learn.dls.train.n, "peak_mib": round(peak)}))


def main() -> None:
    """Measure each multiplier in its own process, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="Kaggle's zip, or another in its layout")
    parser.add_argument("--multiplier", type=int, help="measure this one, in this process")
    options = parser.parse_args()
    if options.multiplier is not None:
        measure(options.data, options.multiplier)
        return
    results = {}
    for multiplier in MULTIPLIERS:
        command = [sys.executable, __file__, "--data", options.data, "--multiplier", str(multiplier)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        results[str(multiplier)] = json.loads(answer)
        print(multiplier, answer)
    here = Path(__file__).resolve().parent
    (here / "memory.json").write_text(json.dumps(results, indent=1) + "\n")
    first = results[str(MULTIPLIERS[0])]["peak_mib"]
    lines = [
        "# Peak memory by multiplier",
        "",
        f"`python benchmarks/memory.py`: the whole process, {ITERATIONS} iterations of the default recipe"
        " on the CPU.",
        "",
        "| multiplier | faces an epoch | peak MiB | against 1 |",
        "| --- | --- | --- | --- |",
        *(
            f"| {multiplier} | {row['faces']:,} | {row['peak_mib']:,} | {row['peak_mib'] / first - 1:+.1%} |"
            for multiplier, row in results.items()
        ),
    ]
    (here / "memory.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
