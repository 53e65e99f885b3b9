"""Count what mutated input files lead to: a result, a one-line error, or anything else.

    python benchmarks/damaged_input.py --inputs 100000

The inputs of a target are numbered; each is created from the seed and its number (tests/fuzz). A target is
run up to --inputs, and an expensive one, such as videos, up to a fiftieth of it. Counts in damaged_input.json
are continued, so that the run can be stopped at any time; to begin again, after a change of the code, delete
that file. Exits with 1 if there is another outcome than a result or an error of one line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from _common.arguments import BenchmarkParser
from _common.machine import describe_machine
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results

EXPENSIVE_FACTOR = 50
CHUNK_SECONDS = 20
"""Time after which the counts are saved."""

KINDS = ("exception", "long message", "hang", "memory", "crash")


def measure(files: ResultFiles, seed: int, inputs: int, pattern: str, deadline: float) -> None:
    """Run the inputs that are missing in the JSON file, target by target."""
    setting = files.read().get("setting", {"seed": seed})
    if setting["seed"] != seed:
        raise SystemExit(f"{files.folder}: its results have seed {setting['seed']}; choose another --out")
    # the fuzzer is part of the tests
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from fuzz.targets import all_targets

    for target in all_targets().values():
        goal = inputs // EXPENSIVE_FACTOR if target.expensive else inputs
        if pattern not in target.name:
            continue
        entry = (
            files.read().get("targets", {}).get(target.name, {"inputs": 0, "seconds": 0.0, "failures": []})
        )
        while entry["inputs"] < goal and time.monotonic() < deadline:
            _run_chunk(target, entry, seed, goal)
            files.add(("targets", target.name), entry, {"seed": seed, "machine": describe_machine()})
        print(f"{target.name}: {entry}", flush=True)


def _run_chunk(target: Any, entry: Results, seed: int, goal: int) -> None:
    """Run the next inputs of a target, and add the outcomes to its entry."""
    from fuzz.runner import PER_WORKER, run_target

    begin = time.monotonic()
    while entry["inputs"] < goal and time.monotonic() - begin < CHUNK_SECONDS:
        start = entry["inputs"]
        step = min(PER_WORKER, 50) if target.expensive else PER_WORKER
        chunk = time.monotonic()
        outcomes = run_target(target, seed, range(start, min(goal, start + step)))
        entry["seconds"] = round(entry["seconds"] + time.monotonic() - chunk, 1)
        entry["inputs"] = min(goal, start + step)
        for kind, count in outcomes.counts.items():
            entry[kind] = entry.get(kind, 0) + count
        entry["failures"] += list(map(str, outcomes.failures))


def render(results: Results) -> str:
    """Return the page."""
    targets = results["targets"]
    rows = []
    for name, entry in targets.items():
        others = sum(entry.get(kind, 0) for kind in KINDS)
        shares = [f"{entry.get(kind, 0) / max(entry['inputs'], 1):.1%}" for kind in ("success", "refused")]
        rows.append([name, f"{entry['inputs']:,}", *shares, f"{others:,}", f"{entry['seconds']:,.0f} s"])
    total = sum(entry["inputs"] for entry in targets.values())
    others = sum(entry.get(kind, 0) for entry in targets.values() for kind in KINDS)
    lines = [f"- {line}" for entry in targets.values() for line in entry["failures"]]
    return markdown_page(
        "Mutated input files",
        f"`make fuzz`, or `python benchmarks/damaged_input.py`: {total:,} inputs, seed"
        f" {results['setting']['seed']}; {results['setting']['machine']}. Each is a valid file with one to"
        " four random edits of its bytes, numbers, fields, lines or format tokens (tests/fuzz/mutator.py). It"
        " is read in a worker process with 10 s of CPU time and 2 GB of memory. Right outcomes are a result,"
        " and an error of this package whose message has fewer than 400 characters;"
        f" {others:,} inputs had another one: an exception, a long message, a hang, too much memory, or a"
        " crash.",
        markdown_table(["target", "inputs", "read", "refused", "other outcome", "time"], rows),
        "\n".join(lines) or "Inputs that were found earlier are tests: tests/fuzz/test_found_inputs.py.",
    )


FILES = ResultFiles("damaged_input", render)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs of each target")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs (default: 0)")
    parser.add_argument("--target", default="", help="run the targets whose name contains this text only")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after this time")
    options, files = parser.parse()
    measure(files, options.seed, options.inputs, options.target, time.monotonic() + 60 * options.minutes)
    files.write_page()
    targets = files.read()["targets"]
    raise SystemExit(1 if any(entry["failures"] for entry in targets.values()) else 0)


if __name__ == "__main__":
    main()
