"""What several tests share."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from convloom.graph import ops
from convloom.graph.ir import Graph

from convloom import Model


def on_gpu(*values: object, slow: bool = False) -> ParameterSet:
    """Values of a parametrized test for which it needs a GPU."""
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    return pytest.param(*values, marks=[pytest.mark.gpu, missing, *([pytest.mark.slow] if slow else [])])


def evaluate(
    graph: Graph,
    parameters: Mapping[str, torch.Tensor],
    inputs: Mapping[str, object],
    dtype: torch.dtype | None = None,
) -> dict[str, torch.Tensor]:
    """The outputs of a graph by each op's own `reference`: slow, and right by definition.

    inputs: name -> tensor or array, the batch first; of drawn values too, where they are not to be drawn.
    dtype: to convert all floating values to.
    """
    values: dict[str, torch.Tensor] = {}
    for node in graph.nodes():
        if isinstance(node.op, ops.Drawn) and node.name not in inputs:
            value = node.op.draw(len(next(iter(inputs.values()))), torch.device("cpu"))  # type: ignore[arg-type]
        elif isinstance(node.op, ops.Input | ops.Parameter | ops.Drawn):
            given = (parameters if isinstance(node.op, ops.Parameter) else inputs)[node.name]
            value = torch.as_tensor(np.asarray(given) if not isinstance(given, torch.Tensor) else given)
        else:
            value = node.op.reference(*(values[name] for name in node.inputs))
        values[node.name] = value.to(dtype) if dtype and value.is_floating_point() else value
    return {name: values[source] for name, source in graph.outputs.items()}


def randomised(model: Model, seed: int = 0) -> Model:
    """Random statistics and biases, so that nothing is right by being zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.parameters.items():
        noise = torch.rand(value.shape, generator=generator)
        if name.endswith("moving_variance"):
            value.copy_(noise + 0.5)
        elif value.ndim == 1:
            value.add_(noise - 0.5)
    return model


def told(value: object) -> str:
    """A case's name, the same in every process: without the addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", getattr(value, "__name__", None) or str(value))[:60]
