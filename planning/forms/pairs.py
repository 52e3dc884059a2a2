"""Forms whose programs hold some examples of a batch and walk all others."""

from __future__ import annotations

from ...graph.ops import CircleLoss, CircleLossGrad
from ..cost import CostModel
from ..geometry import power_of_two
from ..regions import Region
from ..schedules import Schedule
from .form import Form, Refusal
from .members import alone

WIDEST = 512
"""Features of an embedding that a program holds in its registers, of its own examples and of others."""

EXAMPLES = 16
"""The fewest that matrix units multiply: the tiles of embeddings fill the registers as it is."""


def _accepts(region: Region) -> Refusal:
    features = region.graph[region.anchor.inputs[0]].type.channels
    if features > WIDEST:
        return f"{region.anchor.name}: an embedding of {features} is wider than the {WIDEST} a program holds"
    return alone(region)


def _schedules(region: Region, model: CostModel) -> list[Schedule]:
    features = max(16, power_of_two(region.graph[region.anchor.inputs[0]].type.channels))
    return [Schedule(EXAMPLES, EXAMPLES, block_k=features, warps=4 if features <= 128 else 8)]


PAIRS = (Form("pairs", (CircleLoss, CircleLossGrad), _accepts, _schedules),)
