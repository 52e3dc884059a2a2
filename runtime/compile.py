"""`compile`: a model becomes a network that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from ..codegen.installed import has_triton, require_triton
from ..graph.errors import CompileError
from ..graph.ir import Graph
from .backends import BACKENDS
from .network import CompiledNetwork, Options
from .plan import check_forward

DTYPE_NAMES = ("float32", "tf32", "bfloat16", "float16", "float64")


class ModelLike(Protocol):
    """What can be compiled: a graph and the values of its parameters."""

    def to_graph(self) -> Graph: ...

    @property
    def parameters(self) -> Mapping[str, torch.Tensor]: ...


def compile(
    model: ModelLike,
    *,
    device: str = "auto",
    backend: str = "auto",
    dtype: str = "float32",
    fuse: bool = True,
) -> CompiledNetwork:
    """Compile a model.

    device: "cuda", "cpu" or "auto" (a GPU where there is one).
    backend: "triton" runs the emitted kernels (on the CPU in Triton's interpreter), "aten" the same fused
        graph through PyTorch's operators, "auto" is triton on a GPU where that package is installed, and
        aten elsewhere.
    dtype: "float32", "tf32", "bfloat16", "float16"; "float64" on aten. Sums are kept in float32 at least.
    fuse: False runs one kernel an op.
    Raises CompileError for an unknown or impossible option.
    """
    chosen = _device(device)
    if backend not in (*BACKENDS, "auto"):
        raise CompileError(f"unknown backend {backend!r}; use 'triton', 'aten' or 'auto'")
    if dtype not in DTYPE_NAMES:
        raise CompileError(f"unknown dtype {dtype!r}; use {', '.join(map(repr, DTYPE_NAMES))}")
    if backend == "auto":
        able = chosen.type == "cuda" and dtype != "float64" and has_triton()
        backend = "triton" if able else "aten"
    if backend == "triton":
        require_triton("backend 'triton'")
    if dtype == "float64" and backend != "aten":
        raise CompileError("dtype 'float64' runs on backend 'aten' only: emitted kernels compute in float32")
    if not hasattr(model, "to_graph"):
        raise CompileError(f"compile takes a Model or Sequential, found {type(model).__name__}")
    options = Options(chosen, backend, dtype, fuse)
    graph = model.to_graph()
    check_forward(graph)
    return CompiledNetwork(graph, model.parameters, options)


def _device(device: str) -> torch.device:
    if device == "auto":
        return (
            torch.device("cuda", torch.cuda.current_device())
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise CompileError(f"unknown device {device!r}; use 'cuda', 'cpu' or 'auto'") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise CompileError(
            "device 'cuda' was asked for, but this machine has no CUDA GPU; use 'cpu' or 'auto'"
        )
    if chosen.type not in ("cuda", "cpu"):
        raise CompileError(f"device {device!r} is not supported; use 'cuda', 'cpu' or 'auto'")
    return torch.device("cuda", chosen.index or 0) if chosen.type == "cuda" else chosen
