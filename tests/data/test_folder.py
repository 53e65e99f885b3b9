"""People's own points: where they land, which colour comes out, and what each mistake is told as."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai.data.folder import _moved, _square, read_folder
from landmarks_fastai.errors import UserError
from landmarks_fastai.framing import cut_square
from landmarks_fastai.schema import IBUG68, Schema

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
HEADER = "image,left_x,left_y,right_x,right_y,tip_x,tip_y\n"


def picture(width=60, height=40, seed=0, gray=False):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5) if gray else (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Two RGB pictures, one beside the CSV and one in images/."""
    home = tmp_path / "mine"
    (home / "images").mkdir(parents=True)
    picture().save(home / "a.png")
    picture(30, 50, seed=1).save(home / "images" / "b.jpg")
    (home / "landmarks.csv").write_text(HEADER + "a.png,40,10,20,12,30,25\nb.jpg,20,20,8,20,,\n")
    return home


def read(home, **options):
    return read_folder(home, home.parent / "cache", **options)


def test_reads_names_labels_and_schema(folder):
    table = read(folder, size=32)
    assert table.images.shape == (2, 32, 32, 3)
    assert table.names == ("a.png", "b.jpg")
    assert table.schema.points == ("left", "right", "tip")
    assert table.schema.flip_pairs == (("left", "right"),)
    assert table.groups is None
    assert table.labelled.tolist() == [[True] * 3, [True, True, False]]
    # by hand: box 20 px long about (30, 17.5), so a square of 32 px from (14.5, 2): one px stays one px
    np.testing.assert_allclose(table.points[0], [[25.5, 8], [5.5, 10], [15.5, 23]])


def test_frame_image_is_the_middle_square(folder):
    table = read(folder, size=80, frame="image")
    # 40 px high: from x = 10 to 50, twice as large
    np.testing.assert_allclose(table.points[0, 0], [(40 - 10 + 0.5) * 2 - 0.5, 10.5 * 2 - 0.5])
    wanted = picture().crop((10, 0, 50, 40)).resize((80, 80), Image.Resampling.BILINEAR)
    difference = table.images[0].astype(int) - np.asarray(wanted)
    assert abs(difference[4:-4, 4:-4]).max() <= 1


def test_a_point_outside_of_the_square_is_unlabelled(folder):
    (folder / "landmarks.csv").write_text(HEADER + "a.png,55,10,20,12,30,25\n")
    assert read(folder, frame="image").labelled.tolist() == [[False, True, True]]


