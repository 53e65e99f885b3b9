"""Summary of a data set: row counts, label counts, duplicates and label issues."""

from __future__ import annotations

from dataclasses import dataclass

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.label_checks import LabelIssue, find_label_issues


@dataclass(frozen=True)
class DatasetSummary:
    """Summary of a data set.

    Parameters
    ----------
    rows
        Number of rows.
    size
        Side of the images, pixels.
    channels
        1 (gray) or 3 (RGB).
    labeled
        Number of rows in which each landmark is labeled, by landmark name, in the order of the schema.
    complete
        Number of rows with all landmarks labeled.
    duplicates
        Number of images that equal an earlier image pixel for pixel.
    issues
        Suspicious labels, the highest score first; see `find_label_issues`.
    """

    rows: int
    size: int
    channels: int
    labeled: dict[str, int]
    complete: int
    duplicates: int
    issues: tuple[LabelIssue, ...]


def summarize(dataset: LandmarkDataset) -> DatasetSummary:
    """Count rows, labels and duplicates, and search for suspicious labels."""
    counts = dataset.labeled.sum(axis=0).tolist()
    return DatasetSummary(
        rows=len(dataset),
        size=dataset.size,
        channels=dataset.channels,
        labeled=dict(zip(dataset.schema.names, counts, strict=True)),
        complete=int(dataset.complete.sum()),
        duplicates=len(dataset) - len(set(dataset.image_digests())),
        issues=tuple(find_label_issues(dataset)),
    )
