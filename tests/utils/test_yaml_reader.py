"""Reading YAML: one-line errors for damaged and hostile files, no aliases."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import yaml_reader
from landmarks_fastai.utils.yaml_reader import read_yaml

DAMAGED = Path(__file__).resolve().parents[3] / "shared" / "cases" / "damaged"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_read_yaml_reads_encodings(tmp_path, encoding):
    path = tmp_path / "data.yaml"
    path.write_bytes("é: [1.5, null]\nname: &anchor a\n".encode(encoding))
    assert read_yaml(path) == {"é": [1.5, None], "name": "a"}


def test_read_yaml_empty_file_is_none(tmp_path):
    (tmp_path / "data.yaml").touch()
    assert read_yaml(tmp_path / "data.yaml") is None


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{'*a' + str(i - 1)}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: *b", "line 1, column 4: not usable as YAML .*alias"),
        (BOMB, "line 2, column 10: .*alias"),
        ("a: &x 1\nb: {<<: *x}", "line 2, column 9: .*alias"),
        ("a: 1\n b: 2", "line 2"),
        ("a: [1", "not usable as YAML"),
        ("a: !!int x", "put text in quotes"),
        ("a: !!float y", "put text in quotes"),
        ("a: !!bool x", "put text in quotes"),
        ("a: !!timestamp z", "put text in quotes"),
        ("a: !!map [a]", "not usable as YAML"),
        ("a: 2001-13-45", "put text in quotes"),
        ("a: 0b_", "put text in quotes"),
        ("a: " + "9" * 5000, "too many digits"),
        ("a: 0x" + "f" * 5000, "too many digits"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2, column 11: .*duplicate key 'c'"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("a: !!python/object/apply:os.system [ls]", "not usable as YAML"),
        ("{[a]: 1}", "not usable as YAML"),
        ("[" * 3000, "nested too deeply"),
        ('{"a":' * 3000, "nested too deeply"),
        ("a: \0", "UTF-8"),
        ("--- 1\n--- 2", "not usable as YAML"),
    ],
)
def test_read_yaml_unusable_content_raises_one_line_message(tmp_path, text, words):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_yaml(path)
    check_message(error, path)


def check_message(error, path):
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert len(message) < len(str(path)) + 250


def test_read_yaml_wrong_encoding_raises(tmp_path):
    (tmp_path / "data.yaml").write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="UTF-8"):
        read_yaml(tmp_path / "data.yaml")


def test_read_yaml_too_large_or_missing_file_raises(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_bytes(b"#" * (yaml_reader.MAX_BYTES + 1))
    with pytest.raises(UserError, match=r"limit is 0\.5 MB"):
        read_yaml(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "missing.yaml")


@pytest.mark.skipif(not DAMAGED.is_dir(), reason="needs shared/cases")
def test_read_yaml_damaged_files_raise_one_line_message():
    paths = sorted(DAMAGED.glob("*.yaml"))
    messages = [message for path in paths if (message := message_of(path)) is not None]
    assert len(messages) >= 10  # the others are valid YAML, although not valid configs
    assert all("\n" not in message and len(message) < 400 for message in messages)


def message_of(path):
    try:
        read_yaml(path)
    except UserError as error:
        return str(error)
    return None
