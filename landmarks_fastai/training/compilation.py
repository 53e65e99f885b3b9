"""Training with a network that torch.compile has compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastai.callback.core import Callback

from landmarks_fastai.training.distributed import check_single_process


class CompileNetwork(Callback):
    """Compile backbone and head for the forward passes of training; all others use them as they are.

    Each is compiled on its own, and not the whole network, whose method `forward` `Autocast` replaces in each
    iteration. torch compiles them in the first iteration.
    """

    run_valid = False

    def before_fit(self) -> None:
        """Prepare both; they are recompiled for input of another shape, instead of once for all shapes."""
        for part in self._parts():
            part.compile(dynamic=False)
        self.compiled = [part._compiled_call_impl for part in self._parts()]
        self.after_pred()

    def before_batch(self) -> None:
        """Let both run compiled code."""
        for part, compiled in zip(self._parts(), self.compiled, strict=True):
            part._compiled_call_impl = compiled

    def after_pred(self) -> None:
        """Let both run the code of the modules again; torch has no public function for this."""
        for part in self._parts():
            part._compiled_call_impl = None

    def _parts(self) -> list[Any]:
        return list(self.model)


def new_compilation(note: Callable[[str], None]) -> CompileNetwork:
    """Return the callback of a run with a compiled network.

    Parameters
    ----------
    note
        Receives a line about the duration of the first iteration.

    Raises
    ------
    UserError
        If there are several processes.
    """
    check_single_process("a run with training.compile", ", or set training.compile=false")
    note("training.compile: the first iteration compiles the network, which may take minutes")
    return CompileNetwork()
