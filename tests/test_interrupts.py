"""The first Ctrl-C or SIGTERM waits for the step, the second does not, and handlers come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from convloom.runtime.interrupts import SIGNALS, Interrupts


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_handlers_come_back(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with Interrupts() as interrupts:
        assert interrupts.name == ""
        os.kill(os.getpid(), number)
        assert interrupts.name == number.name
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert f"{number.name}: training ends after this step" in capfd.readouterr().err


def test_the_second_one_stops_at_once() -> None:
    with Interrupts(told=False) as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_ends_the_process() -> None:
    code = (
        "import os, signal; from convloom.runtime.interrupts import Interrupts\n"
        "with Interrupts():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('never')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "goes on\n"
    assert done.returncode == -signal.SIGTERM


def test_other_threads_handle_no_signals() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    found: list[object] = []

    def run() -> None:
        with Interrupts() as interrupts:
            found.append([signal.getsignal(each) for each in SIGNALS] == before)
            found.append(interrupts.name)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [True, ""]


def test_what_a_program_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.name == ""
    finally:
        signal.signal(signal.SIGTERM, before)
