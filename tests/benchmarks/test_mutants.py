"""Mutants of a module: which changes there are, and that each compiles and changes what it says."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

SOURCE = '''"""Docstring."""
from math import sqrt
Floats = list[float]
LIMIT = 3

def bounded(value: int, low: int = 0) -> int | None:
    """Return the value if it is within the limits."""
    if not value:
        raise ValueError("a value of 0 + 1")
    return value if low <= value and value < LIMIT else None
'''


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("_common.mutants")


def test_find_mutants_changes_code_but_no_texts_and_annotations(mutants: ModuleType) -> None:
    found = mutants.find_mutants(ast.parse(SOURCE))
    assert {(one.function, one.before, one.after, one.in_body) for one in found} == {
        ("", "3", "4", False),
        ("bounded", "0", "1", False),
        ("bounded", "not value", "value", True),
        (
            "bounded",
            "return value if low <= value and value < LIMIT else None",
            "return None",
            True,
        ),
        (
            "bounded",
            "value if low <= value and value < LIMIT else None",
            "value if not (low <= value and value < LIMIT) else None",
            True,
        ),
        ("bounded", "low <= value and value < LIMIT", "low <= value or value < LIMIT", True),
        ("bounded", "low <= value", "low < value", True),
        ("bounded", "value < LIMIT", "value <= LIMIT", True),
    }


def test_mutant_changes_a_copy_in_one_place(mutants: ModuleType) -> None:
    tree = ast.parse(SOURCE)
    before = ast.unparse(tree)
    (mutant,) = [one for one in mutants.find_mutants(tree) if one.before == "value < LIMIT"]
    mutated = ast.unparse(mutant.apply(tree))
    assert mutated == before.replace("value < LIMIT", "value <= LIMIT")
    assert ast.unparse(tree) == before
    for one in mutants.find_mutants(tree):
        compile(one.apply(tree), "mutated", "exec")
