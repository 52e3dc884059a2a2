"""Interpreted kernels between fences: a store beside what a kernel was given to write is an error.

On a GPU such a store changes other tensors in silence; in the interpreter it breaks the process's memory.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
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
    wide = [_fenced(output) for output in tensors[count:]]
    inside = [
        whole[FENCE : len(whole) - FENCE].view(output.shape)
        for whole, output in zip(wide, tensors[count:], strict=True)
    ]
    result = module.unfenced(*tensors[:count], *inside, **options)
    for node, whole, part, output in zip(kernel.outputs, wide, inside, tensors[count:], strict=True):
        beside = torch.cat([whole[:FENCE], whole[len(whole) - FENCE :]])
        if not torch.equal(beside, torch.full_like(beside, 77)):
            raise StoredOutside(f"{kernel.name} has stored values beside its output {node.name}")
        output.copy_(part)
    return result


def _fenced(output: torch.Tensor) -> torch.Tensor:
    return torch.full((prod(output.shape) + 2 * FENCE,), 77, dtype=output.dtype, device=output.device)
