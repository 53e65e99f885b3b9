"""Fixes: each action does what it says to one label, and what can't be followed is told by its line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.config import Data
from landmarks_fastai.data.fixes import apply_fixes
from landmarks_fastai.data.source import load_faces, load_table
from landmarks_fastai.data.synthetic import draw_faces
from landmarks_fastai.errors import UserError
from landmarks_fastai.tasks.evaluate import unseen_rows

TABLE = draw_faces(5, seed=4)
NOSE = TABLE.schema.points.index("nose_tip")


def written(folder: Path, *lines: str, header: str = "face,point,action,x,y") -> Path:
    path = folder / "fixes.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_each_action_changes_its_label_alone(tmp_path: Path) -> None:
    lines = ("synthetic face 0,,drop,,", "synthetic face 1,nose_tip,unlabel,3,4")
    fixed = apply_fixes(TABLE, written(tmp_path, *lines, "synthetic face 3,nose_tip,move,40.5,-1"))
    assert fixed.names == TABLE.names[1:]
    np.testing.assert_array_equal(fixed.images, TABLE.images[1:])
    assert fixed.points[2, NOSE].tolist() == [40.5, -1]
    expected = TABLE.points[1:].copy()
    expected[0, NOSE] = np.nan
    expected[2, NOSE] = 40.5, -1
    np.testing.assert_array_equal(fixed.points, expected)
    assert fixed.digest == TABLE.digest  # the faces are the same; what was done to them stands in `fixes`


def test_rows_without_an_action_and_other_columns_are_passed_over(tmp_path: Path) -> None:
    header = "face,score,action,point"
    path = written(tmp_path, "unknown,9,,x", "", "synthetic face 2,8, unlabel ,nose_tip", header=header)
    fixed = apply_fixes(TABLE, path)
    assert np.isnan(fixed.points).sum() == 2
    assert np.isnan(fixed.points[2, NOSE]).all()
    one = fixed.fixes
    again = written(tmp_path, "synthetic face 2,nose_tip,unlabel,1,1", "synthetic face 1,nose_tip,,1,1")
    assert apply_fixes(TABLE, again).fixes == one
    other = written(tmp_path, "synthetic face 2,nose_tip,move,1,1")
    assert apply_fixes(TABLE, other).fixes not in (one, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "synthetic face 9,,drop,,",
            "has no face 'synthetic face 9'; its first is called 'synthetic face 0'",
        ),
        ("synthetic face 1,nose_tipp,unlabel,,", "no such point 'nose_tipp'; did you mean 'nose_tip'?"),
        ("synthetic face 1,,unlabel,,", "point is empty; name the one to unlabel"),
        ("synthetic face 1,nose_tip,mvoe,1,2", "no such action 'mvoe'; did you mean 'move'?"),
        ("synthetic face 1,nose_tip,drop,,", "drop leaves the whole face out; empty the point"),
        ("synthetic face 1,nose_tip,move,3,", "x and y say where to move nose_tip; fill in both"),
        ("synthetic face 1,nose_tip,move,3,up", "y is 'up'"),
        ("synthetic face 1,nose_tip,move,3,500", "nose_tip_y is 500, far outside of the image"),
        ("synthetic face 1,nose_tip,move,3", "4 fields where the header has 5"),
        ("synthetic face 2,nose_tip,unlabel,,", "line 2 is about the same label; remove one of them"),
    ],
)
def test_what_can_t_be_followed_is_told_by_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path, "synthetic face 2,nose_tip,move,1,1", line)
    with pytest.raises(UserError) as told:
        apply_fixes(TABLE, path)
    assert str(told.value).startswith(f"{path} line 3: ")
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.csv: can't be read"):
        apply_fixes(TABLE, tmp_path / "nothing.csv")
    with pytest.raises(UserError, match=r"the column 'action' is missing"):
        apply_fixes(TABLE, written(tmp_path, header="face,point"))
    with pytest.raises(UserError, match=r"drops every face"):
        apply_fixes(TABLE, written(tmp_path, *(f"{name},,drop,," for name in TABLE.names)))


def test_a_recipe_s_fixes_come_before_the_rows_it_leaves_out(tmp_path: Path, own_cache: Path) -> None:
    path = written(tmp_path, "synthetic face 1,nose_tip,unlabel,,", "synthetic face 4,,drop,,")
    data = Data(source="synthetic", count=5, fixes=str(path), complete_only=True)
    assert load_table(data, own_cache, 4).names == tuple(TABLE.names[i] for i in (0, 2, 3))
    assert load_faces("synthetic", own_cache, seed=4, count=5).fixes is None


def test_faces_with_other_fixes_are_not_told_apart_by_number(tmp_path: Path) -> None:
    """Else a model could be judged by faces that it has trained on: row 3 is another face each time."""
    one = apply_fixes(TABLE, written(tmp_path, "synthetic face 0,,drop,,"))
    data = {"sha256": one.digest, "rows": 4, "fixes": one.fixes, "split": {"valid": [3]}}
    (tmp_path / "data.json").write_text(json.dumps(data))
    rows = unseen_rows([tmp_path], one)
    assert rows is not None
    assert rows.tolist() == [3]
    other = apply_fixes(TABLE, written(tmp_path, "synthetic face 4,,drop,,"))
    for table in (other, TABLE):
        with pytest.raises(UserError, match="with other fixes"):
            unseen_rows([tmp_path], table)
    assert unseen_rows([tmp_path], replace(TABLE, digest="other")) is None
