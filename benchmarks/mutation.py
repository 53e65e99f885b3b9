"""Measure which fraction of small changes of the code makes its tests fail.

    python benchmarks/mutation.py                      all modules, about half an hour on one core
    python benchmarks/mutation.py --module schema.py   one module, again

Each mutant (_common/mutants.py) is a copy of a module with one change, which runs in a process of its own.
Only those tests run that execute the changed line, of the module's own tests, which mirror the package; for a
change outside of functions, all of them. A mutant is killed if a test fails or the tests do not end. Of
modules with more than `MAX_MUTANTS`, a random sample is taken.
Survivors are listed in mutation.json and mutation.md with the reason, if it is in `REASONS`: most change
nothing that a user could observe.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from _common.arguments import BenchmarkParser
from _common.markdown import markdown_page, markdown_table
from _common.mutants import Mutant, find_mutants
from _common.results import Measurement, ResultFiles, Results, run_missing

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "landmarks_fastai"

MODULES: Mapping[str, tuple[str, ...]] = {
    "schema.py": ("tests/test_schema.py", "tests/schemas/test_files.py"),
    "schemas/sides.py": ("tests/schemas/test_sides.py",),
    "geometry.py": ("tests/test_geometry.py",),
    "training/schedules.py": ("tests/training/test_schedules.py",),
    "training/losses.py": ("tests/training/test_losses.py", "tests/training/test_reporting.py"),
    "training/augmentation.py": ("tests/training/test_augmentation.py", "tests/training/test_visibility.py"),
    "evaluation/metrics.py": ("tests/evaluation/test_metrics.py",),
    "evaluation/pck.py": ("tests/evaluation/test_pck.py",),
    "evaluation/oks.py": ("tests/evaluation/test_oks.py",),
    "evaluation/calibration.py": ("tests/evaluation/test_calibration.py",),
    "inference/tracking.py": ("tests/inference/test_tracking.py",),
    "inference/smoothing.py": ("tests/inference/test_smoothing.py", "tests/inference/test_visibility.py"),
}
"""Modules, and the tests that must kill their mutants."""

MAX_MUTANTS = 60
"""Mutants of a module that are tried; of more, a sample with a fixed seed."""

LIBRARIES = (
    "fastai.vision.all",
    "hypothesis.extra.numpy",
    "matplotlib.pyplot",
    "onnxruntime",
    "pandas",
    "PIL.Image",
    "pydantic",
    "pytest",
    "scipy.optimize",
    "scipy.special",
    "scipy.stats",
    "torch",
    "torchvision",
)
"""Imported once, before the processes of the mutants are forked."""

PYTEST_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")

MIN_KILLED = 0.8
TIMEOUT_FACTOR, MIN_TIMEOUT = 5.0, 20.0
"""A mutant is killed if its tests take this many times longer than all tests of the module, and this long."""

MODULE_TIMEOUT = 3600.0
"""Seconds after which the tests of a module are ended."""

CONVERTED = "all callers pass floating point numbers, and the arithmetic converts others"
MASKED = "stands in where the result is replaced by NaN or 0"
LARGER_KERNEL = "a larger kernel only takes longer"
RANDOM_RANGE = "a gap: the range of a random strength, which the tests do not measure"
NO_SIDE = "where the side stands has no effect on a word without a side"
TOO_SHORT = "the word is too short to contain a side; the entry documents that"

REASONS: Mapping[tuple[str, str], str] = {
    ("schemas/sides.py", "'aright' → 'arightX'"): TOO_SHORT,
    ("schemas/sides.py", "'cleft' → 'cleftX'"): TOO_SHORT,
    (
        "schemas/sides.py",
        "zip(names, words, strict=True) → zip(names, words)",
    ): "words has one entry per name",
    ("schemas/sides.py", "'first' → 'firstX'"): "the place is only compared with itself",
    ("schemas/sides.py", "True → False"): NO_SIDE,
    ("geometry.py", "points - points_mean[:, None] → points + points_mean[:, None]"): (
        "the weighted shape is centered, so that a constant has no effect"
    ),
    ("geometry.py", "1 → 2"): "two equal fits, of which the first is used",
    ("geometry.py", "2 → 3"): "a larger border only takes longer",
    (
        "training/augmentation.py",
        "(size_in - 1) / 2 * ones → (size_in - 1) / 2 / ones",
    ): "all elements are 1",
    (
        "training/augmentation.py",
        "(size_out - 1) / 2 * ones → (size_out - 1) / 2 / ones",
    ): "all elements are 1",
    ("training/augmentation.py", "1 → 2"): "images are square",
    ("training/augmentation.py", "'cpu' → 'cpuX'"): LARGER_KERNEL,
    ("training/augmentation.py", "3 → 4"): LARGER_KERNEL,
    ("training/augmentation.py", "line >= left[:, None] → line > left[:, None]"): (
        "they are equal with a probability of almost 0"
    ),
    (
        "training/augmentation.py",
        "_uniform(0, 1, images) < 0.5 → _uniform(0, 1, images) <= 0.5",
    ): "the probability is the same",
    (
        "training/augmentation.py",
        "images + torch.randn_like(images) * _per_image(_uniform(0, HARD_NOISE, images) * select_hard()) →"
        " images - torch.randn_like(images) * _per_image(_uniform(0, HARD_NOISE, images) * select_hard())",
    ): "the distribution of the noise is symmetric",
    ("training/augmentation.py", "1 - jitter → 1 + jitter"): RANDOM_RANGE,
    ("training/augmentation.py", "20 → 21"): "the order of transforms, of which none has this number",
    ("training/schedules.py", "position <= rise → position < rise"): "both branches are 1 at the peak",
    ("training/schedules.py", "60 → 61"): "the order of callbacks, of which none has this number",
    ("training/losses.py", "magnitude < options.width → magnitude <= options.width"): (
        "both branches are equal there, as the loss is continuous"
    ),
    ("evaluation/metrics.py", "1.0 → 2.0"): MASKED,
    ("evaluation/metrics.py", "np.asarray(values, np.float64) → np.asarray(values)"): CONVERTED,
    ("evaluation/metrics.py", "-1 → 1"): "the last axis is number 1",
    ("evaluation/pck.py", "np.asarray(normalizer, np.float64) → np.asarray(normalizer)"): CONVERTED,
    ("evaluation/pck.py", "1.0 → 2.0"): MASKED,
    ("evaluation/oks.py", "np.asarray(sigmas, np.float64) → np.asarray(sigmas)"): CONVERTED,
    ("evaluation/oks.py", "0.0 → 1.0"): MASKED,
    ("evaluation/oks.py", "1.0 → 2.0"): MASKED,
    ("evaluation/calibration.py", "np.asarray(side, np.float64) → np.asarray(side)"): CONVERTED,
    ("evaluation/calibration.py", "np.asarray(scales, np.float64) → np.asarray(scales)"): CONVERTED,
    (
        "evaluation/calibration.py",
        "np.asarray(probabilities, np.float64) → np.asarray(probabilities)",
    ): CONVERTED,
    ("evaluation/calibration.py", "np.asarray(targets, np.float64) → np.asarray(targets)"): CONVERTED,
    ("evaluation/calibration.py", "1.0 → 2.0"): "the minimum does not depend on where the search starts",
    ("evaluation/calibration.py", "'stable' → 'stableX'"): "NumPy reads the first letter only",
    (
        "inference/tracking.py",
        "field(default=0, init=False) → field(default=0)",
    ): "a count that nobody passes",
    ("inference/tracking.py", "0 → 1"): "a face whose center is within one pixel of the border",
    (
        "inference/tracking.py",
        "0 <= y <= height → 0 < y <= height",
    ): "a face whose center is exactly on the border",
    (
        "inference/smoothing.py",
        "self.value is None or self.velocity is None → self.value is None and self.velocity is None",
    ): "both are set together",
    (
        "inference/smoothing.py",
        "self.value + value → self.value - value",
    ): "NaN where one of them is, like the sum",
    ("inference/smoothing.py", "0.0 → 1.0"): "the first frame is returned as it is, whatever its time",
    ("inference/smoothing.py", "1.0 → 2.0"): "the smaller of two factors is used, and the other is at most 1",
}
"""Why a mutant survives, by module and the change as "before → after"."""


# --- one mutant in one process -------------------------------------------------------------------


@dataclass
class MutatedModule(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads one module from the given code, in place of its file."""

    name: str
    path: Path
    code: CodeType

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        """Return the specification of the module."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> CodeType:
        """Return the code."""
        return self.code

    def get_source(self, fullname: str) -> str:
        """Return the source without the change, for tracebacks."""
        return self.path.read_text(encoding="utf-8")

    def is_package(self, fullname: str) -> bool:
        """Return False."""
        return False


@dataclass
class MutantRunner:
    """pytest plugin that runs the collected tests once, and then again for each mutant in a forked process.

    In that process, the code of the function that contains the change is replaced.

    Parameters
    ----------
    name, path
        The mutated module.
    mutants
        Mutants that change the body of a function, with the code of the mutated module.
    """

    name: str
    path: Path
    mutants: Sequence[tuple[Mutant, CodeType]]
    lines: dict[str, set[int]] = field(default_factory=dict)
    """Lines of the module that each test executes."""
    killed: list[bool] = field(default_factory=list)
    """Whether each mutant was killed."""
    failed: bool = False
    """Whether a test has failed."""

    def pytest_runtestloop(self, session: Any) -> bool:
        """Run the tests without a change, and with each mutant."""
        start = time.monotonic()
        # as if the first test followed on the last one: the fixtures of the session stay
        for item, following in zip(session.items, [*session.items[1:], session.items[0]], strict=True):
            sys.settrace(partial(_record_line, str(self.path), self.lines.setdefault(item.nodeid, set())))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            sys.settrace(None)
        timeout = max(MIN_TIMEOUT, TIMEOUT_FACTOR * (time.monotonic() - start))
        if not self.failed:
            self.killed += [self._is_killed(session.items, timeout, *one) for one in self.mutants]
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note that a test has failed."""
        self.failed |= report.failed

    def _is_killed(self, items: Sequence[Any], timeout: float, mutant: Mutant, code: CodeType) -> bool:
        """Return True if a test that executes the changed line fails with the mutant, or does not end."""
        chosen = [item for item in items if mutant.line in self.lines[item.nodeid]]
        return bool(chosen) and not in_child(partial(self._run, chosen, mutant, code), timeout)[0]

    def _run(self, items: Sequence[Any], mutant: Mutant, code: CodeType) -> bytes:
        """Run tests with a mutant; raise a SystemExit when one fails."""
        replace_function(sys.modules[self.name], mutant.function, code)
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                raise SystemExit
        return b""


