"""Operands of any size, and the last program of a launch alone: how far kernels count, without the memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from convloom.codegen import Kernel
from triton.runtime import interpreter

MAP_NORESERVE = 0x4000
"""Of Linux's mmap: memory that nobody touches is not even promised."""


def untouched(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros in memory that is taken where it is written to."""
    count = max(1, int(np.prod(size, dtype=np.int64)) * dtype.itemsize)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return torch.frombuffer(memory, dtype=dtype, count=int(np.prod(size, dtype=np.int64))).reshape(size)


@contextmanager
def last_program(
    module: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, without: str | None = None
) -> Iterator[None]:
    """Inside, each kernel of a file runs its last program alone. without: the one that does not run."""
    builder = interpreter.interpreter_builder
    place, size = builder.set_grid_idx, builder.set_grid_dim

    def only_last(name: str) -> Any:
        function = getattr(module, name)

        class Launched:
            def __getitem__(self, grid: tuple[int, ...]) -> Any:
                def run(*args: Any, **options: Any) -> None:
                    if without is not None and name.startswith(without):
                        return
                    whole = [*grid, 1, 1][:3]
                    with monkeypatch.context() as patch:
                        patch.setattr(builder, "set_grid_dim", lambda *_: size(*whole))
                        patch.setattr(builder, "set_grid_idx", lambda *_: place(*(n - 1 for n in whole)))
                        function[(1,) * len(grid)](*args, **options)

                return run

        return Launched()

    with monkeypatch.context() as patch:
        # Whole operands would be copied onto themselves, and with it take memory.
        patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *given: None)
        for name in kernel.functions:
            patch.setattr(module, name, only_last(name))
        yield
