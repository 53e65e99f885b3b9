"""Exporting a trained network to the formats of other programs, one module for each target.

To add an export target: 1. write a module with a function ``export_<target>(network, header, path)`` that
writes the file with `landmarks_fastai.utils.files.atomic_write`, stores the header in it, and compares its
predictions with those of torch before the file is kept; 2. add its suffix to
`landmarks_fastai.commands.export`; 3. if it should also be opened, add its suffix to
`landmarks_fastai.model_files.loading.open_model` and a backend to `landmarks_fastai.inference.backends`.
Without step 3, `export` cannot check the file and `predict --model` rejects it.
"""
