"""Instructions: what a backend makes of a step, calls over values by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Instruction:
    """One call: `run` takes the values named in `reads` and gives that named in `writes`, or a tuple of them
    where `writes` names several. What leaves the step's region is contiguous."""

    run: Callable[..., Any]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
