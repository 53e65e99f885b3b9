"""The command `submit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from landmarks_fastai.cli import run
from landmarks_fastai.data.formats.kaggle import read_lookup, read_test
from landmarks_fastai.inference.ensemble import open_predictors
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.schemas import KAGGLE15


def check_submission(path: Path, data: Path, points: NDArray[np.float32]) -> None:
    """Compare every row of a submission with the predicted points."""
    image_ids, _ = read_test(data)
    image_row = {int(image_id): row for row, image_id in enumerate(image_ids)}
    lines = path.read_text().splitlines()
    assert lines[0] == "RowId,Location"
    lookup = read_lookup(data)
    assert len(lines) == len(lookup) + 1
    for line, (row_id, image_id, feature) in zip(lines[1:], lookup.itertuples(index=False), strict=True):
        name, _, axis = feature.rpartition("_")
        value = points[image_row[image_id], KAGGLE15.names.index(name), "xy".index(axis)]
        written_id, _, location = line.partition(",")
        assert int(written_id) == row_id
        assert float(location) == pytest.approx(min(max(float(value), 0.0), 96.0), abs=1e-4)


def test_submit_writes_predictions(
    workspace: Path,
    predictor: Predictor,
    kaggle_archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "deep" / "submission.csv"
    arguments = ["submit", "runs/quick", "--data", str(kaggle_archive), "--out", str(out), "--device", "cpu"]
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"100 rows written to {out}\n"
    check_submission(out, kaggle_archive, predictor.predict_batch(read_test(kaggle_archive)[1]).points)


def test_submit_refuses_existing_file(
    workspace: Path, kaggle_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "submission.csv"
    out.write_text("earlier")
    arguments = ["submit", "runs/quick", "--data", str(kaggle_archive), "--out", str(out)]
    assert run(arguments) == 2
    assert (
        capsys.readouterr().err == f"error: {out}: already exists; choose another --out, or use --overwrite\n"
    )
    assert out.read_text() == "earlier"
    assert run([*arguments, "--overwrite"]) == 0
    assert len(pd.read_csv(out)) == 100


def test_submit_averages_folds(fold_models: Path, kaggle_archive: Path, tmp_path: Path) -> None:
    members = [fold_models / f"fold-{fold}" / "model.safetensors" for fold in (1, 2)]
    out = tmp_path / "submission.csv"
    arguments = ["submit", str(fold_models), "--data", str(kaggle_archive), "--device", "cpu"]
    assert run([*arguments, "--out", str(out)]) == 0
    expected = open_predictors(members, "cpu").predict_batch(read_test(kaggle_archive)[1])
    check_submission(out, kaggle_archive, expected.points)


def test_submit_clips_locations_to_image(
    workspace: Path,
    predictor: Predictor,
    kaggle_archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predicted = predictor.predict_batch(read_test(kaggle_archive)[1])
    scattered = predicted.points * 9 - 400
    assert (scattered < 0).any()
    assert (scattered > 96).any()
    monkeypatch.setattr(Predictor, "predict_batch", lambda *_: replace(predicted, points=scattered))
    out = tmp_path / "submission.csv"
    assert run(["submit", "runs/quick", "--data", str(kaggle_archive), "--out", str(out)]) == 0
    check_submission(out, kaggle_archive, scattered)
    assert pd.read_csv(out)["Location"].between(0, 96).all()


def test_submit_development_data_has_all_rows(workspace: Path, kaggle_zip: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    assert run(["submit", "runs/quick", "--data", str(kaggle_zip), "--out", str(out)]) == 0
    submission = pd.read_csv(out)
    assert list(submission) == ["RowId", "Location"]
    assert len(submission) == 16_560
    assert submission["RowId"].tolist() == read_lookup(kaggle_zip)["RowId"].tolist()
    assert submission["Location"].between(0, 96).all()
