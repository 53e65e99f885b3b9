"""Tallies of label issues: ranking, one line per kind, and a bounded number of issues."""

from __future__ import annotations

from landmarks_fastai.data import label_issues
from landmarks_fastai.data.label_issues import IssueKind, IssueTally, LabelIssue

NAMES = [f"{row}.png" for row in range(1000)]


def make_tally(scores, kind=IssueKind.FAR):
    tally = IssueTally(NAMES)
    for row, score in scores:
        tally.add(row, LabelIssue(NAMES[row], None, "reason", score, kind))
    return tally


def test_notes_name_the_rows_with_the_highest_scores():
    tally = make_tally([(3, 7.0), (1, 9.0), (5, 8.0), (5, 20.0), (2, 9.0), (9, 6.5)])
    tally.add(4, LabelIssue("4.png", "nose", "reason", 6.0))
    assert list(tally.notes()) == [
        "5 rows with labels far from any usual shape: 5.png, 1.png, 2.png and 2 more",
        "1 row with landmarks far from their usual position: 4.png",
    ]


def test_ranked_is_sorted_by_score_and_stable():
    tally = make_tally([(3, 7.0), (1, 9.0), (5, 7.0)])
    assert [issue.row for issue in tally.ranked()] == ["1.png", "3.png", "5.png"]


def test_ranked_keeps_the_highest_scores_only(monkeypatch):
    monkeypatch.setattr(label_issues, "MAX_ISSUES", 10)
    tally = make_tally([(row, float(row * 7 % 1000)) for row in range(1000)])
    assert [issue.score for issue in tally.ranked()] == [float(score) for score in range(999, 989, -1)]
    assert next(tally.notes()).startswith("1,000 rows with labels far")


def test_remove_drops_one_kind():
    tally = make_tally([(3, 7.0)], IssueKind.REFLECTED)
    tally.add(1, LabelIssue("1.png", None, "other", 6.0, IssueKind.FAR))
    assert (tally.count(IssueKind.REFLECTED), tally.count(IssueKind.OUTSIDE)) == (1, 0)
    tally.remove(IssueKind.REFLECTED)
    assert [issue.reason for issue in tally.ranked()] == ["other"]
    assert len(list(tally.notes())) == 1
