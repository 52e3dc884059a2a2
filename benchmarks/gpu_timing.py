"""What all parts of a GPU session share: where they run, how they time a call, and a line for each result."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], Any]


@dataclass
class Session:
    """tiny: on sizes that an interpreter manages. seconds: that a part has; it starts nothing after them."""

    part: str
    device: torch.device
    tiny: bool = False
    output: Path | None = None
    seconds: float = 1e9
    begun: float = field(default_factory=time.monotonic)
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def on_card(self) -> bool:
        return self.device.type == "cuda"

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() - self.begun > self.seconds

    def say(self, name: str, **figures: Any) -> None:
        """One result: printed, and written to the file, at once."""
        line = {"part": self.part, "name": name, **figures}
        self.told.append(line)
        print("  ".join(f"{key} {_short(value)}" for key, value in line.items()), flush=True)
        if self.output is not None:
            with self.output.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """One piece of the part: what goes wrong in it is a result too, and the next piece goes on."""
        if self.out_of_time:
            self.say(name, left_out="no time left")
            return
        try:
            work()
        except Exception as error:
            self.say(name, failed=f"{type(error).__name__}: {error}"[:500])
            if self.on_card:
                torch.cuda.empty_cache()

    def seconds_of(self, call: Call) -> float:
        """The median time of a call, with nothing of it in the card's cache."""
        if self.on_card:
            from triton.testing import do_bench

            return float(do_bench(call, warmup=10, rep=40, return_mode="median")) / 1e3
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def graphed(self, call: Call) -> Call:
        """The call as a CUDA graph, which launches everything at once."""
        if not self.on_card:
            return call
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def wait(self) -> None:
        if self.on_card:
            torch.cuda.synchronize()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(part: str, run: Callable[[Session], None], argv: list[str] | None = None) -> None:
    """Run a part from the command line."""
    parser = argparse.ArgumentParser(description=f"the part of a GPU session: {part}")
    parser.add_argument("--output", type=Path, help="a file that takes a JSON line for each result")
    parser.add_argument("--seconds", type=float, default=1e9, help="start nothing after so long")
    parser.add_argument("--tiny", action="store_true", help="sizes for Triton's interpreter")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args(argv)
    torch.backends.cudnn.benchmark = True
    run(Session(part, torch.device(asked.device), asked.tiny, asked.output, asked.seconds))
