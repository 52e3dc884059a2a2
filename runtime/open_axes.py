"""Networks with inputs of any size: one network for each size that is met."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch

from ..graph.errors import CompileError
from ..graph.ir import Node
from ..graph.words import words
from .inputs import bind_inputs
from .options import ModelLike
from .planned import Planned

if TYPE_CHECKING:
    from .network import CompiledNetwork

MOST_SIZES = 16
"""Sizes of open axes that a network keeps programs for."""

CPU = torch.device("cpu")

Sizes = tuple[tuple[int, ...], ...]
"""The shape of one sample of each input."""


class OpenAxes(Planned):
    """Where a model leaves axes open, a network is planned once for each size of them."""

    _model: ModelLike | None
    _inputs: list[Node]
    _open: Sequence[tuple[int, ...]]
    _sizes: OrderedDict[Sizes, CompiledNetwork]

    def _of_sizes(self, sizes: Sizes) -> CompiledNetwork:
        """A new network for inputs of these sizes, over the same weights."""
        raise NotImplementedError

    @property
    def is_open(self) -> bool:
        """Whether inputs have axes of any size; such a network is planned for each size that it meets."""
        return bool(self._open)

    def of_size(self, inputs: Sequence[torch.Tensor]) -> CompiledNetwork:
        """The network for inputs of these sizes: itself, where no axes are open."""
        if not self._open:
            return cast("CompiledNetwork", self)
        return self._at(tuple(tuple(x.shape[1:]) for x in inputs))

    def at(self, *input_shapes: Sequence[int]) -> CompiledNetwork:
        """The network for samples of these shapes, one for each input, where axes are open.

        It shares this network's weights and mode, and has program, kernels and `explain()`, which need sizes.
        The latest 16 sizes are kept. Raises ShapeError for shapes that do not fit.
        """
        if not self._open:
            raise CompileError(f"{self.name} leaves no axis open; call it as it is")
        shapes = tuple(tuple(int(size) for size in shape) for shape in input_shapes)
        bind_inputs(self._inputs, [_sample(n, s) for n, s in zip(self._inputs, shapes, strict=False)], CPU)
        return self._at(shapes)

    def check_closed(self) -> None:
        """Raise CompileError where a program is wanted, and axes without a size do not allow one."""
        if self._open:
            shapes = ", ".join("(...)" for _ in self._inputs)
            raise CompileError(
                f"{self.name} leaves axes open, and is planned for the sizes that it meets; say one: "
                + words(f"net.at({shapes}), or input_shape=", "--input-shape H,W,C")
            )

    def _at(self, sizes: Sizes) -> CompiledNetwork:
        network = self._sizes.get(sizes)
        if network is None:
            network = self._sizes[sizes] = self._of_sizes(sizes)
            if len(self._sizes) > MOST_SIZES:
                self._sizes.popitem(last=False)
        self._sizes.move_to_end(sizes)
        if network.training != self.training:
            network.train(self.training)
        return network


def _sample(node: Node, shape: Sequence[int]) -> torch.Tensor:
    """Something of one sample's shape, which takes no memory."""
    return torch.zeros((), dtype=node.type.torch_dtype).expand(1, *shape)
