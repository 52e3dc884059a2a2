"""What depends on parameters alone, such as folded weights: computed before the batch, and seldom.

All calls share it, from whichever thread and on whichever stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import torch

from ..graph.ir import Graph, Node
from ..graph.ops import KNOWN, Cast, Parameter
from ..graph.weights import Mark, mark
from ..planning.program import Program
from .gpu import Shared

Tensors = Mapping[str, torch.Tensor]


class Prelude:
    """Values computed from parameters alone; computed again only when a parameter behind them has changed."""

    def __init__(
        self, program: Program, device: torch.device, lay: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """lay: how values lie in memory."""
        nodes = [node for node in program.graph.nodes() if node.name in program.known]
        self.nodes = [node for node in nodes if not isinstance(node.op, Parameter)]
        self.casts = [node for node in self.nodes if _rounds_a_weight(node, program.graph)]
        self.constants = {n.name: n.op.reference().to(device) for n in self.nodes if isinstance(n.op, KNOWN)}
        self.behind, self.lay = program.behind, lay
        self._lock = threading.Lock()
        self._shared = Shared(device)
        self.seen: dict[str, Mark] = {}
        self.look: object = None
        self.stale: set[str] = set()
        self.values: dict[str, torch.Tensor] = {}

    def __call__(self, parameters: Tensors, look: object = None) -> dict[str, torch.Tensor]:
        """Every value known before the batch; the very same dictionary and tensors while nothing changes.

        look: the very object of an earlier call where no parameter can have changed since.
        """
        with self._lock:
            self._shared.read()
            if look is not None and look is self.look and not self.stale:
                return self.values
            seen = {name: mark(p) for name, p in parameters.items()}
            if seen != self.seen or self.stale or not self.values:
                changed = {name for name, mark in seen.items() if self.seen.get(name) != mark}
                values = self._compute(parameters, changed | self.stale)
                if self._shared.capturing:  # nothing is computed yet: the graph does so whenever it runs
                    return values
                self.values, self.seen, self.stale = values, seen, set()
                self._shared.made(v for name, v in values.items() if not _is(v, parameters.get(name)))
            self.look = look
            return self.values

    def _compute(self, parameters: Tensors, changed: set[str]) -> dict[str, torch.Tensor]:
        """The values anew where a parameter behind them is in `changed`, the same tensors elsewhere."""
        # Aliases, new at each computation: what a backend keeps for a tensor (packed weights) ends with it.
        # Kernels read row-major data; a weight may lie otherwise, and `to(memory_format=...)` lays it anyhow.
        lay = self.lay
        values = {n: lay(p.detach()) if n in changed else self.values[n] for n, p in parameters.items()}
        values.update(self.constants)
        with torch.no_grad():
            self._round(values, changed)
            for node in self.nodes:
                if not node.inputs or node.name in values:
                    continue
                if self._stays(node, changed):
                    values[node.name] = self.values[node.name]
                else:
                    values[node.name] = lay(node.evaluate(*(values[name] for name in node.inputs)))
        return values

    def _stays(self, node: Node, changed: set[str]) -> bool:
        return node.name in self.values and not (self.behind[node.name] & changed)

    def _round(self, values: dict[str, torch.Tensor], changed: set[str]) -> None:
        """The weights in the dtype they are multiplied in, all at once: a training step needs them all anew,
        and one after another each would be a launch of its own."""
        together: dict[tuple[str, torch.dtype], list[Node]] = {}
        for node in self.casts:
            if not self._stays(node, changed):
                key = node.type.dtype, values[node.inputs[0]].dtype
                together.setdefault(key, []).append(node)
        for nodes in together.values():
            wide = [values[node.inputs[0]] for node in nodes]
            narrow = [torch.empty_like(t, dtype=n.type.torch_dtype) for t, n in zip(wide, nodes, strict=True)]
            torch._foreach_copy_(narrow, wide)
            values.update({n.name: self.lay(t) for n, t in zip(nodes, narrow, strict=True)})

    def forget(self, parameters: Iterable[str]) -> None:
        """Compute anew, at the next call, what follows from these."""
        with self._lock:
            self.stale.update(parameters)


def _is(value: torch.Tensor, parameter: torch.Tensor | None) -> bool:
    """Whether a value lies in the parameter's own memory."""
    return parameter is not None and value.data_ptr() == parameter.data_ptr()


def _rounds_a_weight(node: Node, graph: Graph) -> bool:
    floats = node.type.is_floating and all(graph[name].type.is_floating for name in node.inputs)
    return isinstance(node.op, Cast) and floats and isinstance(graph[node.inputs[0]].op, Parameter)
