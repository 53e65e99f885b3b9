"""A short run of the fuzzer; `make fuzz` is the long one."""

from __future__ import annotations

import pytest

from fuzz.runner import REFUSED, SUCCESS, run_inputs, run_target
from fuzz.targets import all_targets

SEED = 0
INPUTS, EXPENSIVE_INPUTS = 200, 8

REFUSED_SEEDS = {("model: safetensors", 0), ("model: safetensors", 1), ("model: onnx", 1), ("kaggle: zip", 3)}
"""Seeds without the weights or inputs that their headers ask for, and a zip that is compressed by LZMA."""


@pytest.mark.parametrize("name", all_targets())
def test_seeds_are_read(name: str) -> None:
    target = all_targets()[name]
    seeds = [dict(files) for files in target.seeds()]
    for files in seeds:
        if target.pack is not None:
            files[target.main] = target.pack(files[target.main])
    outcomes = run_inputs(target, seeds)
    assert outcomes == [REFUSED if (name, index) in REFUSED_SEEDS else SUCCESS for index in range(len(seeds))]


@pytest.mark.parametrize("name", all_targets())
def test_mutated_inputs_are_read_or_refused_in_one_line(name: str) -> None:
    target = all_targets()[name]
    outcomes = run_target(target, SEED, range(EXPENSIVE_INPUTS if target.expensive else INPUTS))
    assert list(map(str, outcomes.failures)) == []
