"""Readers of data set formats, one module per format.

To add a format: 1. add a module here that defines `FORMAT` (`base.Format`); 2. add it to `FORMATS` in
`data/sources.py`.
"""
