"""DeepLabCut: tables as CSV and HDF5, projects, several animals, and round trips."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.annotation_cases import annotation_cases, assert_same_annotations
from hypothesis import given, settings
from PIL import Image

from landmarks_fastai.data.formats.deeplabcut import FORMAT, read, recognizes, write
from landmarks_fastai.errors import UserError

SINGLE = """scorer,Ann,Ann,Ann,Ann
bodyparts,nose,nose,left_ear,left_ear
coords,x,y,x,y
labeled-data/v1/img1.png,1.5,2,3,4
labeled-data/v1/img2.png,5,6,,
labeled-data/v1/img3.png,,,,
"""
SEVERAL = """scorer,,,Ann,Ann,Ann,Ann,Ann,Ann
individuals,,,m1,m1,m2,m2,single,single
bodyparts,,,nose,nose,nose,nose,corner,corner
coords,,,x,y,x,y,x,y
labeled-data,v1,img1.png,1,2,3,4,5,6
labeled-data,v1,img2.png,,,7,8,,
"""


def write_table(folder: Path, text: str, video: str = "v1", name: str = "CollectedData_Ann.csv") -> Path:
    """Write a table and the images of a video's folder in a project; return the path of the table."""
    path = folder / "labeled-data" / video / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        Image.new("RGB", (20, 10)).save(path.parent / f"img{number}.png")
    path.write_text(text)
    return path


def test_single_animal(tmp_path: Path) -> None:
    path = write_table(tmp_path, SINGLE)
    for source in (path, path.parent, tmp_path):
        assert recognizes(source)
        annotations = read(source)
        assert annotations.schema.names == ("nose", "left_ear")
        assert [image.name for image in annotations.images] == ["img1.png", "img2.png"]
        np.testing.assert_array_equal(annotations.points, [[[1.5, 2], [3, 4]], [[5, 6], [np.nan, np.nan]]])
        assert annotations.groups is None
        assert annotations.notes == ("1 row without labels skipped",)
        assert annotations.names[0] == "labeled-data/v1/img1.png"
        assert annotations.locations[0].endswith("CollectedData_Ann.csv, line 4")


def test_several_animals_are_rows(tmp_path: Path) -> None:
    annotations = read(write_table(tmp_path, SEVERAL))
    assert annotations.schema.names == ("nose", "corner")
    assert annotations.columns["individual"] == ("m1", "m2", "m2", "single")
    assert annotations.rows.tolist() == [0, 0, 1, 0]
    assert annotations.names[1] == "labeled-data/v1/img1.png m2"
    assert annotations.points[:, 0, 0].tolist()[:3] == [1, 3, 7]
    assert annotations.points[3, 1].tolist() == [5, 6]
    assert "landmarks that occur once in an image are rows of the individual 'single'" in annotations.notes


def test_project_has_groups_and_skeleton(tmp_path: Path) -> None:
    write_table(tmp_path, SINGLE)
    write_table(tmp_path, SINGLE.replace("/v1/", "/v2/"), "v2")
    (tmp_path / "config.yaml").write_text("scorer: Ann\nskeleton:\n- - nose\n  - left_ear\n")
    annotations = read(tmp_path)
    assert annotations.groups == ("v1", "v1", "v2", "v2")
    assert annotations.schema.skeleton == (("nose", "left_ear"),)


def test_scorer_of_the_project_is_chosen(tmp_path: Path) -> None:
    text = SINGLE.replace("Ann,Ann,Ann,Ann", "Ann,Ann,Ben,Ben")
    path = write_table(tmp_path, text)
    with pytest.raises(UserError, match=r"several scorers \(Ann, Ben\)"):
        read(path)
    (tmp_path / "config.yaml").write_text("scorer: Ben\n")
    assert read(path).schema.names == ("left_ear",)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("/", "\\"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";").replace("1.5", "1,5"),
        lambda text: text.replace(",", "\t"),
    ],
)
def test_variants_of_csv_are_equal(tmp_path: Path, change) -> None:
    expected = read(write_table(tmp_path / "a", SINGLE))
    found = read(write_table(tmp_path / "b", change(SINGLE)))
    np.testing.assert_array_equal(found.points, expected.points)
    assert [image.name for image in found.images] == [image.name for image in expected.images]


