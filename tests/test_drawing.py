"""Where the paint lies: centres, hues, untouched pixels."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from landmarks_fastai import drawing as dr
from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.figures import schedule_figure
from landmarks_fastai.schema import IBUG68, KAGGLE15, Schema

NAN = float("nan")
DOT = Schema(name="dot", points=("nose",))
FACE = Schema(
    name="face",
    points=("left_eye", "right_eye", "chin"),
    flip_pairs=(("left_eye", "right_eye"),),
    lines=(("left_eye", "chin"),),
)


def flat(height: int, width: int, value: int = 128) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def hue(name: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(getattr(dr.STYLE, name)[1:]))


def at(picture: np.ndarray, x: float, y: float) -> tuple[int, ...]:
    return tuple(picture[round(y), round(x)].tolist())


def kaggle_points(size: int) -> np.ndarray:
    x = [66, 30, 59, 73, 37, 23, 57, 80, 39, 15, 48, 62, 34, 48, 48]
    y = [38, 38, 38, 38, 38, 38, 29, 30, 29, 30, 57, 74, 74, 71, 79]
    return (np.stack([x, y], axis=1) + 0.5) * size / 96 - 0.5


@pytest.mark.parametrize("size", [(48, 48), (700, 500), (60, 8000)])
@settings(max_examples=12, deadline=None)
@given(st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_a_dot_is_centred_on_its_point(size, x, y):
    height, width = size
    point = np.array([x * width, y * height])
    drawn = dr.draw_points(flat(height, width), [point], DOT).astype(int)
    painted = np.abs(drawn - 128).sum(axis=2)
    rows, columns = np.nonzero(painted)
    weights = painted[rows, columns]
    centroid = np.average(columns, weights=weights), np.average(rows, weights=weights)
    assert np.abs(np.array(centroid) - point).max() < 0.1
    assert np.hypot(columns - point[0], rows - point[1]).max() < 3 + 0.03 * min(size)  # and nowhere else


def test_dots_lie_on_the_right_points_with_the_hue_of_their_side():
    points = kaggle_points(960)
    drawn = dr.draw_points(np.zeros((960, 960, 3), np.uint8), points, KAGGLE15)
    for name, (x, y) in zip(KAGGLE15.points, points, strict=True):
        side = next((side for side in ("left", "right") if side in name), "middle")
        assert at(drawn, x, y) == hue(side), name


def test_the_sides_of_ibug68_are_the_subjects_own():
    points = np.stack(np.meshgrid(np.arange(9) * 60.0 + 30, np.arange(8) * 60.0 + 30), axis=2)
    points = points.reshape(-1, 2)[:68]
    drawn = dr.draw_points(flat(500, 560), points, IBUG68)
    assert at(drawn, *points[36]) == at(drawn, *points[0]) == hue("right")  # left half of the image
    assert at(drawn, *points[45]) == at(drawn, *points[16]) == hue("left")
    assert at(drawn, *points[30]) == hue("middle")


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 1), (60, 80, 3)])
def test_any_picture_becomes_rgb_and_is_left_as_it_was(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image.setflags(write=False)
    untouched = dr.draw_points(image, np.full((3, 2), NAN), FACE)
    assert untouched.shape == (60, 80, 3)
    np.testing.assert_array_equal(untouched, np.broadcast_to(image.reshape(60, 80, -1), (60, 80, 3)))
    drawn = dr.draw_points(image, [[20, 20], [NAN, NAN], [60, 40]], FACE)
    assert (drawn != untouched).any()
    np.testing.assert_array_equal(drawn[:10], untouched[:10])


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), hue("left"), hue("right"), hue("middle")])
def test_dots_can_be_seen_on_any_background(background):
    image = np.broadcast_to(np.array(background, np.uint8), (96, 96, 3))
    drawn = dr.draw_points(image, kaggle_points(96), KAGGLE15, lines=False).astype(int)
    for x, y in kaggle_points(96).astype(int):
        near = drawn[y - 3 : y + 5, x - 3 : x + 5].reshape(-1, 3)
        assert (near.max(axis=0) - near.min(axis=0)).max() > 120  # a bright dot or a dark outline


def test_lines_join_the_points_and_can_be_left_out():
    points = [[30, 20], [170, 20], [30, 180]]
    assert at(dr.draw_points(flat(200, 200), points, FACE), 30, 100) == hue("left")
    assert at(dr.draw_points(flat(200, 200), points, FACE, lines=False), 30, 100) == (128, 128, 128)
    # no line to a point that is not there
    points[2] = [NAN, NAN]
    assert at(dr.draw_points(flat(200, 200), points, FACE), 30, 100) == (128, 128, 128)


def test_a_point_that_the_model_doubts_is_hollow():
    points = kaggle_points(960)
    confidence = np.full(15, 0.9)
    confidence[[0, 10, 11]] = 0.49, NAN, 0.5
    drawn = dr.draw_points(flat(960, 960), points, KAGGLE15, confidence=confidence, lines=False)
    assert at(drawn, *points[0]) == hue("outline")
    ring = drawn[round(points[0][1]), round(points[0][0]) :].astype(int)
    assert (np.abs(ring - hue("left")).max(axis=1) <= 2).any()
    filled = dr.draw_points(flat(960, 960), points, KAGGLE15, lines=False)
    changed = np.argwhere((drawn != filled).any(axis=2))[:, ::-1]
    assert np.hypot(*(changed - points[0]).T).max() < 20  # all others are filled as ever


def test_truth_is_a_ring_joined_to_the_prediction():
    drawn = dr.draw_points(flat(400, 400), [[100, 200]], DOT, truth=[[300, 200]])
    assert at(drawn, 100, 200) == hue("middle")
    assert at(drawn, 200, 200) == hue("truth")  # half way: the error line
    right = drawn[200, 301:, :].astype(int)
    assert (right == 255).all(axis=1).any()  # the ring
    untold = dr.draw_points(flat(400, 400), [[100, 200]], DOT, truth=[[NAN, NAN]])
    assert at(untold, 200, 200) == (128, 128, 128)


def test_widths_follow_the_spread_of_the_points():
    def painted(size: int) -> float:
        drawn = dr.draw_points(flat(size, size), kaggle_points(size), KAGGLE15)
        return float((drawn != 128).any(axis=2).mean())

    assert painted(1920) == pytest.approx(painted(960), rel=0.05)  # edges are blurred by a pixel
    small_face = dr.draw_points(flat(1920, 1920), kaggle_points(480), KAGGLE15)
    assert (small_face != 128).any(axis=2).sum() == pytest.approx(painted(480) * 480**2)


@given(st.lists(st.floats(-80, 260), min_size=4, max_size=4), st.floats(0.3, 12))
@settings(max_examples=60, deadline=None)
def test_a_stroke_is_the_plain_formula_whatever_its_slabs(ends, radius):
    start, end = np.array(ends[:2]), np.array(ends[2:])
    canvas = np.zeros((150, 190, 3), np.uint8)
    dr._stroke(canvas, start, end, radius, "#FFFFFF")
    y, x = np.mgrid[:150, :190]
    way = end - start
    along = np.clip(((x - start[0]) * way[0] + (y - start[1]) * way[1]) / max(way @ way, 1e-12), 0, 1)
    distance = np.hypot(x - start[0] - along * way[0], y - start[1] - along * way[1])
    wanted = 255 * np.clip(radius + 0.5 - distance, 0, 1)
    assert np.abs(canvas[..., 0] - wanted).max() <= 0.51


def test_points_far_outside_are_no_harm():
    drawn = dr.draw_points(flat(64, 64), [[1e12, -1e12], [-1e12, 1e12], [np.inf, 3]], FACE)
    assert (drawn == 128).all()
    half = dr.draw_points(flat(64, 64), [[-0.5, 30], [30, 30], [40, 63.4]], FACE)
    assert at(half, 0, 30) != (128, 128, 128)


def test_names_are_written_where_there_is_room_only():
    point = [[150, 60]]
    plain = dr.draw_points(flat(120, 300), point, DOT)
    named = dr.draw_points(flat(120, 300), point, DOT, names=True)
    assert (named != plain).any()
    tiny = [[10, 10]]
    np.testing.assert_array_equal(
        dr.draw_points(flat(20, 20), tiny, DOT, names=True), dr.draw_points(flat(20, 20), tiny, DOT)
    )


def test_names_do_not_lie_on_each_other():
    size = (60, 12)
    taken: list[dr.Box] = []
    for x in (100.0, 104.0, 108.0, 112.0):
        rooms = dr._rooms(np.array([x, 100.0]), np.array([1.0, 0.0]), size, 4, 12)
        taken.append(next(box for box, _ in rooms if not any(dr._overlap(box, other) for other in taken)))
    assert len(taken) == 4
    assert taken[0][0] == pytest.approx(104)  # outward, to the right, where nothing was yet


def test_bad_pictures_and_points_are_told():
    with pytest.raises(UserError, match="uint8"):
        dr.draw_points(np.zeros((9, 9)), [[1, 1]], DOT)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"\(H, W"):
        dr.draw_points(np.zeros((9, 9, 4), np.uint8), [[1, 1]], DOT)
    with pytest.raises(UserError, match=r"dot needs points \(1, 2\)"):
        dr.draw_points(flat(9, 9), [[1, 1], [2, 2]], DOT)


def test_a_sheet_enlarges_about_pixel_centres():
    images = np.full((3, 96, 96, 1), 90, np.uint8)
    points = np.stack([kaggle_points(96)] * 3)
    page = dr.sheet(images, points, KAGGLE15, columns=2, scale=4)
    gap = dr.STYLE.gap
    assert page.shape[1] == 2 * 384 + 3 * gap
    for left, top in ((gap, gap), (2 * gap + 384, gap), (gap, 2 * gap + 384)):
        x, y = (kaggle_points(96)[0] + 0.5) * 4 - 0.5
        assert at(page, left + x, top + y) == hue("left")
    assert at(page, 2 * gap + 384 + 5, 2 * gap + 384 + 5) == (255, 255, 255)  # there is no fourth face


@pytest.mark.parametrize("scale", [1, 2, 5, None])
def test_a_sheets_dot_is_centred_on_the_enlarged_pixel(scale):
    page = dr.sheet([flat(90, 90)], [[[30.25, 50.5]]], DOT, scale=scale).astype(int)
    side, gap = page.shape[1] - 2 * dr.STYLE.gap, dr.STYLE.gap
    assert side == (dr.STYLE.cell if scale is None else 90 * scale)
    rows, columns = np.mgrid[:side, :side]
    painted = np.abs(page[gap : gap + side, gap : gap + side] - 128).sum(axis=2)
    centroid = np.array([np.average(columns, weights=painted), np.average(rows, weights=painted)])
    wanted = np.array([30.75, 51.0]) * side / 90 - 0.5
    assert np.abs(centroid - wanted).max() < 0.1


def test_a_sheet_takes_pictures_of_all_sizes_and_says_what_the_hues_mean():
    images = [flat(48, 40), np.zeros((300, 500, 3), np.uint8), flat(96, 96)]
    points = [[[10, 10], [30, 10], [20, 30]]] * 3
    captions = ["first", "a caption that is far too long for the face above it", "líne\nbreak"]
    bare = dr.sheet(images, points, FACE)
    told = dr.sheet(images, points, FACE, truth=[np.full((3, 2), NAN)] * 3, titles=captions, columns=3)
    assert bare.shape[1] == told.shape[1] == 3 * dr.STYLE.cell + 4 * dr.STYLE.gap
    assert told.shape[0] > bare.shape[0]
    for name in ("left", "right", "middle"):
        assert (told[-20:] == hue(name)).all(axis=2).any()
    assert (told[:, -dr.STYLE.gap :] == 255).all()  # no caption runs over the edge


def test_captions_are_shortened_to_their_width():
    assert dr._shortened("row 7", 200, 13) == "row 7"
    short = dr._shortened("a caption that is far too long", 100, 13)
    assert short.endswith("…")
    assert dr._text_box(short, 13)[0] <= 100


def test_a_bad_sheet_is_told():
    with pytest.raises(UserError, match="no face"):
        dr.sheet([], [], DOT)
    with pytest.raises(UserError, match="2 images needs 2 titles, not 1"):
        dr.sheet([flat(9, 9)] * 2, [[[1, 1]]] * 2, DOT, titles=["one"])
    with pytest.raises(UserError, match="scale 1"):
        dr.sheet([flat(9, 9)], [[[1, 1]]], DOT, scale=0)


def test_save_png_writes_pictures_and_figures(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    dr.save_png(tmp_path / "picture.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "picture.png")), picture)
    figure = schedule_figure([1e-3, 1e-2])
    dr.save_png(str(tmp_path / "figure.png"), figure)
    width, height = figure.get_size_inches() * dr.STYLE.dpi
    with Image.open(tmp_path / "figure.png") as written:
        assert written.size == pytest.approx((width, height), abs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "picture.png"]


def test_a_full_disk_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "curves.png"
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"curves\.png: can't be written \(No space left on device\)"):
        dr.save_png(target, flat(4, 4))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_missing_folder_is_made_and_a_file_in_its_place_is_told(tmp_path):
    dr.save_png(tmp_path / "new" / "curves.png", flat(4, 4))
    assert (tmp_path / "new" / "curves.png").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"curves\.png: can't be written"):
        dr.save_png(tmp_path / "file" / "curves.png", flat(4, 4))
