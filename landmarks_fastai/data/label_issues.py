"""Suspicious labels: `LabelIssue`, and their summary in one line for each kind."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from landmarks_fastai.data.annotation_checks import name_rows
from landmarks_fastai.utils.text import format_count

MAX_ISSUES = 100_000
"""Number of issues, the highest scores first, that are kept."""


class IssueKind(Enum):
    """What is suspicious about a label; the value describes it in a line about several rows."""

    OUTSIDE = "with landmarks outside the image"
    SAME_POSITION = "with several landmarks at exactly one position"
    MIRRORED = "in which left and right look swapped"
    SWAPPED = "in which the landmarks of some pairs look swapped"
    REFLECTED = "with the mirror image of the usual shape"
    FAR = "with labels far from any usual shape"
    SAME_PIXEL = "with two landmarks on the same pixel"
    POSITION = "with landmarks far from their usual position"


@dataclass(frozen=True)
class LabelIssue:
    """A suspicious label.

    Parameters
    ----------
    row
        Name of the row.
    landmark
        Name of the landmark; None if the issue concerns several landmarks, which `reason` names.
    reason
        Explanation for the user.
    score
        Distance from the usual shape in robust standard deviations; the higher, the more likely an error.
    kind
        What is suspicious.
    """

    row: str
    landmark: str | None
    reason: str
    score: float
    kind: IssueKind = IssueKind.POSITION


class IssueTally:
    """Collects issues and counts the rows of each kind.

    Parameters
    ----------
    names
        The row names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._issues: list[LabelIssue] = []
        self._scores: dict[IssueKind, dict[int, float]] = defaultdict(dict)

    def add(self, row: int, issue: LabelIssue) -> None:
        """Add an issue of a row, given by its index."""
        scores = self._scores[issue.kind]
        scores[row] = max(scores.get(row, 0.0), issue.score)
        self._issues.append(issue)
        if len(self._issues) > 2 * MAX_ISSUES:
            self._issues = list(self.ranked())

    def count(self, kind: IssueKind) -> int:
        """Return the number of rows with an issue of a kind."""
        return len(self._scores[kind])

    def remove(self, kind: IssueKind) -> None:
        """Remove all issues of a kind."""
        del self._scores[kind]
        self._issues = [issue for issue in self._issues if issue.kind is not kind]

    def ranked(self) -> tuple[LabelIssue, ...]:
        """Return the issues, the highest score first; at most `MAX_ISSUES`."""
        return tuple(heapq.nlargest(MAX_ISSUES, self._issues, key=lambda issue: issue.score))

    def notes(self) -> Iterator[str]:
        """Yield one line for each kind, which names the rows with the highest scores."""
        for kind in IssueKind:
            scores = self._scores[kind]
            if scores:
                rows = sorted(scores, key=lambda row: (-scores[row], row))
                yield f"{format_count(len(rows), 'row')} {kind.value}: {name_rows(self._names, rows)}"