def test_hdf5_is_equal_to_csv_and_runs_no_code(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    path = write_table(tmp_path, SEVERAL)
    frame = pd.read_csv(path, header=[0, 1, 2, 3], index_col=[0, 1, 2])
    frame.to_hdf(path.with_suffix(".h5"), key="df_with_missing", mode="w")
    expected = read(path)
    assert recognizes(path.with_suffix(".h5"))
    found = read(path.with_suffix(".h5"))
    np.testing.assert_array_equal(found.points, expected.points)
    assert found.columns == expected.columns
    path.unlink()
    np.testing.assert_array_equal(read(tmp_path).points, expected.points)
    h5py = pytest.importorskip("h5py")
    marker = tmp_path / "executed"
    with h5py.File(path.with_suffix(".h5"), "a") as file:
        payload = pickle.dumps(_Payload(f"touch {marker}"))
        file["df_with_missing"].attrs["non_index_axes"] = np.bytes_(payload)
    read(path.with_suffix(".h5"))
    assert not marker.exists()


class _Payload:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_csv_is_preferred_and_another_age_noted(tmp_path: Path) -> None:
    path = write_table(tmp_path, SINGLE)
    path.with_suffix(".h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    os.utime(path.with_suffix(".h5"), (1e9, 1e9))
    assert any("read instead of CollectedData_Ann.h5" in note for note in read(tmp_path).notes)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the rows of the header"),
        ("scorer,Ann\nbodyparts,nose\n", "the rows of the header"),
        ("scorer,Ann\nbodyparts,nose\ncoords,x\na.png,1\n", "x and y of 'nose' are not complete"),
        ("scorer,A,A,A\nbodyparts,a,a,a\ncoords,x,y,x\na.png,1,2,3\n", "occurs twice"),
        (SINGLE.replace("1.5", "one"), "line 4: 'one' is not a number"),
        (SINGLE.replace("1.5", "1e400"), "line 4: '1e400' is not a number"),
        (SINGLE.replace("img1", "img9"), "no such image"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, part: str) -> None:
    path = write_table(tmp_path, text)
    try:
        messages = read(path).bad_rows
    except UserError as error:
        messages = (str(error),)
    assert len(messages) == 1
    assert part in messages[0]
    assert len(messages[0]) < 400


def test_damaged_hdf5_raises(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    path = tmp_path / "CollectedData_Ann.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(200)))
    with pytest.raises(UserError, match="damaged or not a table of labels"):
        read(path)


def test_table_of_the_cases_is_read() -> None:
    path = Path(__file__).resolve().parents[4] / "shared" / "cases" / "csv_layouts" / "dlc.csv"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    assert recognizes(path)
    assert len(read(path)) > 0


@settings(max_examples=25)
@given(annotations=annotation_cases(groups=True))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, annotations) -> None:
    out = tmp_path_factory.mktemp("out") / "project"
    write(annotations, out)
    found = read(out)
    # the rows are sorted by group, image and individual
    assert len(found) == len(annotations)
    key = [tuple(np.nan_to_num(points, nan=-9).ravel().round(3)) for points in annotations.points]
    found_key = [tuple(np.nan_to_num(points, nan=-9).ravel().round(3)) for points in found.points]
    assert sorted(key) == sorted(found_key)
    assert found.schema.names == annotations.schema.names
    if len(set(annotations.groups)) > 1:
        by_key = dict(zip(key, annotations.groups, strict=True))
        if len(by_key) == len(key):
            assert [by_key[each].replace(" ", "_") for each in found_key] == [
                group.replace(" ", "_") for group in found.groups
            ]
    shutil.rmtree(out)


@settings(max_examples=10)
@given(annotations=annotation_cases(several=False))
def test_round_trip_with_one_row_per_image_keeps_everything(
    tmp_path_factory: pytest.TempPathFactory, annotations
) -> None:
    out = tmp_path_factory.mktemp("out") / "project"
    assert write(annotations, out) == []
    assert FORMAT.recognizes(out)
    assert_same_annotations(read(out), annotations)


def test_losses_are_listed(tmp_path: Path) -> None:
    annotations = read(write_table(tmp_path, SEVERAL))
    lossy = annotations.subset(np.arange(4))
    object.__setattr__(lossy, "boxes", np.zeros((4, 4)))
    object.__setattr__(lossy, "visibility", np.ones((4, 2), np.uint8))
    lines = write(lossy, tmp_path / "out")
    assert any(line.startswith("visibility is not written") for line in lines)
    assert "boxes are not written" in lines
