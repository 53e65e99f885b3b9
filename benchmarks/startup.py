"""Measure the start of the command line: cold predictions of one photo, and --help.

    python benchmarks/startup.py

Runs each command in a process of its own, in turns, and reports time and peak memory of the processes; the
unit of the ratios is `python -c "import onnxruntime"`. Compiled modules and the prepared face detector are
cached, as for every start but the first. Writes startup.json and startup.md; what is in startup.json is not
measured again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from _common.arguments import BenchmarkParser
from _common.markdown import markdown_page, markdown_table
from _common.results import ResultFiles, Results, run_missing

ROOT = Path(__file__).resolve().parents[1]

UNIT = 'python -c "import onnxruntime"'
CLI = [str(ROOT / "cli.py")]
PREDICT = [
    *CLI,
    "predict",
    "photo.jpg",
    "--model",
    "resnet18",
    "--device",
    "cpu",
    "--overwrite",
    "--out",
    "out",
]

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    UNIT: ["-c", "import onnxruntime"],
    "--help": [*CLI, "--help"],
    "predict photo.jpg": PREDICT,
    "predict photo.jpg --backend torch": [*PREDICT, "--backend", "torch"],
}


def run(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of a Python process."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        "LANDMARKS_FASTAI_CACHE": str(folder / "cache"),
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: failed")
    return seconds, usage.ru_maxrss / 1000


def measure(rounds: int) -> Results:
    """Return seconds and peak memory of all commands in each round."""
    results: Results = {name: {"seconds": [], "mb": []} for name in COMMANDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photo.jpg").write_bytes((ROOT / "docs" / "astronaut.jpg").read_bytes())
        for index in range(rounds + 1):
            for command, arguments in COMMANDS.items():
                seconds, megabytes = run(arguments, folder)
                if index:  # the first round fills the caches
                    results[command]["seconds"].append(seconds)
                    results[command]["mb"].append(megabytes)
    return results


def render(results: Results) -> str:
    """Return the page."""
    measured = results["start"]
    unit = median(measured[UNIT]["seconds"])
    rows = []
    for command in COMMANDS:
        seconds, megabytes = median(measured[command]["seconds"]), median(measured[command]["mb"])
        rows.append([f"`{command}`", f"{seconds:.2f}", f"{seconds / unit:.1f}", f"{megabytes:.0f}"])
    rounds = len(measured[UNIT]["seconds"])
    return markdown_page(
        "Start-up",
        f"`python benchmarks/startup.py`: one process per command, in turns, medians of {rounds}"
        " rounds after one that fills the caches. `predict` detects the face of docs/astronaut.jpg (512 px),"
        " predicts its 15 landmarks with one refinement pass, draws them and writes landmarks.json.",
        markdown_table(["command", "s", f"times `{UNIT}`", "peak memory, MB"], rows),
        "`--backend torch` is what every prediction did before. By default, a CPU runs ONNX Runtime: the"
        " released models come with a graph without weights (models/graphs), the weights are read from the"
        " .safetensors file, and batch normalizations are folded into them by numpy, so that ONNX"
        " Runtime does not copy them. Neither torch, torchvision nor onnx is imported, and what only"
        " some commands need (formats of labels, downloads, progress bars) is imported by these.",
    )


FILES = ResultFiles("startup", render)


def main() -> None:
    """Measure what is missing."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument("--rounds", type=int, default=7, help="number of measurements of each command")
    options, files = parser.parse()
    run_missing(files, {}, [(("start",), lambda: measure(options.rounds))])


if __name__ == "__main__":
    main()
