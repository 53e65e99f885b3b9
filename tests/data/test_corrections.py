"""Corrections: the actions, their digest, and the error messages for rows that cannot be applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.config.options import DataConfig
from landmarks_fastai.data.corrections import apply_corrections
from landmarks_fastai.data.sources import load_dataset
from landmarks_fastai.data.synthetic.faces import draw_synthetic_faces
from landmarks_fastai.errors import UserError

DATASET = draw_synthetic_faces(5, seed=4)
NOSE = DATASET.schema.names.index("nose_tip")


def write_corrections(folder: Path, *lines: str, header: str = "face,landmark,action,x,y") -> Path:
    path = folder / "corrections.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_apply_corrections_changes_only_named_labels(tmp_path: Path) -> None:
    lines = ("synthetic face 0,,drop,,", "synthetic face 1,nose_tip,unlabel,3,4")
    corrected = apply_corrections(
        DATASET, write_corrections(tmp_path, *lines, "synthetic face 3,nose_tip,move,40.5,-1")
    )
    assert corrected.names == DATASET.names[1:]
    np.testing.assert_array_equal(corrected.images, DATASET.images[1:])
    assert corrected.points[2, NOSE].tolist() == [40.5, -1]
    expected = DATASET.points[1:].copy()
    expected[0, NOSE] = np.nan
    expected[2, NOSE] = 40.5, -1
    np.testing.assert_array_equal(corrected.points, expected)
    # the digest is that of the original data; `corrections` is that of the changes
    assert corrected.digest == DATASET.digest


def test_apply_corrections_ignores_rows_without_action_and_other_columns(tmp_path: Path) -> None:
    header = "face,score,action,landmark"
    path = write_corrections(
        tmp_path, "unknown,9,,x", "", "synthetic face 2,8, unlabel ,nose_tip", header=header
    )
    corrected = apply_corrections(DATASET, path)
    assert np.isnan(corrected.points).sum() == 2
    assert np.isnan(corrected.points[2, NOSE]).all()
    digest = corrected.corrections
    reordered = write_corrections(
        tmp_path, "synthetic face 2,nose_tip,unlabel,1,1", "synthetic face 1,nose_tip,,1,1"
    )
    assert apply_corrections(DATASET, reordered).corrections == digest
    other = write_corrections(tmp_path, "synthetic face 2,nose_tip,move,1,1")
    assert apply_corrections(DATASET, other).corrections not in (digest, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "synthetic face 9,,drop,,",
            "has no face 'synthetic face 9'; its first face is 'synthetic face 0'",
        ),
        ("synthetic face 1,nose_tipp,unlabel,,", "no such landmark 'nose_tipp'; did you mean 'nose_tip'?"),
        ("synthetic face 1,,unlabel,,", "'landmark' is empty or missing; name the landmark to unlabel"),
        ("synthetic face 1,nose_tip,mvoe,1,2", "no such action 'mvoe'; did you mean 'move'?"),
        ("synthetic face 1,nose_tip,drop,,", "drop removes the whole face; leave 'landmark' empty"),
        (
            "synthetic face 1,nose_tip,move,3,",
            "move needs the new position of nose_tip; fill in both x and y",
        ),
        (
            "synthetic face 1,nose_tip,move,3,up",
            "y is 'up'; enter a number, or use the action unlabel if the landmark is unlabeled",
        ),
        (
            "synthetic face 1,nose_tip,move,3,500",
            "far outside the image of 96 × 96 px; correct the value, or use the action unlabel",
        ),
        ("synthetic face 1,nose_tip,move,3", "4 fields, but the header has 5"),
        ("synthetic face 2,nose_tip,unlabel,,", "line 2 corrects the same label; remove one of them"),
    ],
)
def test_apply_corrections_invalid_row_raises_with_line(tmp_path: Path, line: str, message: str) -> None:
    path = write_corrections(tmp_path, "synthetic face 2,nose_tip,move,1,1", line)
    with pytest.raises(UserError) as error:
        apply_corrections(DATASET, path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_apply_corrections_second_drop_of_a_face_raises(tmp_path: Path) -> None:
    path = write_corrections(tmp_path, "synthetic face 2,,drop,,", "synthetic face 2,,drop,,")
    with pytest.raises(UserError, match=r"line 3: line 2 drops the same face; remove one of them"):
        apply_corrections(DATASET, path)


def test_apply_corrections_unusable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.csv: cannot be read"):
        apply_corrections(DATASET, tmp_path / "missing.csv")
    with pytest.raises(UserError, match=r"the column 'action' is missing"):
        apply_corrections(DATASET, write_corrections(tmp_path, header="face,landmark"))
    with pytest.raises(UserError, match=r"drops every face"):
        apply_corrections(
            DATASET, write_corrections(tmp_path, *(f"{name},,drop,," for name in DATASET.names))
        )


def test_load_dataset_applies_corrections_before_selecting_rows(tmp_path: Path, cache_dir: Path) -> None:
    path = write_corrections(tmp_path, "synthetic face 1,nose_tip,unlabel,,", "synthetic face 4,,drop,,")
    data = DataConfig(source="synthetic", count=5, corrections=str(path), complete_only=True)
    assert load_dataset(data, seed=4, cache=cache_dir).names == tuple(DATASET.names[i] for i in (0, 2, 3))
    assert load_dataset(DataConfig(source="synthetic", count=5), seed=4, cache=cache_dir).corrections is None
