"""What depends on parameters alone, such as folded weights: computed before the batch, and seldom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch

from ..graph.ops import KNOWN, Parameter
from ..graph.weights import Mark, mark
from ..planning.program import Program

Tensors = Mapping[str, torch.Tensor]


class _Kept(NamedTuple):
    """What was computed last: the object of the call, the parameters' marks before it, and the values."""

    look: object
    seen: dict[str, Mark]
    values: dict[str, torch.Tensor]


class Prelude:
    """Values computed from parameters alone; computed again only when a parameter behind them has changed."""

    def __init__(
        self, program: Program, device: torch.device, lay: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """lay: how values lie in memory."""
        nodes = [node for node in program.graph.nodes() if node.name in program.known]
        self.nodes = [node for node in nodes if not isinstance(node.op, Parameter)]
        self.constants = {n.name: n.op.reference().to(device) for n in self.nodes if isinstance(n.op, KNOWN)}
        self.behind, self.lay = program.behind, lay
        self.kept = _Kept(None, {}, {})
        self.stale: set[str] = set()

    def __call__(self, parameters: Tensors, look: object = None) -> dict[str, torch.Tensor]:
        """Every value known before the batch; the very same dictionary and tensors while nothing changes.

        look: the very object of an earlier call where no parameter can have changed since.
        """
        kept = self.kept
        if look is not None and look is kept.look and not self.stale:
            return kept.values
        stale, self.stale = self.stale, set()
        seen = {name: mark(p) for name, p in parameters.items()}
        values = kept.values
        if seen != kept.seen or stale or not values:
            changed = {name for name, mark in seen.items() if kept.seen.get(name) != mark}
            values = self._compute(parameters, changed | stale, values)
        self.kept = _Kept(look, seen, values)  # at once, for another thread may come between
        return values

    def _compute(self, parameters: Tensors, changed: set[str], before: Tensors) -> dict[str, torch.Tensor]:
        """The values anew where a parameter behind them is in `changed`, those from before elsewhere."""
        # Aliases, new at each computation: what a backend keeps for a tensor (packed weights) ends with it.
        # Kernels read row-major data; a weight may lie otherwise, and `to(memory_format=...)` lays it anyhow.
        lay = self.lay
        values = {n: lay(p.detach()) if n in changed else before[n] for n, p in parameters.items()}
        values.update(self.constants)
        with torch.no_grad():
            for node in self.nodes:
                if not node.inputs:
                    continue
                if node.name in before and not (self.behind[node.name] & changed):
                    values[node.name] = before[node.name]
                else:
                    values[node.name] = lay(node.evaluate(*(values[name] for name in node.inputs)))
        return values

    def forget(self, parameters: Iterable[str]) -> None:
        """Compute anew, at the next call, what follows from these."""
        self.stale.update(parameters)
