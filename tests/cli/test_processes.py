"""Of several processes, the first one prints, and each error is printed once."""

from __future__ import annotations

import sys

import pytest
import typer

from landmarks_fastai.cli.processes import first_process_prints
from landmarks_fastai.errors import UserError
from landmarks_fastai.training.distributed import OtherProcessFailedError, ProcessError


@first_process_prints()
def command(error: BaseException | None = None) -> None:
    typer.echo("printed")
    if error is not None:
        raise error


def set_process(monkeypatch: pytest.MonkeyPatch, rank: int, count: int = 2) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    monkeypatch.setenv("RANK", str(rank))


def test_only_the_first_process_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, printed in ((1, ""), (0, "printed\n")):
        set_process(monkeypatch, rank)
        command()
        assert capsys.readouterr().out == printed


def test_errors_are_raised_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    set_process(monkeypatch, 0)
    with pytest.raises(UserError):
        command(UserError("wrong"))
    with pytest.raises(typer.Exit):
        command(OtherProcessFailedError("elsewhere"))
    set_process(monkeypatch, 1)
    for error, code in ((UserError("wrong"), 2), (OtherProcessFailedError("elsewhere"), 1)):
        with pytest.raises(typer.Exit) as ended:
            command(error)
        assert ended.value.exit_code == code
    with pytest.raises(typer.Exit):
        command(KeyboardInterrupt())
    with pytest.raises(ProcessError):
        command(ProcessError("process 2 of 2: only here"))
    with pytest.raises(ZeroDivisionError):  # a bug of ours
        command(ZeroDivisionError())


def test_single_process_does_not_import_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "landmarks_fastai.training.distributed", None)
    command()
    with pytest.raises(UserError):
        command(UserError("wrong"))
