"""The weights of a network by name, out of a checkpoint and into one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...graph.errors import ConvLoomError, ModelFormatError
from ..network import CompiledNetwork
from . import storage


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` found. epoch: how many had ended. steps: of the optimizer. history: by name."""

    path: Path
    epoch: int
    steps: int
    history: dict[str, list[float]] = field(repr=False)


def weights_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its weights and statistics by their names, as they are."""
    return net.weights() if isinstance(net, CompiledNetwork) else dict(net.state_dict())


@torch.no_grad()
def put_weights(weights: Mapping[str, torch.Tensor], held: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a checkpoint's weights into these tensors. Raises ConvLoomError, before any is, for others."""
    missing = [name for name in held if name not in weights]
    strange = [name for name in weights if name not in held]
    shapes = [
        f"{name} is {list(held[name].shape)} here and {list(value.shape)} there"
        for name, value in weights.items()
        if name in held and held[name].shape != value.shape
    ]
    if missing or strange or shapes:
        told = [f"it has no {name}" for name in missing[:2]]
        told += [f"nothing here is called {name}" for name in strange[:2]]
        raise ConvLoomError(f"checkpoint {path} is of another network: {'; '.join([*told, *shapes[:2]])}")
    for name, value in weights.items():
        held[name].copy_(value)


def load_checkpoint(net: Any, path: str | os.PathLike[str]) -> Checkpoint:
    """Put the weights of a training run's newest whole checkpoint into a model or a compiled network.

    net: of the same layers' names and shapes; it predicts with them then. path: the folder that was given to
    `fit` as checkpoint=, or one checkpoint in it.
    Raises ModelFormatError where there is no whole checkpoint, ConvLoomError where it is of another network.
    """
    folder = Path(path)
    if (folder / storage.MANIFEST).is_file():
        place, content = folder, storage.read(folder)
    else:
        found = storage.find(folder)
        if found is None:
            raise ModelFormatError(f"{folder} holds no checkpoint; give the folder that fit wrote them to")
        place, content = found
    if isinstance(net, torch.nn.Module):
        put_weights(content.weights, weights_of(net), place)
    elif hasattr(net, "to_graph"):
        values = {name: net.parameters[name].detach().clone() for name in net.parameters}
        put_weights(content.weights, values, place)
        for name, value in values.items():
            net.parameters[name] = value
    else:
        raise ConvLoomError(f"load_checkpoint takes a model or a network, found {type(net).__name__}")
    state = content.state["training"]
    return Checkpoint(place, state["epoch"], state["steps"], dict(state["history"]["history"]))
