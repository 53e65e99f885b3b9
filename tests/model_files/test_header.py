"""The model header: its JSON, its validation, and files of other versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import HEADER_KEY, ModelHeader, read_header
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
