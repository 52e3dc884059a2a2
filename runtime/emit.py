"""`emit`: every kernel of a network as a file that runs by itself, with an index to find one's way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..codegen import Kernel, kernels
from ..codegen.text.names import escaped
from ..graph.errors import CompileError, ConvLoomError
from ..graph.ir import Graph
from ..planning.modes import Mode
from ..planning.program import Program, plan
from ..planning.regions import Region
from ..planning.targets import known_as
from .checks import whole
from .compile import DTYPE_NAMES, as_network, typed_graph
from .folder import write_files
from .network import CompiledNetwork
from .options import ModelLike

_USE = """\
Each file holds one kernel and stands alone: it imports nothing but torch and triton. Run one with

    python {example}

and it checks the kernel against its own reference in torch. On a GPU it also times the kernel; without one,
the kernel runs in Triton's interpreter. `graph.txt` is the network they were cut from.
"""


def emit(
    model: ModelLike | CompiledNetwork,
    folder: str | Path,
    *,
    target: str = "sm_90",
    dtype: str | None = None,
    batch_size: int | None = None,
    training: bool = False,
    fuse: bool = True,
    overwrite: bool = False,
    input_shape: Any = None,
) -> list[Path]:
    """Write every kernel of a model into `folder`, with an index README.md and the graph; returns the files.

    What an earlier call wrote there goes, unless it was changed since; what else lies there stays.

    model: a Model, or a network that is compiled already, in its own dtype.
    target: the architecture whose schedules are taken, such as "sm_90", or a card such as "H200".
    dtype: as for `compile`.
    batch_size: that schedules are chosen for (by default 32), by its class: 1, 8, 32, 256; and that the index
        counts FLOPs and bytes for (by default 1). The kernels take any.
    training: the kernels of a training step, backward ones included, instead of those of inference.
    fuse: False writes one kernel an op.
    input_shape: of one sample, where the model leaves axes open, as for `compile`.
    overwrite: also write over files that something else wrote, or that were changed since they were emitted.
    Files are named after what their kernels compute, never after the model's layers.
    Raises ConvLoomError for unknown options, a file in the way, or a folder that cannot be written.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ConvLoomError(f"folder is a {type(folder).__name__}; give the path of a folder to write into")
    texts = kernel_texts(
        model,
        target=target,
        dtype=dtype,
        batch_size=batch_size,
        training=training,
        fuse=fuse,
        input_shape=input_shape,
    )
    return write_files(Path(folder), texts, overwrite).files


def kernel_texts(
    model: ModelLike | CompiledNetwork,
    *,
    target: str,
    dtype: str | None,
    batch_size: int | None,
    training: bool,
    fuse: bool,
    input_shape: Any = None,
) -> dict[str, str]:
    """The texts of all that `emit` writes, by file name."""
    target = known_as(target)
    batch_size = None if batch_size is None else whole(batch_size, "batch_size", 1)
    program, dtype = _planned(model, dtype, input_shape, training, target, fuse)
    found = list(zip(program.regions, kernels(program, batch_size), strict=True))
    emitted = [kernel for _, kernel in found if isinstance(kernel, Kernel)]
    what = f"{'training' if training else 'inference'}, {dtype}, for {target}"
    texts = {f"{kernel.name}.py": kernel.source for kernel in emitted}
    texts["README.md"] = _index(program.graph, found, what, batch_size or 1)
    texts["graph.txt"] = f"{program.graph}\n"
    return texts


def _planned(
    model: ModelLike | CompiledNetwork,
    dtype: str | None,
    input_shape: Any,
    training: bool,
    target: str,
    fuse: bool,
) -> tuple[Program, str]:
    """The program of a model, or the one that a compiled network has, and its dtype.

    Raises CompileError for float64, in which no kernel computes.
    """
    if isinstance(model, CompiledNetwork):
        network = as_network(model, device="auto", backend="auto", dtype=dtype, input_shape=input_shape)
        _check_emittable(network.options.dtype)
        return network.planned(training=training, target=target, fuse=fuse), network.options.dtype
    graph, dtype = typed_graph(model, dtype, input_shape)
    _check_emittable(dtype)
    mode = Mode(training=training, backward=training, fuse=fuse)
    return plan(graph, mode, target=target, precision="tf32" if dtype == "tf32" else "ieee"), dtype


def _check_emittable(dtype: str) -> None:
    if dtype == "float64":
        known = ", ".join(name for name in DTYPE_NAMES if name != "float64")
        raise CompileError(f"kernels are not emitted for dtype {dtype!r}; use {known}")


# -- the index ---------------------------------------------------------------------------------------------
def _index(graph: Graph, found: Sequence[tuple[Region, Kernel | CompileError]], what: str, batch: int) -> str:
    files = [kernel.name for _, kernel in found if isinstance(kernel, Kernel)]
    lines = [f"# Kernels of {escaped(graph.name)}", "", f"{len(files)} kernels: {what}.", ""]
    if files:
        lines += [_USE.format(example=f"{files[0]}.py")]
    for phase, title in (("forward", "Forward"), ("backward", "Backward")):
        part = [(region, kernel) for region, kernel in found if region.phase == phase]
        if part:
            lines += [f"## {title}, in the order they run", "", *_table(part, batch), ""]
    refused = [(region, str(reason)) for region, reason in found if isinstance(reason, CompileError)]
    if refused:
        lines += ["## Without a kernel: these run through PyTorch's operators", ""]
        lines += [f"- `{region.name}`: {escaped_text(reason)}" for region, reason in refused]
    return "\n".join(lines).rstrip() + "\n"


def _table(part: Sequence[tuple[Region, Kernel | CompileError]], batch: int) -> list[str]:
    images = "one image" if batch == 1 else f"{batch} images"
    lines = [
        f"| file | computes | from the layers | FLOPs, {images} | bytes, {images} | FLOPs/byte | schedule |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for region, kernel in part:
        cost = region.cost(batch)
        cells = [
            f"[{region.name}.py]({region.name}.py)"
            if isinstance(kernel, Kernel)
            else f"{region.name} (none)",
            " → ".join(node.op.op_name() for node in region.nodes),
            ", ".join(escaped(layer) for layer in region.layers),
            f"{cost.flops:,}",
            f"{cost.bytes:,}",
            f"{cost.intensity:.1f}",
            str(kernel.schedule) if isinstance(kernel, Kernel) else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def escaped_text(text: str) -> str:
    """A sentence as one harmless line of Markdown: its words escaped one by one."""
    return " ".join("".join(c if c in "(),:;'=" else escaped(c) for c in word) for word in text.split())
