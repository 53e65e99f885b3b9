"""Comparing predicted landmarks with labels: metrics, reports, calibration and label errors.

To add a metric: 1. write a function of ``pred`` and ``true`` in `landmarks_fastai.evaluation.metrics`; 2. add
a field to `Scores` in `landmarks_fastai.evaluation.report` and compute it in `evaluate_landmarks`, which adds
it to metrics.json; 3. add a column to `landmarks_fastai.cli.tables` if it should be printed.
"""
