"""What `compile` is asked for: of what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from ..graph.ir import Graph
from ..graph.passes.precision import Policies
from ..planning.targets import card_of


@dataclass(frozen=True)
class Options:
    """How a network is compiled; see `compile`. planned_for: a card or an architecture other than the
    device's. sync_batch_norm: in training batch norms take the statistics of all processes. policies: of the
    model's layers, where they say the dtype."""

    device: torch.device
    backend: str
    dtype: str
    fuse: bool
    planned_for: str = ""
    sync_batch_norm: bool = False
    policies: Policies | None = None

    @property
    def target(self) -> str:
        """The card, or the architecture, that programs are planned for."""
        return self.planned_for or card_of(self.device)

    @property
    def recompute(self) -> bool:
        """Whether a backward pass computes anew what is cheap: on a GPU each would be one more kernel."""
        return self.backend == "aten"

    @property
    def compute_dtype(self) -> str:
        return "float32" if self.dtype == "tf32" else self.dtype

    @property
    def kept_dtype(self) -> torch.dtype:
        """That of parameters and their gradients."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    @property
    def precision(self) -> str:
        return "tf32" if self.dtype == "tf32" else "ieee"


class ModelLike(Protocol):
    """What can be compiled: a graph and the values of its parameters.

    Parameters that are a `Holder` stay tied to the network's. `changes`, where a model has it, grows whenever
    layers are frozen or freed; `masked_outputs` are those that `fit` refuses, since it carries no masks.
    A model that leaves axes open has `open_axes` and `described_at` too, and its `to_graph` takes
    `input_shape`. `policies` says what to compute in where `compile` is not told.
    """

    def to_graph(self) -> Graph: ...

    @property
    def parameters(self) -> Mapping[str, torch.Tensor]: ...


@runtime_checkable
class Thawing(Protocol):
    """A model of layers, which can be frozen. Its `to_graph` takes `thawed`: as if none were."""

    @property
    def trainable(self) -> bool: ...
