"""Inputs that earlier fuzzing has found: each is refused in one short line, without a hang.

The files are not part of the repository; the kinds that they stand for are built in test_found_inputs.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import seeds
from fuzz.mutator import Files
from fuzz.runner import REFUSED, SUCCESS, run_inputs
from fuzz.targets import all_targets

DAMAGED = Path(__file__).resolve().parents[3] / "shared" / "cases" / "damaged"

READERS = {
    "bomb34": "image: webp",
    "config_yaml": "config",
    "date": "config",
    "header_json": "model: header",
    "image_webp": "image: webp",
    "kaggle_zip": "kaggle: zip",
    "mkv": "video",
    "model_onnx": "model: onnx",
    "own_csv_schema": "labels: csv",
    "set_option": "--set option",
    "targeted_json": "model: header",
    "targeted_mkv": "video",
    "targeted_test_id": "kaggle: test.csv",
    "targeted_times": "times.csv",
    "targeted_webp": "image: webp",
    "targeted_yaml": "config",
    "unicode": "model: onnx",
}
"""The target of each kind of file, by the start of its name."""

USABLE = {"mkv", "targeted_mkv"}
"""Kinds of files whose damage does not concern what is read: a wrong duration of a video."""


def files_of(path: Path, main: str) -> Files:
    """Return the files of an input."""
    content = path.read_bytes()
    if path.name.startswith("own_csv_schema"):
        table, _, schema = content.partition(b"\n--schema--\n")
        return {main: table, "schema.json": schema}
    if main == "times.csv":
        return {**seeds.frame_folder()[0], main: content}
    return {main: content}


def kind_of(path: Path) -> str:
    return next(start for start in READERS if path.name.startswith(start))


@pytest.mark.skipif(not DAMAGED.is_dir(), reason="needs shared/cases")
def test_damaged_files_are_refused_in_one_line() -> None:
    by_target: dict[str, list[Path]] = {}
    for path in sorted(DAMAGED.iterdir()):
        by_target.setdefault(READERS[kind_of(path)], []).append(path)
    wrong = []
    for name, paths in by_target.items():
        target = all_targets()[name]
        outcomes = run_inputs(target, [files_of(path, target.main) for path in paths])
        assert len(outcomes) == len(paths), f"{paths[len(outcomes) - 1].name}: {outcomes[-1]}"
        for path, outcome in zip(paths, outcomes, strict=True):
            if outcome != REFUSED and not (outcome == SUCCESS and kind_of(path) in USABLE):
                wrong.append(f"{path.name}: {outcome}")
    assert wrong == []
