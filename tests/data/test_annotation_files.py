"""Reading and writing annotation files: recognition, every pair of formats, and refused targets."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from helpers.annotation_cases import annotation_cases
from hypothesis import HealthCheck, Phase, given, settings

from landmarks_fastai.data.annotation_files import find_format, read_annotations, write_annotations
from landmarks_fastai.data.annotations import Annotations
from landmarks_fastai.data.formats import ANNOTATION_FORMATS
from landmarks_fastai.errors import UserError

WRITABLE = [name for name, each in ANNOTATION_FORMATS.items() if each.write is not None]
NAMELESS = {"pts"}
"""Formats without landmark names."""

few_examples = settings(
    max_examples=2, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True
)


def target(folder: Path, name: str) -> Path:
    return folder / f"{name}{ANNOTATION_FORMATS[name].suffix}"


def sorted_points(annotations: Annotations) -> np.ndarray:
    """Return the points in the order of the names of the images, which have one row each."""
    order = np.argsort([annotations.images[row].name for row in annotations.rows.tolist()])
    return np.asarray(annotations.points[order])


@pytest.mark.parametrize(("first", "second"), permutations(WRITABLE, 2))
@few_examples
@given(annotations=annotation_cases(several=False))
def test_every_pair_of_formats_keeps_points_and_names(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str, annotations: Annotations
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    write_annotations(annotations, target(folder, first), first)
    there = read_annotations(target(folder, first))
    write_annotations(there, target(folder, second), second)
    back = read_annotations(target(folder, second))
    np.testing.assert_allclose(sorted_points(back), sorted_points(annotations), rtol=0, atol=1e-3)
    if not NAMELESS & {first, second}:
        assert back.schema.names == annotations.schema.names
        assert set(back.schema.flip_pairs) == set(annotations.schema.flip_pairs)


@pytest.mark.parametrize("name", WRITABLE)
@few_examples
@given(annotations=annotation_cases(several=False))
def test_what_is_written_is_recognized_by_this_format_only(
    tmp_path_factory: pytest.TempPathFactory, name: str, annotations: Annotations
) -> None:
    path = target(tmp_path_factory.mktemp("out"), name)
    write_annotations(annotations, path, name)
    assert [each for each, known in ANNOTATION_FORMATS.items() if known.recognizes(path)] == [name]
    assert find_format(path).name == name
    assert read_annotations(path).notes[0].startswith(f"{path}: {ANNOTATION_FORMATS[name].title}, ")


@few_examples
@given(annotations=annotation_cases())
def test_existing_target_and_wrong_suffix_are_refused(
    tmp_path_factory: pytest.TempPathFactory, annotations: Annotations
) -> None:
    folder = tmp_path_factory.mktemp("out")
    path = folder / "labels.json"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"labels\.json: already exists"):
        write_annotations(annotations, path, "coco")
    assert path.read_text() == "mine"
    with pytest.raises(UserError, match=r"labels\.txt: COCO .* is written to a file \*\.json"):
        write_annotations(annotations, folder / "labels.txt", "coco")
    with pytest.raises(UserError, match="cvat: can be read but not written; choose one of csv"):
        write_annotations(annotations, folder / "x", "cvat")
    with pytest.raises(UserError, match="no such format; did you mean 'coco'"):
        write_annotations(annotations, folder / "x", "cocoo")


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from landmarks_fastai.data.formats import pts

    def fail(annotations: Annotations, out: Path) -> list[str]:
        out.mkdir()
        (out / "half.pts").write_text("")
        raise KeyboardInterrupt

    broken = pts.FORMAT.__class__(**{**vars(pts.FORMAT), "write": fail})
    monkeypatch.setitem(ANNOTATION_FORMATS, "pts", broken)
    with pytest.raises(KeyboardInterrupt):
        write_annotations(None, tmp_path / "out", "pts")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
