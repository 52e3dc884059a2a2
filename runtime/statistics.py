"""`update_statistics`: the moving statistics of batch norms, computed anew from data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from ..graph.averages import writes
from ..graph.errors import ConvLoomError
from ..graph.ir import Graph
from ..graph.passes.batch_norm import use_batch_statistics
from ..planning.modes import Mode
from ..planning.program import plan
from .backends import Backend
from .checks import whole
from .executor import Executor
from .inputs import as_tensor, bind_inputs, holds_arrays, is_array
from .network import CompiledNetwork


@torch.no_grad()
def update_statistics(net: torch.nn.Module, data: Any, *, batch_size: int = 32) -> None:
    """Give every batch norm the mean and variance of data, as after weights were averaged or set by hand.

    One pass over the data in training mode, from which each moving statistic gets the mean of its batches'
    values, each batch counted by its examples; what it was before has no part in it. Frozen batch norms
    keep theirs, and the network stays in the mode it is in.

    net: a compiled network, or what wraps one as `.module` (torch's AveragedModel, DistributedDataParallel).
    data: an array of inputs or a tuple (x, y), cut into batches of `batch_size`, x a list or a dictionary of
    arrays where there are several inputs; or a DataLoader or another iterable of batches, each x alone or
    with others behind it.
    Raises ConvLoomError for anything else, and where there is no batch.
    """
    while not isinstance(net, CompiledNetwork) and isinstance(getattr(net, "module", None), torch.nn.Module):
        net = net.module  # type: ignore[assignment]
    if not isinstance(net, CompiledNetwork):
        raise ConvLoomError(f"update_statistics takes a compiled network, got {type(net).__name__}")
    batch_size = whole(batch_size, "batch_size", 1)
    weights = net.weights()
    _, parameters = _measuring(net.source)
    if not parameters:
        return
    options = net.options
    executors: dict[CompiledNetwork, Executor] = {}
    sums = {name: torch.zeros(w.shape, dtype=torch.float64, device=w.device) for name, w in weights.items()}
    counts = dict.fromkeys(parameters, 0)
    for batch in _input_batches(data, batch_size):
        inputs = bind_inputs(net.input_nodes, [_placed(batch, options.device)], options.device)
        sized = net.of_size(inputs)
        if sized not in executors:
            executors[sized] = _executor(sized)
        values, _ = executors[sized].forward(inputs, weights)
        for name, value in zip(parameters, values, strict=True):
            sums[name] += value.double() * len(inputs[0])
            counts[name] += len(inputs[0])
    if not all(counts.values()):
        raise ConvLoomError("the data gave no batch; an iterator can be read once only")
    for name, count in counts.items():
        weights[name].copy_(sums[name] / count)


def _executor(net: CompiledNetwork) -> Executor:
    options = net.options
    mode, graph = Mode(training=True, fuse=options.fuse), _measuring(net.source)[0]
    program = plan(graph, mode, target=options.target, precision=options.precision)
    return Executor(program, Backend(options.backend, options.device), net._streams)


def _measuring(source: Graph) -> tuple[Graph, list[str]]:
    """The network in training, whose outputs are what its batch norms measure, and the names of the moving
    statistics that these belong to. A batch norm that is called twice measures twice."""
    graph = source.copy()
    graph.updates = []
    use_batch_statistics(graph)
    measured, graph.updates = writes(graph), []
    graph.outputs = {f"{k}: {write.parameter}": write.value for k, write in enumerate(measured)}
    return graph, [write.parameter for write in measured]


def _input_batches(data: Any, batch_size: int) -> Iterator[Any]:
    """The inputs of each batch: an array, or a list or a dictionary of them."""
    x = data[0] if isinstance(data, tuple) and data else data
    if is_array(x) or isinstance(x, Mapping) or (x is not data and holds_arrays(x)):
        parts = x if isinstance(x, Mapping) else dict(enumerate(x if holds_arrays(x) else [x]))
        tensors = {name: as_tensor(part, "x") for name, part in parts.items()}
        for start in range(0, max((len(t) for t in tensors.values() if t.ndim), default=0), batch_size):
            part = {name: tensor[start : start + batch_size] for name, tensor in tensors.items()}
            yield part if isinstance(x, Mapping) else list(part.values())
        return
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise ConvLoomError(
            f"data is a {type(data).__name__}; give an array x, a pair (x, y), or a DataLoader of batches"
        )
    for batch in data:
        yield batch[0] if isinstance(batch, list | tuple) else batch


def _placed(value: Any, device: torch.device) -> Any:
    """Tensors on the network's device, in lists and dictionaries too."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _placed(part, device) for name, part in value.items()}
    return [_placed(part, device) for part in value] if isinstance(value, list | tuple) else value
