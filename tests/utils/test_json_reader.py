"""Reading JSON: encodings, and one-line errors for damaged and hostile files."""

from __future__ import annotations

import os

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import json_reader
from landmarks_fastai.utils.json_reader import read_json


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
def test_read_json_reads_every_unicode_encoding(tmp_path, encoding):
    path = tmp_path / "labels.json"
    path.write_bytes('{"é": [1.5, null]}'.encode(encoding))
    assert read_json(path) == {"é": [1.5, None]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"a": 1,\n "b" 2}', "line 2, column 6: not JSON"),
        (b"[" * 101 + b"]" * 101, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 5000, "too many digits"),
        (b'{"a": "\xff"}', "save it as UTF-8"),
        (b"\xff\xfe\x00", "save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "save it as UTF-8"),
    ],
)
def test_read_json_unusable_content_raises_one_line_message(tmp_path, content, words):
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read_json(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert len(message) < len(str(path)) + 200


def test_read_json_missing_file_or_folder_raises(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "missing.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_read_json_too_large_file_raises_without_reading_it(tmp_path):
    path = tmp_path / "labels.json"
    path.touch()
    os.truncate(path, json_reader.MAX_BYTES + 1)  # a sparse file
    with pytest.raises(UserError, match="2 GB"):
        read_json(path)
