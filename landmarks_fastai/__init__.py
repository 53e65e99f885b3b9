"""Train, judge and run facial landmark detectors with fastai."""

__version__ = "0.1.0"
