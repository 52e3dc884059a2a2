"""The parameters of an optimizer in groups, and the gradients in them clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from ...graph.errors import ConvLoomError

Group = dict[str, Any]
Tensors = list[torch.Tensor]

Parameters = Iterable[torch.nn.Parameter] | Iterable[tuple[str, torch.nn.Parameter]] | Iterable[Group]
"""What torch's optimizers take: parameters, those with their names, or groups of either."""


def grouped(parameters: Parameters, own: Callable[[str | None, torch.Tensor], Group]) -> list[Group]:
    """Groups as torch takes them, split so that the options `own` gives hold for all of a group.

    own: (name or None, parameter) -> the options that are this parameter's.
    """
    given: list[Any] = list(parameters)
    found: list[Group] = []
    for group in given if given and isinstance(given[0], dict) else [{"params": given}]:
        members = group["params"]
        parts: list[Group] = []
        for member in [members] if isinstance(members, torch.Tensor) else members:
            name, parameter = member if isinstance(member, tuple) else (None, member)
            options = own(name, parameter)
            part = next((part for part in parts if part["own"] == options), None)
            if part is None:
                parts.append(part := {"own": options, "params": []})
            part["params"].append(member)
        found += [{**part["own"], **group, "params": part["params"]} for part in parts]
    if not found:
        raise ConvLoomError("the optimizer was given no parameters; give net.parameters()")
    return found


def slopes_of(group: Group) -> Tensors:
    """The gradients of those that have one."""
    return [p.grad for p in group["params"] if p.grad is not None]


@torch.no_grad()
def clip(groups: list[Group]) -> None:
    """Clip gradients as their groups say: what an optimizer is copied, pickled and saved by is its groups."""
    for group in groups:
        slopes = slopes_of(group)
        if not slopes:
            continue
        if group.get("clipvalue") is not None:
            torch._foreach_clamp_min_(slopes, -group["clipvalue"])
            torch._foreach_clamp_max_(slopes, group["clipvalue"])
        elif group.get("clipnorm") is not None:
            limit, norms = group["clipnorm"], torch._foreach_norm(slopes)
            torch._foreach_mul_(slopes, [limit / norm.clamp(min=limit) for norm in norms])
    clipped = [group for group in groups if group.get("global_clipnorm") is not None]
    if slopes := [slope for group in clipped for slope in slopes_of(group)]:
        limit = clipped[0]["global_clipnorm"]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(slopes)))
        torch._foreach_mul_(slopes, limit / norm.clamp(min=limit))
