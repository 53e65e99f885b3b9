"""Fixtures of the prediction of shards."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from landmarks_fastai.batch_inference.prediction import Job


def encoded_image(seed: int, size: tuple[int, int] = (60, 50)) -> bytes:
    """Return a random image as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with 1.png to 5.png, two of them in a subfolder, and an unreadable one."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(1, 6):
        place = folder if number < 4 else folder / "more"
        (place / f"{number}.png").write_bytes(encoded_image(number))
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def memory_url() -> Iterator[str]:
    """Return the URL of a folder in fsspec's memory."""
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    fs, path = fsspec.url_to_fs(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


@pytest.fixture
def job(tmp_path: Path, model_path: Path) -> Job:
    """Return a job with a small model and the center crop of each image."""
    return Job(
        out=str(tmp_path / "out"),
        models=(str(model_path),),
        device="cpu",
        trust_pickle=False,
        backend="torch",  # of random weights; ONNX Runtime differs more than is allowed
        detector="none",
        refine=0,
        min_confidence=0.0,
    )
