"""Interpreted kernels between fences: a store beside what a kernel was given to write is an error.

On a GPU such a store changes other tensors in silence; in the interpreter it breaks the process's memory.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from convloom.codegen.kernel import Kernel

FENCE = 1024
"""Elements before and behind each output."""


class StoredOutside(Exception):
    """A kernel has written beside its outputs."""


@contextmanager
def fenced() -> Iterator[None]:
    """Kernels that are loaded for the interpreter meanwhile run between fences, for good."""
    load = Kernel.load

    def load_fenced(self: Kernel, interpreted: bool) -> types.ModuleType:
        module = load(self, interpreted)
        if interpreted and not hasattr(module, "unfenced"):
            module.unfenced = module.launch  # type: ignore[attr-defined]
            module.launch = lambda *tensors, **options: _launch(self, module, tensors, options)  # type: ignore[attr-defined]
        return module

    with mock.patch.object(Kernel, "load", load_fenced):
        yield


def _launch(kernel: Kernel, module: Any, tensors: tuple[torch.Tensor, ...], options: dict[str, Any]) -> Any:
    count = len(kernel.inputs)
    fences = [_Fenced(output) for output in tensors[count:]]
    result = module.unfenced(*tensors[:count], *(fence.inside for fence in fences), **options)
    for node, fence, output in zip(kernel.outputs, fences, tensors[count:], strict=True):
        output.copy_(fence.inside)
        if not fence.is_whole():
            raise StoredOutside(f"{kernel.name} has stored values beside its output {node.name}")
    return result


class _Fenced:
    """Room for an output, as it lies: with fences around it, and between its rows where they are parts of
    wider ones. `is_whole` may be asked once."""

    def __init__(self, output: torch.Tensor) -> None:
        reach = 1 + sum((size - 1) * step for size, step in zip(output.shape, output.stride(), strict=True))
        length = (reach if output.numel() else 0) + 2 * FENCE
        self.whole = torch.full((length,), 77, dtype=output.dtype, device=output.device)
        self.inside = self.whole.as_strided(output.shape, output.stride(), FENCE)

    def is_whole(self) -> bool:
        """Whether all that is not the output is as it was."""
        self.inside.fill_(77)
        return torch.equal(self.whole, torch.full_like(self.whole, 77))
