"""Write a submission for Kaggle's Facial Keypoints Detection."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from landmarks_fastai.data.kaggle import read_lookup, read_test
from landmarks_fastai.errors import UserError, nearest
from landmarks_fastai.files import replacing
from landmarks_fastai.inference.predictor import Predictor


def write_submission(predictor: Predictor, data: Path, out: Path) -> int:
    """Predict test.zip's faces and write RowId, Location for every row of IdLookupTable.csv, in order.

    Locations are clipped to 0 … 96, which is what the competition accepts.

    Returns
    -------
    int
        How many rows were written.

    Raises
    ------
    UserError
        If the data has no test faces or lookup table, or the table asks for what is not there.
    """
    ids, images = read_test(data)
    lookup = read_lookup(data)
    points = predictor.predict_crops(images).points
    face = {int(image_id): row for row, image_id in enumerate(ids)}
    column = {
        f"{name}_{axis}": (k, a)
        for k, name in enumerate(predictor.schema.points)
        for a, axis in enumerate("xy")
    }
    for feature in lookup["FeatureName"].unique():
        if feature not in column:
            raise UserError(
                f"IdLookupTable.csv asks for {feature!r}; the model's points: {nearest(feature, column)}"
            )
    unknown = lookup.loc[~lookup["ImageId"].isin(face), "ImageId"]
    if len(unknown):
        raise UserError(f"IdLookupTable.csv asks for ImageId {unknown.iloc[0]}, which test.csv does not have")
    rows = lookup["ImageId"].map(face).to_numpy()
    where = np.array([column[feature] for feature in lookup["FeatureName"]])
    locations = points[rows, where[:, 0], where[:, 1]].clip(0, images.shape[1])
    submission = lookup[["RowId"]].assign(Location=locations.round(4))
    with replacing(out) as part:
        submission.to_csv(part, index=False)
    return len(submission)
