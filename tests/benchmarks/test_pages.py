"""The committed pages of the benchmarks are what their scripts render from the committed results."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_page_equals_rendered_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    files = importlib.import_module(name).FILES
    assert files.name == name
    page = files.render(files.read(), *(files.read(other) for other in files.related))
    assert page == (BENCHMARKS / f"{name}.md").read_text(encoding="utf-8")


def test_overview_lists_every_script() -> None:
    overview = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert [
        name for name in SCRIPTS if f"| [{name}.py]({name}.py) | [{name}.md]({name}.md) |" not in overview
    ] == []
