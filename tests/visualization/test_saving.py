"""Saving images and figures as PNG: exact pixels, atomic writes, and errors in one line."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.drawing import gray_image
from PIL import Image

from landmarks_fastai.errors import RunError, UserError
from landmarks_fastai.visualization.saving import STRIP, encode_png, save_png
from landmarks_fastai.visualization.style import STYLE
from landmarks_fastai.visualization.training_plots import plot_schedule


def test_saved_image_and_figure_have_their_pixels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    save_png(tmp_path / "image.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "image.png")), image)
    figure = plot_schedule([1e-3, 1e-2])
    save_png(str(tmp_path / "figure.png"), figure)
    width, height = figure.get_size_inches() * STYLE.dpi
    with Image.open(tmp_path / "figure.png") as saved:
        assert saved.size == pytest.approx((width, height), abs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "image.png"]


@pytest.mark.parametrize("shape", [(1, 1, 3), (STRIP, 7, 3), (2 * STRIP + 5, 9, 3), (STRIP + 1, 4)])
def test_encoded_image_has_its_pixels_across_strips(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    for view in (image, image[:, ::-1]):
        with Image.open(io.BytesIO(encode_png(view))) as decoded:
            decoded.load()  # checks the checksums
            np.testing.assert_array_equal(np.asarray(decoded), view)


def test_saving_to_full_disk_keeps_existing_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "curves.png"
    target.write_bytes(b"existing file")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=r"curves\.png: cannot be written \(No space left on device\)"):
        save_png(target, gray_image(4, 4))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"existing file"]


def test_saving_creates_missing_folder(tmp_path: Path) -> None:
    save_png(tmp_path / "new" / "curves.png", gray_image(4, 4))
    assert (tmp_path / "new" / "curves.png").is_file()


def test_saving_into_file_instead_of_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"curves\.png: cannot be written"):
        save_png(tmp_path / "file" / "curves.png", gray_image(4, 4))
