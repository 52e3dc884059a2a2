"""One case: its variants in a process each, visited in a new random order each round."""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import worker
from load import Moment, wait_until_idle

ROUNDS = (
    "a process a variant; outputs (in training: loss and gradients) checked against eager first; variants \
visited in random order each round, a slice of several calls each; a time is the median over rounds of a \
slice's mean; a slice in which others used over 5 % of the machine is measured again, up to twice"
)

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["worker"])
"""The server has imported everything and started nothing: a process a variant costs no seconds."""

DISTURBED = 0.05
"""The part of the machine that others may use during a slice that counts."""


@dataclass(frozen=True)
class Asked:
    """One case, and how it is measured."""

    network: str
    batch: int
    mode: str
    variants: Sequence[str]
    """In the order they start, the baseline first."""
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 2
    rounds: int = 3
    seconds: float = 0.5
    """Of a slice."""
    patience: float = 5.0
    """Seconds to wait for an idle machine before a slice; 0 takes the machine as it is."""
    onnx: bool = False
    """Whether the network is wanted as an ONNX file."""


@dataclass
class Measured:
    """Of one variant. milliseconds: median over the rounds. foreign: the most that others used of the machine
    during a slice that counts. error: largest relative difference from eager. compile_seconds: from weights
    in memory to the end of the first call. peak_megabytes: beyond the libraries.
    """

    variant: str
    milliseconds: float | None = None
    quartiles: list[float] | None = None
    rounds: list[float] = field(default_factory=list)
    foreign: float = 0.0
    error: float | None = None
    kernels: int | None = None
    compile_seconds: float | None = None
    peak_megabytes: float | None = None
    skipped: str = ""


class Worker:
    """A process that runs `worker.serve`."""

    def __init__(self, asked: Asked, variant: str, folder: Path) -> None:
        told = {
            key: getattr(asked, key) for key in ("network", "batch", "mode", "device", "dtype", "threads")
        }
        self._connection, theirs = PROCESSES.Pipe()
        self._process = PROCESSES.Process(
            target=worker.serve,
            args=({**told, "variant": variant, "folder": str(folder)}, theirs),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._printed = folder / f"{variant}.txt"
        self.result = Measured(variant)
        reply = self._read()
        self.result.skipped = reply.get("skipped", "")
        for key in ("error", "kernels", "compile_seconds"):
            setattr(self.result, key, reply.get(key))

    def _read(self) -> dict[str, Any]:
        """What it says; where it has died, why."""
        try:
            reply: dict[str, Any] = self._connection.recv()
        except EOFError:
            self._process.join()
            last = self._printed.read_text(errors="replace").strip().splitlines()[-1:]
            return {"skipped": f"died: {''.join(last)[:200]}"}
        return reply

    def slice(self, seconds: float, patience: float) -> None:
        """Time one, again where others disturbed it."""
        best: tuple[float, dict[str, Any]] | None = None
        for _ in range(3):
            wait_until_idle(patience)
            before = Moment.now(self._process.pid)
            reply = self._ask(seconds)
            if "skipped" in reply:
                self.result.skipped = reply["skipped"]
                return
            foreign = Moment.now(self._process.pid).foreign(before)
            if best is None or foreign < best[0]:
                best = foreign, reply
            if foreign < DISTURBED or not patience:
                break
        assert best is not None
        self.result.rounds.append(best[1]["milliseconds"])
        self.result.foreign = max(self.result.foreign, best[0])
        self.result.peak_megabytes = best[1]["peak_megabytes"]

    def _ask(self, seconds: float) -> dict[str, Any]:
        with suppress(BrokenPipeError):  # where it has died, `_read` says so
            self._connection.send(seconds)
        return self._read()

    def stop(self) -> None:
        with suppress(BrokenPipeError):
            self._connection.send(0)
        self._process.join()


def run_case(asked: Asked, order: random.Random) -> list[Measured]:
    """Every variant's figures, in the order of `asked`."""
    # Before Python 3.13 the server does not know sys.path, and fails to find `worker` in silence.
    os.environ["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent), *sys.path))
    with tempfile.TemporaryDirectory() as folder:
        workers: list[Worker] = []
        try:
            if asked.onnx:
                Worker(asked, "onnx", Path(folder)).stop()
            for variant in asked.variants:
                workers.append(Worker(asked, variant, Path(folder)))
            for _ in range(asked.rounds):
                for one in order.sample(workers, len(workers)):
                    if not one.result.skipped:
                        one.slice(asked.seconds, asked.patience)
        finally:
            for one in workers:
                one.stop()
    for one in workers:
        _summarize(one.result)
    return [one.result for one in workers]


def _summarize(result: Measured) -> None:
    if not result.rounds or result.skipped:
        return
    result.milliseconds = statistics.median(result.rounds)
    if len(result.rounds) > 1:
        low, _, high = statistics.quantiles(result.rounds, n=4, method="inclusive")
        result.quartiles = [low, high]


def as_json(asked: Asked, results: Sequence[Measured]) -> dict[str, Any]:
    """A case as it is written into a file of results."""
    return {
        "network": asked.network,
        "batch": asked.batch,
        "mode": asked.mode,
        "rounds": asked.rounds,
        "variants": [asdict(result) for result in results],
    }
