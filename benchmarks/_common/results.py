"""Result files: NAME.json holds the measurements, NAME.md is the page rendered from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landmarks_fastai.utils.files import write_json, write_text
from landmarks_fastai.utils.json_reader import read_json_object

BENCHMARKS = Path(__file__).resolve().parents[1]

Results = dict[str, Any]
Key = tuple[str, ...]
Measurement = tuple[Key, Callable[[], Any]]
"""Path of keys in the JSON file, and the function that returns the value."""


@dataclass(frozen=True)
class ResultFiles:
    """The JSON file and the page of one benchmark.

    Parameters
    ----------
    name
        Stem of the files, which is that of the script.
    render
        Pure function that returns the page, given the contents of the JSON file and those of `related`.
    related
        Names of other benchmarks whose results the page quotes.
    folder
        Folder of the files.
    """

    name: str
    render: Callable[..., str]
    related: tuple[str, ...] = ()
    folder: Path = BENCHMARKS

    def read(self, name: str | None = None) -> Results:
        """Return the results of this or another benchmark; empty if there are none."""
        path = self.folder / f"{name or self.name}.json"
        return read_json_object(path) if path.is_file() else {}

    def write(self, results: Results) -> None:
        """Write the results and the page."""
        write_json(self.folder / f"{self.name}.json", results)
        self.write_page()

    def write_page(self) -> None:
        """Render the page from the JSON file."""
        results = self.read()
        if not results:
            raise SystemExit(f"{self.folder / self.name}.json: not found; run the benchmark first")
        page = self.render(results, *(self.read(name) for name in self.related))
        write_text(self.folder / f"{self.name}.md", page)

    def contains(self, key: Key) -> bool:
        """Return True if the JSON file has a value at this path of keys."""
        place: Any = self.read()
        for name in key:
            if not isinstance(place, dict) or name not in place:
                return False
            place = place[name]
        return True

    def add(self, key: Key, value: object, setting: Results) -> None:
        """Add one value and update the setting, keeping what other processes have written in the meantime."""
        results = self.read()
        if setting:
            results["setting"] = results.get("setting", {}) | setting
        *parents, last = key
        place = results
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
        self.write(results)


def run_missing(files: ResultFiles, setting: Results, measurements: Iterable[Measurement]) -> None:
    """Run the measurements that the JSON file lacks, in order, and write both files after each.

    A benchmark can therefore be stopped at any time, continues when it is called again, and can run in
    several processes at once if they are given different measurements.
    """
    for key, measure in measurements:
        if files.contains(key):
            continue
        print(", ".join(key), flush=True)
        value = measure()
        print(f"  {value}", flush=True)
        files.add(key, value, setting)
    files.write_page()
