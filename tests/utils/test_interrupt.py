"""The first Ctrl-C sets a flag, the second raises KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from landmarks_fastai.utils.interrupt import Interrupt


def test_interrupt_first_sigint_sets_flag_and_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_outside_main_thread_installs_no_handler() -> None:
    requested: list[bool] = []

    def work() -> None:
        with Interrupt() as interrupt:
            requested.append(interrupt.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]
