"""Comparing predicted landmarks with labels: metrics, reports, calibration, label errors, and comparisons.

To add a metric: 1. write a function of ``pred`` and ``true`` in `landmarks_fastai.evaluation.metrics`; 2. add
it to `row_metrics` in `landmarks_fastai.evaluation.row_metrics` as sums over rows. The report of `evaluate`
then contains it for all rows and for each slice, with confidence intervals, and comparisons test it. 3. If
training should report it, too, add a field to `Scores` in `landmarks_fastai.evaluation.report`, and a column
to `landmarks_fastai.cli.tables`.

To add a slice: write a function in `landmarks_fastai.evaluation.slices` and add it to `BUILT_IN`.
"""
