"""The user's cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarks_fastai.utils.cache_folder import default_cache_dir


def test_default_cache_dir_follows_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LANDMARKS_FASTAI_CACHE", raising=False)
    assert default_cache_dir().name == "landmarks-fastai"
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", str(tmp_path / "cache"))
    assert default_cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("LANDMARKS_FASTAI_CACHE", "~/cache")
    assert default_cache_dir() == Path.home() / "cache"
