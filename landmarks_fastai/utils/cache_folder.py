"""The user's cache folder, for data sets, downloads and prepared models."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """Return the cache folder: LANDMARKS_FASTAI_CACHE, or the user cache folder if it is not set."""
    folder = os.environ.get("LANDMARKS_FASTAI_CACHE")
    if folder:
        return Path(folder).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("landmarks-fastai", appauthor=False)
