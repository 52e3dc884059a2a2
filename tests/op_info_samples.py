"""PyTorch's own samples of some operators, written to a file: python tests/op_info_samples.py FILE

In a process of its own, since importing them freezes flags of torch for all that runs beside.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

PREFIX = "nn.functional."
NAMES = (
    *("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"),
    *("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d"),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm"),
    *("mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy"),
    "interpolate",
)
MOST = 60
"""Samples of an operator, evenly spread over all of them."""


def samples() -> dict[str, list[dict[str, Any]]]:
    """Name -> operands and result in float64."""
    from torch.testing._internal.common_methods_invocations import op_db

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for op in op_db:
        name = op.name.removeprefix(PREFIX)
        if op.name.startswith(PREFIX) and name in found:
            every = list(op.sample_inputs("cpu", torch.float64, requires_grad=False))
            for sample in every[:: -(-len(every) // MOST)]:
                result = op(sample.input, *sample.args, **sample.kwargs)
                result = result[0] if isinstance(result, tuple) else result
                row = {"input": sample.input, "args": sample.args, "kwargs": sample.kwargs, "result": result}
                found[name].append(row)
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.save(samples(), sys.argv[1])
