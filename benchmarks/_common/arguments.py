"""Command line options that the benchmarks share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from _common.results import BENCHMARKS, ResultFiles


class BenchmarkParser(argparse.ArgumentParser):
    """Parser with the options of every benchmark: ``--out`` and ``--render``.

    Parameters
    ----------
    description
        The docstring of the script.
    files
        Its result files.
    """

    def __init__(self, description: str | None, files: ResultFiles) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.files = files
        _add_common_options(self)

    def add_data(self) -> None:
        """Add ``--data``."""
        self.add_argument("--data", required=True, help="Kaggle's zip, or one with the same layout")

    def add_frames(self) -> None:
        """Add ``--frames``."""
        self.add_argument(
            "--frames", required=True, type=Path, help="folder with images/ and landmarks.csv (faces68)"
        )

    def parse(self) -> tuple[argparse.Namespace, ResultFiles]:
        """Return the options and the result files; with ``--render``, write the page and exit."""
        common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        _add_common_options(common)
        given, _ = common.parse_known_args()  # --render needs none of the required options
        files = replace(self.files, folder=given.out)
        if given.render:
            files.write_page()
            print(f"{files.folder / files.name}.md written")
            self.exit()
        return self.parse_args(), files


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=BENCHMARKS, help="folder of the result files (default: this folder)"
    )
    parser.add_argument(
        "--render", action="store_true", help="write the page from the existing JSON file, measure nothing"
    )
