"""Write a submission for Kaggle's Facial Keypoints Detection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from landmarks_fastai.data.formats.kaggle import read_lookup, read_test
from landmarks_fastai.data.sources import KAGGLE, download_kaggle
from landmarks_fastai.errors import UserError
from landmarks_fastai.inference.ensemble import open_predictors
from landmarks_fastai.inference.predictor import Predictor
from landmarks_fastai.model_files.discovery import resolve_models
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.files import atomic_write
from landmarks_fastai.utils.progress import Progress, announce
from landmarks_fastai.utils.text import suggest


def submit(
    models: Sequence[str | Path],
    out: str | Path,
    data: str | Path = KAGGLE,
    *,
    overwrite: bool = False,
    device: str = "auto",
    trust_pickle: bool = False,
    backend: str = "auto",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> int:
    """Predict the test images of the competition with one model or an ensemble, and write the submission.

    Parameters
    ----------
    models
        Runs, model files or names of released models.
    out
        The CSV to write.
    data
        "kaggle", Kaggle's zip, or a folder with its files.
    overwrite
        Replace an existing file.
    device, trust_pickle, backend
        See `Predictor.open`.
    cache
        Folder for downloads; the user's cache folder if None.
    progress
        Called with the bytes of a download, done and in total.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    UserError
        If `out` exists or a model cannot be opened; see also `write_submission`.
    RunError
        If a download fails or the file cannot be written.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise UserError(f"{out}: already exists; choose another --out, or use --overwrite")
    note = partial(announce, progress)
    predictor = open_predictors(resolve_models(models), device, trust_pickle, backend, note)
    if data == KAGGLE:
        data = download_kaggle(default_cache_dir() if cache is None else cache, progress)
    return write_submission(predictor, Path(data), out)


def write_submission(predictor: Predictor, data: Path, out: Path) -> int:
    """Predict the test images and write RowId and Location of every row of IdLookupTable.csv, in its order.

    Locations are clipped to the image, 0 to 96, as the competition requires.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    UserError
        If the data has no test images or no lookup table, or the table names an image or a landmark that does
        not exist.
    """
    image_ids, images = read_test(data)
    lookup = read_lookup(data)
    points = predictor.predict_batch(images).points
    image_row = {int(image_id): row for row, image_id in enumerate(image_ids)}
    coordinates = {
        f"{name}_{axis}": (landmark, index)
        for landmark, name in enumerate(predictor.schema.names)
        for index, axis in enumerate("xy")
    }
    for feature in lookup["FeatureName"].unique():
        if feature not in coordinates:
            raise UserError(
                f"IdLookupTable.csv: the model does not predict {feature!r}; {suggest(feature, coordinates)}"
            )
    unknown = lookup.loc[~lookup["ImageId"].isin(image_row), "ImageId"]
    if len(unknown):
        raise UserError(
            f"IdLookupTable.csv: ImageId {unknown.iloc[0]} is not in test.csv; use matching files"
        )
    rows = lookup["ImageId"].map(image_row).to_numpy()
    landmarks, axes = np.array([coordinates[feature] for feature in lookup["FeatureName"]]).T
    locations = points[rows, landmarks, axes].clip(0, images.shape[1])
    submission = lookup[["RowId"]].assign(Location=locations.round(4))
    with atomic_write(out) as partial:
        submission.to_csv(partial, index=False)
    return len(submission)
