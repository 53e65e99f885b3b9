"""SLEAP: reading and writing .slp with sleap-io."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.annotation_cases import annotation_cases, assert_same_annotations
from hypothesis import given, settings
from PIL import Image

from landmarks_fastai.data.annotations import Annotations, ImageSource
from landmarks_fastai.data.formats.sleap import read, recognizes, write
from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.video.writer import VideoWriter

sleap_io: Any = pytest.importorskip("sleap_io")


def make_labels(folder: Path) -> Any:
    """Return labels of two instances on an image, one of them predicted, with a symmetry and an edge."""
    Image.new("RGB", (30, 20), (9, 8, 7)).save(folder / "a.png")
    nodes = [sleap_io.Node(name) for name in ("x1", "x2", "tip")]
    skeleton = sleap_io.Skeleton(
        nodes=nodes,
        edges=[sleap_io.Edge(nodes[0], nodes[2])],
        symmetries=[sleap_io.Symmetry({nodes[0], nodes[1]})],
    )
    points = np.array([[1.0, 2], [3, 4], [np.nan, np.nan]])
    track = sleap_io.Track("ann")
    user = sleap_io.Instance.from_numpy(points, skeleton=skeleton, track=track)
    predicted = sleap_io.PredictedInstance.from_numpy(points, skeleton=skeleton)
    video = sleap_io.load_video([str(folder / "a.png")])
    frame = sleap_io.LabeledFrame(video=video, frame_idx=0, instances=[user, predicted])
    return sleap_io.Labels(labeled_frames=[frame], videos=[video], skeletons=[skeleton], tracks=[track])


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.slp"
    sleap_io.save_slp(make_labels(tmp_path), str(path), verbose=False)
    assert recognizes(path)
    annotations = read(path)
    assert annotations.schema.names == ("x1", "x2", "tip")
    assert annotations.schema.flip_pairs == (("x1", "x2"),)
    assert annotations.schema.skeleton == (("x1", "tip"),)
    np.testing.assert_array_equal(annotations.points, [[[1, 2], [3, 4], [np.nan, np.nan]]])
    assert annotations.columns == {"track": ("ann",)}
    assert annotations.images == (ImageSource(tmp_path / "a.png"),)
    assert annotations.notes == ("1 predicted instance is skipped",)


def test_embedded_images_are_extracted(tmp_path: Path) -> None:
    path = tmp_path / "labels.pkg.slp"
    sleap_io.save_slp(make_labels(tmp_path), str(path), embed=True, verbose=False)
    (tmp_path / "a.png").unlink()
    (image,) = read(path).images
    assert np.asarray(Image.open(image.path))[0, 0].tolist() == [9, 8, 7]


def test_missing_image_raises(tmp_path: Path) -> None:
    path = tmp_path / "labels.slp"
    sleap_io.save_slp(make_labels(tmp_path), str(path), verbose=False)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"no such file .*a\.png; put it there or beside labels\.slp"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(300)])
def test_damaged_file_raises(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.slp"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or not a file of SLEAP"):
        read(path)


@settings(max_examples=15)
@given(annotations=annotation_cases(visibility=True))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, annotations) -> None:
    path = tmp_path_factory.mktemp("out") / "labels.slp"
    assert write(annotations, path) == []
    found = read(path)
    if not (annotations.visibility == 1).any():
        found = replace(found, visibility=annotations.visibility)
    by_image = np.lexsort((np.arange(len(found)), [found.images[row].name for row in found.rows]))
    assert_same_annotations(found.subset(by_image), annotations)


def test_round_trip_of_video_frames(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    with VideoWriter(video, (32, 16), Fraction(25), Fraction(1, 12800)) as writer:
        for frame in range(4):
            writer.write(np.full((16, 32, 3), 10 * frame, np.uint8), Fraction(frame, 25))
    annotations = Annotations(
        schema=LandmarkSchema("fly", ("head", "tail")),
        images=(ImageSource(video, 1), ImageSource(video, 3)),
        rows=np.array([0, 1, 1]),
        points=np.arange(12.0).reshape(3, 2, 2),
        names=("a", "b", "c"),
        source="case",
        columns={"track": ("one", "one", "two")},
    )
    lines = write(annotations, tmp_path / "out.slp")
    assert lines == ["visibility is not recorded: all labeled landmarks are written as visible"]
    found = read(tmp_path / "out.slp")
    assert found.images == annotations.images
    np.testing.assert_array_equal(found.points, annotations.points)
    assert found.columns == annotations.columns
