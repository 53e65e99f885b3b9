"""Fixtures of the video tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.clips import write_gray_clip


@pytest.fixture
def fifty_frames(tmp_path: Path) -> Path:
    """Write two seconds of gray frames with a key frame every 16 frames, so that seeking has a target."""
    return write_gray_clip(tmp_path / "fifty.mp4", 50, options={"g": "16"})