@pytest.mark.parametrize("rest", [",,,,,", "30,20,,,,"])
def test_a_row_without_two_places_gets_the_middle_square(folder, rest):
    (folder / "landmarks.csv").write_text(HEADER + f"a.png,{rest}\n")
    np.testing.assert_array_equal(read(folder).images, read(folder, frame="image").images)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(40, 300),
    height=st.integers(40, 300),
    size=st.integers(32, 96),
    frame=st.sampled_from(["points", "image"]),
    seed=st.integers(0, 1000),
)
def test_points_stay_on_what_they_mark(width, height, size, frame, seed):
    """A smooth ramp holds each pixel's own place, so it tells where a point came to lie."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    ramp = np.stack([x, y, 0 * x], axis=2).round().astype(np.uint8)
    middle, reach = np.array([width, height]) / 2, min(width, height) / 4
    points = middle + np.random.default_rng(seed).uniform(-reach, reach, (6, 2))
    square = _square(points, width, height, frame)
    moved = _moved(points, square, size)
    cut = cut_square(ramp, square, size, 3).astype(float)
    for place, (px, py) in zip(points, moved, strict=True):
        i, j = int(np.clip(px, 1, size - 3)), int(np.clip(py, 1, size - 3))
        fx, fy = px - i, py - j
        around = cut[j : j + 2, i : i + 2, :2]
        top, bottom = around[0, 0] * (1 - fx) + around[0, 1] * fx, around[1, 0] * (1 - fx) + around[1, 1] * fx
        seen = (top * (1 - fy) + bottom * fy) / 255 * [width - 1, height - 1]
        step = max(1, square.side / size)  # a half-pixel mistake would be half a step
        rounding = 1.5 * max(width, height) / 255
        if ((seen > step) & (seen < [width - 1 - step, height - 1 - step])).all():
            np.testing.assert_allclose(seen, place, atol=rounding + 0.15 * step)


def test_a_whole_scale_is_exact():
    ramp = np.repeat(np.arange(0, 240, 4, np.uint8)[None, :, None], 60, 0).repeat(3, 2)
    points = np.array([[19.5, 19.5], [44.5, 40.0]])  # square of 40 px from 12.5: half a pixel off
    square = _square(points, 60, 60, "points")
    assert (square.left, square.side) == (12.5, 40)
    cut = cut_square(ramp, square, 40, 3)
    # pixel 0 lies on x = 12.5 - 0.5 + 0.5 = 12.5 between 48 and 52
    np.testing.assert_array_equal(cut[5, :20, 0], np.arange(50, 130, 4))


def test_outside_of_the_picture_its_edge_is_repeated(folder):
    flat = np.zeros((40, 60, 3), np.uint8)
    flat[:, :3] = (200, 100, 50)
    Image.fromarray(flat).save(folder / "a.png")
    (folder / "landmarks.csv").write_text(HEADER + "a.png,0,0,0,39,1,20\n")
    table = read(folder, size=62)
    assert (table.images[0, :, :20] == (200, 100, 50)).all()


def test_a_jpeg_turned_by_its_exif_is_cut_upright(folder):
    upright = picture(60, 40)
    exif = Image.Exif()
    exif[274] = 6  # shown after a turn by 90° clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    points = "40,10,20,12,30,25\n"
    (folder / "landmarks.csv").write_text(HEADER + "turned.png," + points + "a.png," + points)
    table = read(folder)
    np.testing.assert_array_equal(table.images[0], table.images[1])


def test_gray_only_if_all_are(folder):
    row = ",40,10,20,12,30,25\n"
    gray = picture(gray=True)
    gray.save(folder / "l.png")
    gray.convert("RGB").save(folder / "rgb.png")
    Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).save(folder / "deep.png")
    (folder / "landmarks.csv").write_text(HEADER + f"l.png{row}rgb.png{row}deep.png{row}")
    table = read(folder)
    assert table.channels == 1
    np.testing.assert_array_equal(table.images[0], table.images[1])
    np.testing.assert_array_equal(table.images[0], table.images[2])
    (folder / "landmarks.csv").write_text(HEADER + f"l.png{row}a.png{row}")
    assert read(folder).channels == 3


def test_what_is_transparent_is_white(folder):
    Image.new("RGBA", (60, 40), (10, 20, 30, 0)).save(folder / "a.png")
    (folder / "landmarks.csv").write_text(HEADER + "a.png,40,10,20,12,30,25\n")
    assert (read(folder).images == 255).all()


def test_groups_and_several_faces_of_a_picture(folder):
    rows = "a.png,40,10,20,12,30,25,Ann\na.png,40,10,20,12,30,26,Ben\nb.jpg,20,20,8,20,,,Ann\n"
    (folder / "landmarks.csv").write_text(HEADER[:-1] + ",group\n" + rows)
    table = read(folder)
    assert table.groups.tolist() == [0, 1, 0]
    assert table.names == ("a.png (landmarks.csv line 2)", "a.png (landmarks.csv line 3)", "b.jpg")


def test_schema_json_rules_names_and_order(folder):
    schema = Schema("mine", ("tip", "right", "left"), (("right", "left"),), (("tip", "left"),))
    (folder / "schema.json").write_text(json.dumps(schema.to_dict()))
    plain = folder.parent / "plain.csv"
    plain.write_text((folder / "landmarks.csv").read_text())
    table = read(folder, size=32)
    assert table.schema == schema
    np.testing.assert_allclose(table.points[0, 0], [15.5, 23])


def test_cached_until_something_changes(folder, monkeypatch):
    first = read(folder)
    kept = list((folder.parent / "cache" / "parsed").iterdir())
    assert [file.suffix for file in kept] == [".npz"]
    decode = "landmarks_fastai.data.folder.read_image"
    with monkeypatch.context() as patch:
        patch.setattr(decode, lambda *_: pytest.fail("decoded again"))
        again = read(folder)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.points, first.points)
    assert (again.names, again.schema, again.digest) == (first.names, first.schema, first.digest)
    assert read(folder, size=64).size == 64
    kept[0].write_bytes(kept[0].read_bytes()[:500])  # damaged: made anew
    np.testing.assert_array_equal(read(folder).images, first.images)
    before = (folder / "a.png").stat()
    picture(seed=9).save(folder / "a.png")
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    changed = read(folder)
    assert changed.digest != first.digest
    assert (changed.images[0] != first.images[0]).any()


def test_a_copy_of_the_folder_has_the_same_digest(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    assert read(tmp_path / "copy").digest == read(folder).digest


GOOD = "a.png,40,10,20,12,30,25\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["landmarks.csv", "empty"]),
        (HEADER, ["landmarks.csv", "no rows"]),
        ("image\na.png\n", ["landmarks.csv", "no columns of points"]),
        ("picture,a_x,a_y\na.png,1,2\n", ["landmarks.csv", "'image'"]),
        ("image,a_x,a_y,a_x\na.png,1,2,3\n", ["'a_x'", "twice"]),
        ("image,a_x,a_y,b_x\na.png,1,2,3\n", ["'b_x'", "'b_y'"]),
        ("image,a_x,a_y,b_y\na.png,1,2,3\n", ["'b_y'", "'b_x'"]),
        ("image,a_x,a_y,width\na.png,1,2,3\n", ["'width'"]),
        (HEADER + GOOD + "gone.png,1,2,3,4,5,6\n", ["line 3", "gone.png"]),
        (HEADER + "x" * 5000 + ",1,2,3,4,5,6\n", ["line 2", "xxx"]),
        (HEADER + ",1,2,3,4,5,6\n", ["line 2", "image is empty"]),
        (HEADER + GOOD + "a.png,1,2,3,4,five,6\n", ["line 3", "tip_x", "'five'"]),
        (HEADER + "a.png,1,2,3,4,inf,6\n", ["line 2", "tip_x"]),
        (HEADER + "a.png,1,,3,4,5,6\n", ["line 2", "left_y"]),
        (HEADER + "a.png,1,2\n", ["line 2", "3 fields"]),
        (HEADER + "a.png,1000,10,20,12,30,25\n", ["line 2", "left_x", "1000", "60 × 40"]),
        (HEADER[:-1] + ",group\na.png,40,10,20,12,30,25,\n", ["line 2", "group"]),
    ],
)
def test_a_mistake_in_the_csv_is_one_line(folder, text, words):
    (folder / "landmarks.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        read(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message
    assert not list(folder.parent.glob("cache/**/*.npz"))


def _cut_off(path):
    picture(200, 200).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (_cut_off, "cut off"),
        (lambda path: path.write_text("not a picture"), "not a picture"),
        (lambda path: path.write_bytes(b""), "0 bytes"),
    ],
)
def test_a_broken_picture_is_one_line(folder, spoil, word):
    spoil(folder / "images" / "b.jpg")
    with pytest.raises(UserError) as caught:
        read(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("landmarks.csv line 3", "b.jpg", word):
        assert part in message


def test_other_mistakes(folder):
    with pytest.raises(UserError, match="no such file or folder"):
        read(folder / "gone")
    with pytest.raises(UserError, match=r"no landmarks\.csv"):
        read(folder / "images")
    with pytest.raises(UserError, match="did you mean 'points'"):
        read(folder, frame="point")
    for text, word in (("{", "JSON"), ("[]", "object"), ('{"name": "a"}', "points")):
        (folder / "schema.json").write_text(text)
        with pytest.raises(UserError, match=word) as caught:
            read(folder)
        assert "schema.json" in str(caught.value)
    (folder / "schema.json").write_text(json.dumps(Schema("mine", ("left", "right", "top")).to_dict()))
    with pytest.raises(UserError, match="'tip'"):
        read(folder)


@pytest.mark.skipif(not (SHARED / "faces68").is_dir(), reason="needs shared/data/faces68")
def test_the_shared_faces(tmp_path):
    lines = (SHARED / "faces68" / "landmarks.csv").read_text().splitlines()[:41]
    (tmp_path / "some.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "images").symlink_to(SHARED / "faces68" / "images")
    table = read_folder(tmp_path / "some.csv", tmp_path / "cache")
    assert table.schema == IBUG68
    assert table.images.shape == (40, 128, 128, 3)
    assert table.complete.all()
    extent = np.ptp(table.points, axis=1).max(1)
    np.testing.assert_allclose(extent, 128 / 1.6, rtol=1e-4)
