"""The application: registers the commands and turns every error into one line and an exit code."""

from __future__ import annotations

import sys
import traceback

import typer

from landmarks_fastai.cli.benchmark import benchmark
from landmarks_fastai.cli.cache import cache
from landmarks_fastai.cli.configs import configs
from landmarks_fastai.cli.convert import convert
from landmarks_fastai.cli.data import data
from landmarks_fastai.cli.evaluate import evaluate
from landmarks_fastai.cli.explanations import explain_foreign_error
from landmarks_fastai.cli.export import export
from landmarks_fastai.cli.live import live
from landmarks_fastai.cli.predict import predict
from landmarks_fastai.cli.submit import submit
from landmarks_fastai.cli.train import train
from landmarks_fastai.cli.video import video
from landmarks_fastai.cli.web import web
from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.utils.interrupt import terminate_as_interrupt
from landmarks_fastai.utils.processors import limit_spinning
from landmarks_fastai.utils.text import shorten

app = typer.Typer(
    help=(
        "Train, evaluate and run landmark detectors. Every command accepts --debug, which prints the"
        " traceback of an error."
    ),
    add_completion=False,
    rich_markup_mode=None,
)
COMMANDS = (
    train, evaluate, predict, video, live, web, submit, export, benchmark, data, convert, configs, cache
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)

# recent versions of typer contain their own copy of click, whose base class has no public name
ClickError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

INTERRUPTED = 130
"""Exit code with which typer reports that it has handled a KeyboardInterrupt."""


MAX_MESSAGE = 800
"""Largest number of characters of a line of an error; the middle of a longer one is left out."""


def main() -> None:
    """Run the command of `sys.argv` and exit."""
    limit_spinning()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(run(arguments, debug))


def run(arguments: list[str], debug: bool = False) -> int:
    """Run one command.

    SIGTERM, which schedulers and containers send, does what Ctrl-C does. An error is printed as one line on
    stderr, with `debug` after its traceback.

    Returns
    -------
    int
        0 on success, 1 if the run failed or was interrupted, 2 if the input is wrong.
    """
    try:
        with terminate_as_interrupt():
            code = app(arguments or ["--help"], prog_name="landmarks-fastai", standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return int(code or 0)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        message, code = _explain(error)
        details = error.details if isinstance(error, LandmarksError) else ()
    print(f"error: {shorten(message, MAX_MESSAGE)}", file=sys.stderr)
    for detail in details:
        print(f"  {shorten(detail, MAX_MESSAGE)}", file=sys.stderr)
    return code


def _explain(error: BaseException) -> tuple[str, int]:
    """Return the message and the exit code of an error."""
    if isinstance(error, LandmarksError):
        return str(error), error.exit_code
    if isinstance(error, ClickError):
        return getattr(error, "format_message", error.__str__)(), 2
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "interrupted", 1
    explanation = explain_foreign_error(error)
    if explanation is not None:
        return explanation, 1
    return f"internal error: {type(error).__name__}: {error}; run again with --debug for the traceback", 1
