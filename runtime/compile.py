"""`compile`: a model becomes a network that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..codegen.machine.installed import has_triton, require_triton
from ..graph.errors import CompileError, unknown
from ..graph.ir import Graph
from ..graph.passes.precision import Policies, with_dtype
from .backends import BACKENDS
from .network import CompiledNetwork
from .options import ModelLike, Options

DTYPE_NAMES = ("float32", "tf32", "bfloat16", "float16", "float64")


def compile(
    model: ModelLike,
    *,
    device: str = "auto",
    backend: str = "auto",
    dtype: str | None = None,
    fuse: bool = True,
    input_shape: Any = None,
) -> CompiledNetwork:
    """Compile a model. The network and the model hold the same weights from then on.

    device: "cuda", "cpu" or "auto" (a GPU where there is one).
    backend: "triton" runs the emitted kernels (on the CPU in Triton's interpreter), "aten" the same fused
        graph through PyTorch's operators, "auto" is triton on a GPU where that package is installed, and
        aten elsewhere.
    dtype: "float32", "tf32", "bfloat16", "float16"; "float64" on aten. Sums are kept in float32 at least, and
        so are the weights. By default float32, or what a file's mixed policies say of each layer.
    fuse: False runs one kernel an op.
    input_shape: of one sample, for a model that leaves axes open: one shape, a list of them in the order of
        the inputs, or a dictionary by name. Without it the network takes any size, and is planned once for
        each that it meets.
    Raises CompileError for an unknown or impossible option.
    """
    chosen = _device(device)
    if backend not in (*BACKENDS, "auto"):
        raise CompileError(unknown("backend", backend, (*BACKENDS, "auto")))
    _check_model(model, "compile takes a Model or Sequential")
    dtype, policies = _settled_dtype(model, dtype)
    if backend == "auto":
        able = chosen.type == "cuda" and dtype != "float64" and has_triton()
        backend = "triton" if able else "aten"
    if backend == "triton":
        require_triton("backend 'triton'")
    if dtype == "float64" and backend != "aten":
        raise CompileError("dtype 'float64' runs on backend 'aten' only: emitted kernels compute in float32")
    options = Options(chosen, backend, dtype, fuse, policies=policies)
    return CompiledNetwork(model, options, input_shape)


def as_network(
    model: ModelLike | CompiledNetwork,
    *,
    device: str,
    backend: str,
    dtype: str | None,
    input_shape: Any = None,
) -> CompiledNetwork:
    """A model compiled; a network that is compiled already as it is, or for sizes of axes left open.

    Raises CompileError where an option is not the network's own.
    """
    if not isinstance(model, CompiledNetwork):
        return compile(model, device=device, backend=backend, dtype=dtype, input_shape=input_shape)
    asked = {"device": device, "backend": backend, "dtype": dtype}
    own = {
        "device": model.options.device.type,
        "backend": model.options.backend,
        "dtype": model.options.dtype,
    }
    for name, value in asked.items():
        if value not in (None, "auto", own[name], str(model.options.device)):
            raise CompileError(f"{model.name} is compiled for {name} {own[name]!r}; leave {name} out")
    return model.closed(input_shape) if model.is_open and input_shape is not None else model


def typed_graph(model: ModelLike, dtype: str | None, input_shape: Any = None) -> tuple[Graph, str]:
    """The graph of a model before any pass, in its compute dtype, and that dtype."""
    _check_model(model, "kernels are emitted for a Model or a compiled network")
    dtype, policies = _settled_dtype(model, dtype)
    graph = model.to_graph() if input_shape is None else model.to_graph(input_shape)  # type: ignore[call-arg]
    return (graph if dtype in ("float32", "tf32") else with_dtype(graph, dtype, policies)), dtype


def _settled_dtype(model: ModelLike, dtype: str | None) -> tuple[str, Policies | None]:
    """The dtype that is asked for; where none is, what the model's layers say, float32 where they do not."""
    if dtype is None:
        policies: Policies | None = getattr(model, "policies", None)
        return ("float32" if policies is None else policies.dtype), policies
    if dtype not in DTYPE_NAMES:
        raise CompileError(unknown("dtype", dtype, DTYPE_NAMES))
    return dtype, None


def _check_model(model: object, takes: str) -> None:
    if hasattr(model, "to_graph"):
        return
    hint = ""
    if isinstance(model, CompiledNetwork):
        hint = ", which is compiled already"
    elif isinstance(model, str | Path):
        hint = "; read the file first, with cl.load"
    elif any(base.__module__.partition(".")[0] == "keras" for base in type(model).__mro__):
        hint = "; save Keras's model and read the file, cl.load('model.keras')"
    raise CompileError(f"{takes}, found {type(model).__name__}{hint}")


def _device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise CompileError(unknown("device", device, ("cuda", "cpu", "auto"))) from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise CompileError(
            "device 'cuda' was asked for, but this machine has no CUDA GPU; use 'cpu' or 'auto'"
        )
    if chosen.type not in ("cuda", "cpu"):
        raise CompileError(f"device {device!r} is not supported; use 'cuda', 'cpu' or 'auto'")
    if chosen == torch.device("cuda"):  # as PyTorch reads it
        return torch.device("cuda", torch.cuda.current_device())
    return chosen
