"""The command line: each command is a module that reads options, calls one function and prints."""

from landmarks_fastai.cli.app import main, run

__all__ = ["main", "run"]
