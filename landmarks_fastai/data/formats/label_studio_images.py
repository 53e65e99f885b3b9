"""The image files of Label Studio's tasks, which refer to them by URLs of its server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from landmarks_fastai.data.formats.image_files import ImageFiles
from landmarks_fastai.utils.image_formats import SUFFIXES

LOCAL_FILES = "/data/local-files/"
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the names of uploaded files."""

MAX_PARTS = 30


def image_value(data: Mapping[str, object]) -> str | None:
    """Return the reference to the image in the data of a task; None if there is none.

    That is the value of ``image``, else the first one that ends in the suffix of an image.
    """
    value = data.get("image")
    if isinstance(value, str) and value.strip():
        return value
    texts = [each for each in data.values() if isinstance(each, str)]
    return next((each for each in texts if Path(file_names(each)[-1]).suffix.lower() in SUFFIXES), None)


def find_image(reference: str, images: ImageFiles) -> Path | None:
    """Return the path of the image of a task; None if there is no such file."""
    paths = (images.find(name) for name in file_names(reference))
    return next((path for path in paths if path is not None), None)


def file_names(reference: str) -> list[str]:
    """Return the paths and names under which an image may be found, the most specific first.

    Examples
    --------
    >>> file_names("/data/upload/3/0123abcd-face.jpg")
    ['/data/upload/3/0123abcd-face.jpg', '0123abcd-face.jpg', 'face.jpg']
    >>> file_names("/data/local-files/?d=faces/a%20b.jpg")
    ['faces/a b.jpg', '/faces/a b.jpg', 'a b.jpg']
    """
    path = _path(reference)
    names = [path]
    if LOCAL_FILES in reference:
        # relative to a document root that is not known here
        parts = path.strip("/").split("/")[-MAX_PARTS:]
        names += [f"/{path.lstrip('/')}", *("/".join(parts[i:]) for i in range(1, len(parts)))]
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return list(dict.fromkeys([*names, name, UPLOAD_PREFIX.sub("", name, count=1)]))


def _path(reference: str) -> str:
    """Return the path in a reference: a path, a URL or a local file of Label Studio's server."""
    try:
        parts = urlsplit(reference)
        if LOCAL_FILES in parts.path:
            return parse_qs(parts.query).get("d", [""])[0]
    except ValueError:  # not a URL
        return reference
    is_url = len(parts.scheme) > 1 or reference.startswith("/data/")  # "C:" is a drive
    return unquote(parts.path) if is_url else reference
