"""The dtype policies of a model's layers, as the file it was read from says them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..graph.errors import CompileError
from ..graph.passes.precision import Policies
from .layers.core import InputLayer
from .lowering import Block
from .operations import Operation

if TYPE_CHECKING:
    from .network import Network

MIXED = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}
"""Keras's policies of float32 weights -> the dtype that layers of them compute in."""


def policies(network: Network) -> Policies | None:
    """What to compute in, where layers of a file have a mixed policy; None where none has.

    A layer without one computes in float32, as in Keras; so does one that the file gives another policy.
    Raises CompileError where layers ask for both mixed policies.
    """
    found = dict(_policies(network))
    dtypes = {MIXED[policy] for policy in found.values() if policy in MIXED}
    if len(dtypes) > 1:
        raise CompileError(
            f"{network.label}: some of its layers have the policy mixed_float16, others mixed_bfloat16; say "
            f"which dtype to compute in, dtype='bfloat16' for example"
        )
    if not dtypes:
        return None
    wide = frozenset(name for name, policy in found.items() if policy and policy not in MIXED)
    return Policies(dtypes.pop(), wide, frozenset(name for name, policy in found.items() if not policy))


def _policies(network: Network, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The name of each layer, as nodes of the graph have it, and its policy; "" for an operation."""
    from .network import Network

    for block in network.layers:
        name = prefix + network.name_of(block)
        inner = block.model_inside or block
        if isinstance(inner, Network):
            yield from _policies(inner, f"{name}/")
        if not isinstance(block, InputLayer | Network):
            yield name, "" if isinstance(block, Operation) else _policy(block)


def _policy(block: Block) -> str:
    """The name of a layer's policy: a text, or an object that holds one."""
    said = block.written.config.get("dtype") if block.written is not None else None
    if isinstance(said, dict):
        said = said.get("config", {}).get("name")
    return said if isinstance(said, str) else "float32"
