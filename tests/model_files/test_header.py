"""The model header: its JSON, its validation, and files of other versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import (
    HEADER_KEY,
    MAX_HEADER_BYTES,
    ModelHeader,
    check_format,
    read_header,
)
from landmarks_fastai.schemas import IBUG68, KAGGLE15

PATH = Path("model.safetensors")


def test_header_from_dict_inverts_to_dict(header: ModelHeader) -> None:
    loaded = ModelHeader.from_dict(json.loads(json.dumps(header.to_dict())), PATH)
    assert loaded == header
    assert loaded.landmark_schema == KAGGLE15
    assert header.to_dict()["schema"] == KAGGLE15.to_dict()
    changed = header.model_copy(update={"landmark_schema": IBUG68})
    assert changed.to_dict()["schema"] == IBUG68.to_dict()


@pytest.mark.parametrize(
    "entries",
    [
        {"channels": 2},
        {"std": [1, 1, 0]},
        {"mean": [0.5]},
        {"color": 1},
        {"scale_factor": 0},
        {"mean_shape": [(0.5, 0.5)]},
    ],
)
def test_header_with_invalid_entry_is_refused(header: ModelHeader, entries: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelHeader.model_validate({**header.to_dict(), **entries})


def test_header_without_scale_factor_does_not_change_scales(header: ModelHeader) -> None:
    entries = header.to_dict()
    del entries["scale_factor"]
    assert ModelHeader.from_dict(entries, PATH).scale_factor == 1


@pytest.mark.parametrize(
    ("source", "synthetic"), [("synthetic", True), ("kaggle", False), ("faces.zip", False)]
)
def test_header_of_synthetic_data_is_synthetic(header: ModelHeader, source: str, synthetic: bool) -> None:
    assert header.model_copy(update={"config": {"data": {"source": source}}}).synthetic is synthetic
    assert not header.model_copy(update={"config": {}}).synthetic


def test_header_of_version_0_1_is_refused_in_one_line(header: ModelHeader) -> None:
    # version 0.1 also had other field names
    entries = {**header.to_dict(), "format": 1, "recipe": {}, "label_shift": 0.0}
    del entries["config"], entries["label_bias"]
    with pytest.raises(UserError) as caught:
        read_header({HEADER_KEY: json.dumps(entries)}, PATH)
    message = str(caught.value)
    assert message.startswith("model.safetensors: written by landmarks-fastai 0.1, which version ")
    assert message.endswith(" cannot read; train again")
    assert "\n" not in message


def test_header_of_newer_version_is_refused(header: ModelHeader) -> None:
    with pytest.raises(UserError, match=r"model.safetensors: has format 3, .* update landmarks-fastai"):
        ModelHeader.from_dict({**header.to_dict(), "format": 3, "new": "field"}, PATH)


def test_metadata_without_header_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.safetensors: not a landmarks-fastai model"):
        read_header({"format": "pt"}, PATH)


def read_entries(entries: dict[str, Any]) -> ModelHeader:
    return read_header({HEADER_KEY: json.dumps(entries)}, PATH)


LONG = "x" * 1_000_000

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"arch": LONG}, "arch .*at most 100 characters"),
        ({"head": {"name": LONG}}, "head .*name must be true, false, a name"),
        ({"head": {"name": "linear", "hidden": 10**9}}, "hidden must be .* from 1 to 65,536"),
        ({"head": {"name": "linear", "hidden": 0}}, "hidden must be"),
        ({"head": {"name": "linear", "hidden": 1.5}}, "hidden must be"),
        ({"head": {LONG: [1]}}, "head .*x…x.* must be"),
        ({"input_size": 100_000}, "input_size .*less than or equal to 1024"),
        ({"mean": [NAN, 0, 0]}, "mean.0 .*finite"),
        ({"std": [INFINITY, 1, 1]}, "std.0 .*finite"),
        ({"std": [1e-300, 1, 1]}, "std.0 .*greater than or equal to"),
        ({"scale_factor": 1e300}, "scale_factor"),
        ({"mean_shape": [[1e300, 0]] * 15}, "mean_shape must be fractions"),
        ({"mean_shape": [[INFINITY, 0]] * 15}, "mean_shape must be fractions"),
        ({"config": {"data": []}}, "config .*data must be a mapping"),
        ({"config": {"model": "resnet18"}}, "config .*model must be a mapping"),
        ({"config": []}, "config"),
        (
            {"schema": {"name": "many", "names": [f"p{k}" for k in range(20_000)]}},
            "20,000 landmarks; at most",
        ),
        ({"schema": {"name": "a", "names": ["\ud800"]}}, "its text is not Unicode"),
        ({LONG: 1}, "x…x.*not permitted"),
    ],
)
def test_header_with_absurd_entry_is_refused_in_one_short_line(
    header: ModelHeader, entries: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=f"model.safetensors: invalid header: .*{words}") as caught:
        read_entries({**header.to_dict(), **entries})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{" + '"a":{' * 100_000, "nested too deeply"),
        ('{"format": ' + "[" * 50_000, "nested too deeply"),
        ('{"format": ' + "9" * 5000 + "}", "too many digits"),
        ("{", "not JSON"),
        ("[2]", "not a JSON object"),
        (" " * (MAX_HEADER_BYTES + 1), "its header has 10 MB"),
    ],
)
def test_header_that_is_not_usable_json_is_refused_in_one_short_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_header({HEADER_KEY: text}, PATH)
    assert str(caught.value).startswith("model.safetensors")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("version", [None, "2", 2.0, True, 0, -1, [2], "x" * 1000])
def test_format_that_is_not_a_version_is_called_damaged(version: object) -> None:
    with pytest.raises(UserError, match=r"run: damaged: its format version is .* instead of 2") as caught:
        check_format(version, Path("run"))
    assert len(str(caught.value)) < 200


def test_format_of_the_far_future_is_refused_in_one_short_line() -> None:
    with pytest.raises(UserError, match=r"has format 9.*…9.*, .*update landmarks-fastai") as caught:
        check_format(int("9" * 4000), Path("run"))
    assert len(str(caught.value)) < 250
    check_format(2, Path("run"))


def test_mean_shape_may_have_unlabeled_landmarks(header: ModelHeader) -> None:
    shape = [[NAN, NAN], *[[0.5, 0.25]] * 14]
    read = read_entries({**header.to_dict(), "mean_shape": shape}).mean_shape
    assert read is not None
    assert read[1] == (0.5, 0.25)
    assert read[0][0] != read[0][0]
