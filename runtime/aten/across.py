"""Steps of a program that one operator computes together, though each would be a kernel of its own.

A batch norm's mean and variance are two sums, the second of which needs the first: two kernels, and one call
of PyTorch's. The call is made at the turn of the later step, where all it reads is still there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...graph.values import laid_out
from ...planning.program import Step
from ..instructions import Instruction
from .joint import batch_norm_takes, over_pixels
from .layout import Lay
from .lowering import lower
from .statistics import statistics, variance


def lower_steps(
    steps: Sequence[Step], inference: bool, lay: Lay = laid_out
) -> list[tuple[Step, Sequence[Instruction]]]:
    """Each step with its instructions: see `lower`. A step that another one computes has none."""
    lowered: list[tuple[Step, Sequence[Instruction]]] = []
    means: dict[str, int] = {}
    """Means that nobody has read yet, and the steps they are of."""
    for step in steps:
        code: Sequence[Instruction] = lower(step.region, inference, lay)
        joint = _with_its_mean(step, code, means)
        if joint is not None:
            lowered[means[joint.writes[0]]] = lowered[means[joint.writes[0]]][0], ()
            code = (joint,)
        for name in step.reads:
            means.pop(name, None)
        if _is_mean(step):
            means[step.writes[0]] = len(lowered)
        lowered.append((step, code))
    return lowered


def _is_mean(step: Step) -> bool:
    """Whether the step is the mean of each channel of a batch of images, and nothing else."""
    nodes = step.region.nodes
    return len(nodes) == 1 and over_pixels(nodes[0], mean=True) and batch_norm_takes(step.region.inputs[0])


def _with_its_mean(step: Step, code: Sequence[Instruction], means: dict[str, int]) -> Instruction | None:
    """Mean and variance in one call, where this step is the variance and the mean is read here first."""
    if len(code) != 1 or code[0].run is not variance:
        return None
    x = code[0].reads[0]
    mean = next((name for name in step.reads if name != x), None)
    return Instruction(statistics, (x,), (mean, *code[0].writes)) if mean in means else None
