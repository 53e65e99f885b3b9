"""Summary of a data set: row counts, label counts, flip pairs, duplicates and label issues."""

from __future__ import annotations

from dataclasses import dataclass

from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.duplicates import count_duplicates
from landmarks_fastai.data.label_checks import check_labels
from landmarks_fastai.data.label_issues import LabelIssue


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
    flip_pairs
        Pairs of landmarks that are exchanged in mirrored images.
    notes
        What was left out or assumed while reading, and one line for each kind of problem of the labels.
    issues
        Suspicious labels, the highest score first; see `check_labels`.
    """

    rows: int
    size: int
    channels: int
    labeled: dict[str, int]
    complete: int
    duplicates: int
    flip_pairs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    issues: tuple[LabelIssue, ...]


def summarize(dataset: LandmarkDataset) -> DatasetSummary:
    """Count rows, labels and duplicates, and search for suspicious labels.

    Raises
    ------
    UserError
        If the coordinates are normalized; see `check_labels`.
    """
    checks = check_labels(dataset)
    counts = dataset.labeled.sum(axis=0).tolist()
    return DatasetSummary(
        rows=len(dataset),
        size=dataset.size,
        channels=dataset.channels,
        labeled=dict(zip(dataset.schema.names, counts, strict=True)),
        complete=int(dataset.complete.sum()),
        duplicates=count_duplicates(dataset),
        flip_pairs=dataset.schema.flip_pairs,
        notes=(*dataset.notes, *(note for note in checks.notes if note not in dataset.notes)),
        issues=checks.issues,
    )
