"""Exporting a trained network to the formats of other programs, one module for each target.

To add a target: 1. write a module with the three functions of `landmarks_fastai.export.targets.Exporter`;
2. add one line to `landmarks_fastai.export.targets.TARGETS`; 3. name its package in the extras of
``pyproject.toml``. The comparison with torch, the metadata and the atomic replacement of the file are those
of every target (`landmarks_fastai.export.exporting`).

4. If `predict --model` should also open such files, add the suffix to
`landmarks_fastai.model_files.loading.open_model`.
"""