def _record_line(path: str, lines: set[int], frame: FrameType, event: str, argument: object) -> Any:
    """Trace function that records the executed lines of a file."""
    if frame.f_code.co_filename != path:
        return None
    lines.add(frame.f_lineno)
    return partial(_record_line, path, lines)


def replace_function(module: ModuleType, name: str, code: CodeType) -> None:
    """Replace the code of a function or method by that in the code of the mutated module."""
    target: Any = module
    for part in name.split("."):
        target = vars(target)[part]
        code = next(one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == part)
        for attribute in ("fget", "__func__", "__wrapped__"):
            target = getattr(target, attribute, target)
        if isinstance(target, FunctionType):
            target.__code__ = code
            return


def run_tests(tests: Sequence[str], *plugins: object) -> int:
    """Run tests in this process, which must have imported nothing of the package; return pytest's status."""
    import hypothesis
    import pytest

    # the same examples in every run, and no time spent on finding a smaller one
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", deadline=None, derandomize=True, database=None, phases=phases
    )
    hypothesis.settings.load_profile("mutation")  # that of conftest.py inherits from it
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        return int(pytest.main([*PYTEST_OPTIONS, *tests], plugins=list(plugins)))


def in_child(function: Any, timeout: float) -> tuple[bool, bytes]:
    """Run a function that returns bytes in a forked process.

    Returns
    -------
    tuple
        Whether it ended in time and without an error, and what it returned.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(function())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe, _kill_after(child, timeout):
        output = pipe.read()
        _, status = os.waitpid(child, 0)
    return status == 0, output


@contextlib.contextmanager
def _kill_after(child: int, seconds: float) -> Iterator[None]:
    def kill(number: int, frame: FrameType | None) -> None:
        os.killpg(child, signal.SIGKILL)

    previous = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# --- one module ----------------------------------------------------------------------------------


def measure_module(module: str) -> dict[str, Any]:
    """Return the number of mutants of a module, how many were killed, and the survivors.

    Raises
    ------
    SystemExit
        If a test of the module fails without a change.
    """
    path, tests = ROOT / PACKAGE / module, MODULES[module]
    name = ".".join((PACKAGE, *Path(module).with_suffix("").parts))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    mutants = find_mutants(tree)
    sample = random.Random(0).sample(mutants, min(MAX_MUTANTS, len(mutants)))
    chosen = [
        (one, compile(one.apply(tree), str(path), "exec"))
        for one in sorted(sample, key=lambda one: (one.line, one.before))
    ]

    def run_in_functions() -> bytes:
        runner = MutantRunner(name, path, [(one, code) for one, code in chosen if one.in_body])
        run_tests(tests, runner)
        return bytes(runner.killed) if not runner.failed else b""

    _, output = in_child(run_in_functions, MODULE_TIMEOUT)
    killed = iter(output)
    if len(output) != sum(one.in_body for one, _ in chosen):
        raise SystemExit(f"{path}: its tests fail without a change; run pytest {' '.join(tests)}")
    survivors = [
        one
        for one, code in chosen
        if not (next(killed) if one.in_body else is_killed(name, path, code, tests))
    ]
    return {
        "mutants": len(mutants),
        "tried": len(chosen),
        "killed": len(chosen) - len(survivors),
        "survivors": [
            {"function": one.function, "line": one.line, "change": f"{one.before} → {one.after}"}
            for one in survivors
        ],
    }


def is_killed(name: str, path: Path, code: CodeType, tests: Sequence[str]) -> bool:
    """Return True if a test fails with the code of a mutated module, or does not end."""

    def run() -> bytes:
        sys.meta_path.insert(0, MutatedModule(name, path, code))
        return str(run_tests(tests)).encode()

    passes, output = in_child(run, MODULE_TIMEOUT)
    return not passes or output != b"0"


# --- page ----------------------------------------------------------------------------------------


def render(results: Results) -> str:
    """Return the page."""
    modules = {name: results["modules"][name] for name in MODULES if name in results.get("modules", {})}
    return markdown_page(
        "Mutation testing",
        "`python benchmarks/mutation.py`: of each module, mutants with one change each: another comparison,"
        " arithmetic or Boolean operator, another constant, a condition negated, None returned, an argument"
        f" left out. A random sample of {MAX_MUTANTS} if there are more. Each runs those of the module's own"
        " tests that execute the changed line. A mutant is killed if a test fails, or the tests do not end."
        f" At least {MIN_KILLED:.0%} of each module are to be killed.",
        markdown_table(
            ["module", "mutants", "tried", "killed", "of these"],
            [
                [f"`{name}`", str(one["mutants"]), str(one["tried"]), str(one["killed"]), _killed(one)]
                for name, one in modules.items()
            ],
        ),
        "## Survivors",
        "Without a reason: a gap of the tests.",
        *(_survivors(name, one["survivors"]) for name, one in modules.items() if one["survivors"]),
    )


def _killed(module: Mapping[str, Any]) -> str:
    return f"{module['killed'] / module['tried']:.0%}"


def _survivors(name: str, survivors: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            str(one["line"]),
            f"`{one['function']}`" if one["function"] else "",
            "`" + one["change"].replace("|", "\\|").replace("\n", " ") + "`",
            REASONS.get((name, one["change"]), ""),
        ]
        for one in survivors
    ]
    return f"### {name}\n\n" + markdown_table(["line", "function", "change", "reason"], rows)


FILES = ResultFiles("mutation", render)


def import_libraries() -> None:
    """Import what the modules and tests need, except the package, which each process imports."""
    for name in LIBRARIES:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


def main() -> None:
    """Run what is missing, or the given modules again, and write the page."""
    parser = BenchmarkParser(__doc__, FILES)
    parser.add_argument(
        "--module", action="append", choices=MODULES, default=[], help="measure this module again; repeatable"
    )
    options, files = parser.parse()
    os.chdir(ROOT)
    import_libraries()
    if options.module:
        results = files.read()
        for name in options.module:
            results.get("modules", {}).pop(name, None)
        files.write(results) if results else None
    wanted: list[Measurement] = [
        (("modules", name), partial(measure_module, name)) for name in options.module or MODULES
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
        run_missing(files, {"max_mutants": MAX_MUTANTS}, wanted)


if __name__ == "__main__":
    main()
