"""What each position of a batch counts in a loss, from sample weights and from what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch

from ..errors import ShapeError
from ..types import Dim

if TYPE_CHECKING:
    from .base import Loss


def position_weights(
    loss: Loss,
    weight: torch.Tensor | None,
    target: torch.Tensor,
    output: tuple[int, ...],
    shape: Sequence[Dim],
) -> torch.Tensor:
    """Weights of this shape, in float32: a mean of values times these is what the reduction says.

    weight: one for each example, or of the shape of the loss's values, with sizes of 1 anywhere. shape: what
    the graph takes, the batch first, and 1 on the axes that belong to one position.
    Where nothing is left, nothing counts: all weights are 0.
    """
    size = (len(target), *(int(dim) for dim in shape[1:]))
    device = target.device
    counted = loss.counted(target, output)
    given = torch.ones((), device=device) if weight is None else _aligned(loss, weight.to(device), size)
    if counted is not None:
        given = given * counted.reshape(size)
    if loss.reduction == "mean_with_sample_weight":
        given = given * _share(prod(size), given.sum())
    elif counted is not None and loss.reduction in ("mean", "sum_over_batch_size"):
        given = given * _share(prod(size), counted.sum())
    return given.to(torch.float32).expand(size).contiguous()


def _share(positions: int, total: torch.Tensor) -> torch.Tensor:
    """positions / total, 0 for a total of 0."""
    return torch.where(total == 0, 0.0, positions / total)


def _aligned(loss: Loss, weight: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Sample weights as they lie against values of this size."""
    weight = weight.to(torch.float32)
    if weight.shape == size[:1]:
        return weight.reshape(-1, *(1 for _ in size[1:])).expand(size)
    real = [place for place, n in enumerate(size) if place == 0 or n != 1]
    given = list(weight.shape)
    if len(given) > len(real) and given[-1] == 1:
        given.pop()
    between = [1] * len(size)
    if len(given) == len(real):
        for place, n in zip(real, given, strict=True):
            between[place] = n
        given = between
    if len(given) == len(size) and all(a in (1, b) for a, b in zip(given, size, strict=True)):
        return weight.reshape(given)
    raise ShapeError(
        f"{loss.keras_name}: sample weights have shape {tuple(weight.shape)}, and the loss has numbers of "
        f"shape {tuple(size[place] for place in real)}; give one weight for each example, ({size[0]},), or "
        f"one for each number"
    )
