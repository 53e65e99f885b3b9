"""Search for suspicious labels: impossible positions, swapped landmarks, and unusual shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.data.annotation_checks import (
    check_coordinates,
    find_placeholders,
    name_rows,
    row_blocks,
)
from landmarks_fastai.data.dataset import LandmarkDataset
from landmarks_fastai.data.duplicates import count_duplicates
from landmarks_fastai.data.label_issues import IssueKind, IssueTally, LabelIssue
from landmarks_fastai.data.shape_model import (
    MIN_LABELED,
    AlignedRows,
    ShapeModel,
    fit_shape_model,
    spaced,
)
from landmarks_fastai.geometry import Complex, Floats, outside_square, to_complex
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.utils.text import format_count

Mask = NDArray[np.bool_]

SUSPICIOUS = 6.0
"""Distance from the usual shape, in robust standard deviations, from which a landmark is reported: about
0.1 % of correctly labeled landmarks."""

MIN_ROWS = 8
"""Minimum number of rows for a usual shape."""

MAX_ROWS = 2000
"""The usual shape is estimated from at most this many rows, evenly spaced."""

MIN_SEPARATION = 0.3
"""Landmarks that are closer in the usual shape, relative to its radius, may share a pixel."""

MAX_REFLECTED = 0.1
"""If more of the rows are mirror images of the usual shape, objects are seen from both sides, and it is no
error."""

CONVENTION = 0.9
"""If more of the rows have left and right swapped, it is no error: the names follow another convention."""

VIEWERS_SIDES = (
    "left and right are those of the viewer, not the subject's, in most rows, or the images are mirrored:"
    " harmless in training, but other models use the subject's"
)

MANY_DUPLICATES = 0.05
"""Fraction of duplicates from which they are mentioned."""


@dataclass(frozen=True)
class LabelChecks:
    """Result of the checks of a data set's labels.

    Parameters
    ----------
    notes
        One line for each kind of problem, for the user.
    issues
        The suspicious labels, the highest score first; at most `MAX_ISSUES`.
    """

    notes: tuple[str, ...]
    issues: tuple[LabelIssue, ...]


def check_labels(dataset: LandmarkDataset) -> LabelChecks:
    """Check the labels of a data set.

    Each row is aligned with the usual shape by a robust similarity fit (least absolute distances, so that a
    wrong landmark does not displace the others), and its pose and expression are removed. The issues are:

    - landmarks at least `SUSPICIOUS` robust standard deviations from their position in the usual shape; a row
      with as many of them as others is reported as a whole
    - flip pairs that fit the usual shape only if their landmarks are exchanged
    - rows that fit only the mirror image of the usual shape, unless many do
    - two landmarks on one pixel that are apart in the usual shape, or all landmarks at one position
    - landmarks outside the image

    Except the last one, the checks need at least `MIN_ROWS` rows with at least three labeled landmarks. The
    usual shape is estimated as described at `fit_shape_model`; landmarks at (0, 0) and (-1, -1) are ignored.
    The notes also mention these, landmarks that no row labels, and duplicates.

    Raises
    ------
    UserError
        If the coordinates are normalized; see `check_coordinates`.
    """
    notes = check_coordinates(dataset.points, dataset.names, dataset.source)
    notes += [*_unlabeled_landmarks(dataset), *_duplicates(dataset)]
    tally = IssueTally(dataset.names)
    for row, issue in _landmarks_outside_image(dataset):
        tally.add(row, issue)
    notes += _compare_with_usual_shape(dataset, tally)
    return LabelChecks((*notes, *tally.notes()), tally.ranked())


def find_label_issues(dataset: LandmarkDataset) -> list[LabelIssue]:
    """Return the suspicious labels, the highest score first; see `check_labels`."""
    return list(check_labels(dataset).issues)


# --- landmarks and images ------------------------------------------------------------------------


def _unlabeled_landmarks(dataset: LandmarkDataset) -> Iterator[str]:
    """Yield a line for the landmarks that no row labels."""
    if not len(dataset):
        return
    labeled = np.zeros(len(dataset.schema), bool)
    for block in row_blocks(dataset.points):
        labeled |= (~np.isnan(dataset.points[block]).any(axis=2)).any(axis=0)
    rows = np.flatnonzero(~labeled).tolist()
    if rows:
        count, names = format_count(len(rows), "landmark"), name_rows(dataset.schema.names, rows)
        yield f"{count} that no row labels, and that cannot be learned: {names}"


def _duplicates(dataset: LandmarkDataset) -> Iterator[str]:
    """Yield a line if many images are duplicates."""
    count = count_duplicates(dataset)
    if count > MANY_DUPLICATES * len(dataset):
        yield (
            f"{count:,} of {format_count(len(dataset), 'image')} are exact duplicates of an earlier one:"
            " remove them, because they count repeatedly"
        )


def _landmarks_outside_image(dataset: LandmarkDataset) -> Iterator[tuple[int, LabelIssue]]:
    for block in row_blocks(dataset.points):
        points = dataset.points[block]
        outside = outside_square(points, dataset.size) & ~find_placeholders(points)
        for index, landmark in np.argwhere(outside).tolist():
            x, y = points[index, landmark].tolist()
            distance = max(-0.5 - min(x, y), max(x, y) - (dataset.size - 0.5))
            name, row = dataset.schema.names[landmark], block.start + index
            # one standard deviation more for each percent of the side by which it is outside
            score = SUSPICIOUS + 100 * distance / dataset.size
            reason = f"{name} is outside the image, at ({x:.1f}, {y:.1f})"
            yield row, LabelIssue(dataset.names[row], name, reason, score, IssueKind.OUTSIDE)


# --- shapes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """What is suspicious about a row.

    Parameters
    ----------
    name
        Name of the row.
    labeled
        Number of labeled landmarks.
    scores
        (K,) distances from the usual shape in robust standard deviations; 0 where unlabeled.
    swapped, same_pixel
        Pairs of landmarks that look swapped, and that share a pixel.
    is_mirrored, is_reflected
        Whether all pairs are swapped, and whether the row fits only the mirror image of the usual shape.
    """

    name: str
    labeled: int
    scores: Floats
    swapped: list[tuple[int, int]]
    same_pixel: list[tuple[int, int]]
    is_mirrored: bool
    is_reflected: bool


def _compare_with_usual_shape(dataset: LandmarkDataset, tally: IssueTally) -> list[str]:
    """Add the issues found by comparing each row with the usual shape, and return further notes."""
    rows = _comparable_rows(dataset, tally)
    if len(rows) < MIN_ROWS:
        return []
    sample = _read(dataset, rows[spaced(len(rows), MAX_ROWS)])
    model = fit_shape_model(sample.points, sample.labeled, list(dataset.schema.flip_index))
    if model is None:
        return []
    notes = []
    if shows_swapped_sides(model.shape, dataset.schema):
        # most rows are swapped: if all are, the names follow another convention, else the others are right
        swapped = model.exchanged()
        if swapped.align(sample.points, sample.labeled).is_swapped.mean() < CONVENTION:
            model = swapped
        else:
            notes.append(VIEWERS_SIDES)
    for block in row_blocks(dataset.points[: len(rows)]):
        for row, issue in _issues(dataset, rows[block], model):
            tally.add(row, issue)
    if tally.count(IssueKind.REFLECTED) > MAX_REFLECTED * len(rows):
        tally.remove(IssueKind.REFLECTED)
    return notes


def _comparable_rows(dataset: LandmarkDataset, tally: IssueTally) -> NDArray[np.int64]:
    """Return the rows with enough landmarks, and add an issue for those with several at one position."""
    found = [np.empty(0, np.int64)]
    for block in row_blocks(dataset.points):
        part = _read(dataset, block)
        for index in np.flatnonzero(part.piled.any(axis=1)).tolist():
            row, piled = block.start + index, part.piled[index]
            x, y = dataset.points[row, piled.argmax()].tolist()
            reason = f"{piled.sum()} landmarks are at exactly one position, ({x:.1f}, {y:.1f})"
            tally.add(row, LabelIssue(dataset.names[row], None, reason, SUSPICIOUS, IssueKind.SAME_POSITION))
        found.append(np.flatnonzero(part.labeled.sum(axis=1) >= MIN_LABELED) + block.start)
    return np.concatenate(found)


@dataclass(frozen=True)
class _Part:
    """Some rows: their points (0 where unlabeled), the landmarks to compare, and those at one position."""

    points: Complex
    labeled: Mask
    piled: Mask


def _read(dataset: LandmarkDataset, rows: slice | NDArray[np.int64]) -> _Part:
    """Return rows without placeholders: landmarks at (0, 0) or (-1, -1), or many at one position."""
    points = dataset.points[rows]
    labeled = ~np.isnan(points).any(axis=2) & ~find_placeholders(points)
    piled = labeled & _is_piled(np.where(labeled, to_complex(points), np.nan), labeled)
    labeled &= ~piled
    return _Part(np.where(labeled, to_complex(points), 0), labeled, piled)


def _is_piled(points: Complex, labeled: Mask) -> Mask:
    """Return the mask of landmarks whose exact position is that of at least a third of those of the row."""
    order = np.argsort(points, axis=1)
    ordered = np.take_along_axis(points, order, axis=1)
    starts = np.ones(points.shape, bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]  # NaN is unequal to itself
    runs = (np.cumsum(starts) - 1).reshape(points.shape)
    counts = np.empty(points.shape, np.int64)
    np.put_along_axis(counts, order, np.bincount(runs.ravel())[runs] if runs.size else runs, axis=1)
    return np.asarray(counts >= np.maximum(MIN_LABELED, labeled.sum(axis=1) / 3)[:, None])


def _issues(
    dataset: LandmarkDataset, rows: NDArray[np.int64], model: ShapeModel
) -> Iterator[tuple[int, LabelIssue]]:
    """Yield the issues of a block of rows."""
    part = _read(dataset, rows)
    points, labeled = part.points, part.labeled
    aligned = model.align(points, labeled)
    swapped = _swapped_pairs(aligned, labeled, model)
    same_pixel = _pairs_on_one_pixel(points, labeled, model.shape)
    is_far = (aligned.scores >= SUSPICIOUS).any(axis=1) | aligned.is_reflected
    for index in sorted({*np.flatnonzero(is_far).tolist(), *swapped, *same_pixel}):
        row = _Row(
            dataset.names[rows[index]],
            int(labeled[index].sum()),
            aligned.scores[index],
            swapped.get(index, []),
            same_pixel.get(index, []),
            bool(aligned.is_swapped[index]),
            bool(aligned.is_reflected[index]),
        )
        for issue in _row_issues(row, dataset.schema.names):
            yield int(rows[index]), issue


def _row_issues(row: _Row, names: Sequence[str]) -> Iterator[LabelIssue]:
    """Yield the issues of one row; a landmark that is swapped or shares a pixel is not reported twice."""
    reported = {landmark for pair in row.swapped for landmark in pair}
    suspicious = [i for i in np.flatnonzero(row.scores >= SUSPICIOUS).tolist() if i not in reported]
    if len(suspicious) >= max(MIN_LABELED, row.labeled / 2):
        reason = f"{len(suspicious)} of {row.labeled} landmarks are far from any usual shape"
        yield LabelIssue(row.name, None, reason, float(row.scores.max()), IssueKind.FAR)
        return
    if row.swapped:
        pairs = ", ".join(f"{names[a]} and {names[b]}" for a, b in row.swapped[:3])
        more = f" and {len(row.swapped) - 3} more pairs" if len(row.swapped) > 3 else ""
        score = float(max(row.scores[landmark] for landmark in reported))
        kind = IssueKind.MIRRORED if row.is_mirrored else IssueKind.SWAPPED
        yield LabelIssue(row.name, None, f"{pairs}{more} look swapped", score, kind)
    if row.is_reflected:
        reason = "fits the usual shape only as its mirror image"
        yield LabelIssue(row.name, None, reason, SUSPICIOUS, IssueKind.REFLECTED)
    for a, b in row.same_pixel:
        reported.update((a, b))
        score = float(max(SUSPICIOUS, row.scores[a], row.scores[b]))
        reason = f"{names[a]} and {names[b]} are on the same pixel"
        yield LabelIssue(row.name, None, reason, score, IssueKind.SAME_PIXEL)
    for landmark in suspicious:
        if landmark not in reported:
            score = float(row.scores[landmark])
            reason = f"{names[landmark]} is {score:.0f} standard deviations from its usual position"
            yield LabelIssue(row.name, names[landmark], reason, score)


def shows_swapped_sides(shape: Complex, schema: LandmarkSchema) -> bool:
    """Return True if the left eye of a shape is on the side of the right eye; False if that is unclear.

    Most landmarks of a face are below the eyes. Seen from there, the subject's left eye is on the right.
    """
    if schema.eyes is None:
        return False
    left, right = (shape[list(schema.indices(eye))] for eye in schema.eyes)
    others = np.setdiff1d(
        np.arange(len(schema)), schema.indices([name for eye in schema.eyes for name in eye])
    )
    if np.isnan([*left, *right]).any() or np.isnan(shape[others]).all():
        return False
    across = np.mean(left) - np.mean(right)
    down = np.nanmean(shape[others]) - (np.mean(left) + np.mean(right)) / 2
    return float((across.conj() * down).imag) < -0.05


def _swapped_pairs(
    aligned: AlignedRows, labeled: Mask, model: ShapeModel
) -> dict[int, list[tuple[int, int]]]:
    """Return, by row, the flip pairs that fit the shape only if they are exchanged."""
    flip, shape, points = np.array(model.flip), model.shape, aligned.points
    first = np.flatnonzero(np.arange(len(flip)) < flip)
    second = flip[first]
    a, b = points[:, first], points[:, second]
    distances = abs(a - shape[first]) + abs(b - shape[second])
    exchanged = abs(a - shape[second]) + abs(b - shape[first])
    is_far = np.maximum(aligned.scores[:, first], aligned.scores[:, second]) >= SUSPICIOUS / 2
    is_swapped = labeled[:, first] & labeled[:, second] & is_far & (exchanged < 0.5 * distances)
    found = defaultdict(list)
    for row, pair in np.argwhere(is_swapped).tolist():
        found[row].append((int(first[pair]), int(second[pair])))
    return found


def _pairs_on_one_pixel(points: Complex, labeled: Mask, shape: Complex) -> dict[int, list[tuple[int, int]]]:
    """Return, by row, pairs that share a pixel but are more than `MIN_SEPARATION` apart in the shape."""
    # NaN is unequal to itself, so that unlabeled landmarks share no pixel
    pixels = np.where(labeled, np.rint(points.real) + 1j * np.rint(points.imag), np.nan)
    order = np.argsort(pixels, axis=1, kind="stable")
    ordered = np.take_along_axis(pixels, order, axis=1)
    is_same = (ordered[:, 1:] == ordered[:, :-1]) & (abs(np.diff(shape[order], axis=1)) > MIN_SEPARATION)
    found = defaultdict(list)
    for row, index in np.argwhere(is_same).tolist():
        found[row].append((int(order[row, index]), int(order[row, index + 1])))
    return found
