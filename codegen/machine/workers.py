"""Processes that compile: each answers one request at a time, and takes the next when it is done.

A request is anything that can be pickled and has a method `answer`, which runs in the other process.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

Answer = TypeVar("Answer", covariant=True)


class Asks(Protocol[Answer]):
    """A request."""

    def answer(self) -> Answer: ...


def answered(
    requests: Sequence[Asks[Answer]], jobs: int, done: Callable[[], object] = lambda: None
) -> list[Answer | None]:
    """The answers of `jobs` processes in the order of the requests; None where one killed its process.

    done: called after each, in no particular thread but never twice at once.
    """
    answers: list[Answer | None] = [None] * len(requests)
    waiting, lock = iter(enumerate(requests)), threading.Lock()

    def work(worker: Worker[Answer]) -> None:
        with contextlib.closing(worker):
            while True:
                with lock:
                    index, request = next(waiting, (-1, None))
                if request is None:
                    return
                answers[index] = worker.ask(request)
                with lock:
                    done()

    workers: list[Worker[Answer]] = [Worker() for _ in range(min(jobs, len(requests)))]
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:  # interrupted: what still compiles is of no use to anybody
        for worker in workers:
            worker.stop()
    return answers


class Worker(Generic[Answer]):
    """One process, begun at its first request, and again where a request has killed it.

    A fresh interpreter rather than multiprocessing, which would run the user's script again in each worker.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def ask(self, request: Asks[Answer]) -> Answer | None:
        """Its answer; None where it killed the process."""
        if self._stopped:
            return None
        process = self._process = self._process or _started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            found: Answer = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):  # an answer cut short is no answer
            self.close()
            return None
        return found

    def stop(self) -> None:
        """End the process at once."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Let the process end."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.communicate()


def _started() -> subprocess.Popen[Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    environment.pop("TRITON_INTERPRET", None)
    # -P: nothing of the folder that it happens to be started in, beyond what this process has on its path.
    command = [sys.executable, "-P", "-m", f"{__package__}.compile_worker"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
