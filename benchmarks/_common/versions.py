"""Running code with this version of the package and with the checkout of another one, in fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


def run_version(checkout: Path, code: str, *arguments: object) -> dict[str, Any]:
    """Run code whose last printed line is a JSON object, and return that.

    Parameters
    ----------
    checkout
        Folder that contains the package.
    code
        The program; it finds the arguments in ``sys.argv[1:]``.
    arguments
        Its arguments, as text.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    values: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return values
