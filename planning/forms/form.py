"""What a form is: a way to compute a kind of region, with all that its kernels cannot do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...graph.errors import CompileError
from ...graph.ir import Node
from ...graph.op import Kind, Op
from ..cost import CostModel
from ..products import Product
from ..regions import Region
from ..schedules import Schedule
from ..splits import Split

Refusal = str | None
"""Why not, as a sentence for a person; None where nothing stands against it."""


class NotEmittable(CompileError):
    """A region that no form accepts; the runtime computes it with PyTorch's own operators instead."""


def _takes_any(region: Region, schedule: Schedule) -> Refusal:
    return None


def _no_product(region: Region) -> Product | None:
    return None


def _no_split(region: Region, schedule: Schedule) -> Split | None:
    return None


@dataclass(frozen=True)
class Form:
    """A way to compute a kind of region; the table of all is FORMS.

    name: its emitter's name in codegen/dispatch.py.
    anchors: the ops whose regions it computes, or the kind of all of them.
    accepts: why its kernel cannot compute a region, or None. Every limit of the kernel stands here, since
        fusion asks it: what it accepts, the emitter writes. It looks at each member a few times and no
        further, for it is asked at every edge of a graph.
    schedules: those on offer for a region it accepts, the one expected to be fastest first.
    takes: why a schedule from elsewhere does not fit the region, or None.
    product: the product that the anchor computes, for the cost model; None where there is none.
    lays_out: whether what stands before the anchor is computed once for each element, by a kernel that runs
        first, and not as often as a product gathers it.
    counts_prologue: whether its cost holds what stands before the anchor, as often as it computes it.
    cost: what the model believes a kernel takes, in seconds, where that is neither its bytes at the memory's
        rate nor a product's tiles.
    waits_for: what most of that goes to, where it has a cost of its own and is no product.
    split: how its sums are cut into parts, which a second kernel adds up; None where they are not.
    row_by_row: whether each result is stored in rows of channels, element by element, by the program that has
        read there what epilogue members read. Then the rows may be parts of wider ones, and a result may take
        the place of such an operand.
    reads_rows: the operands of the anchor, by position, that are read by pixel and channel, so that their
        rows may be parts of wider ones. So is then what pointwise members read, if it has their shape. None
        where a kernel takes every operand in one piece.
    """

    name: str
    anchors: Kind | tuple[type[Op], ...]
    accepts: Callable[[Region], Refusal]
    schedules: Callable[[Region, CostModel], list[Schedule]]
    takes: Callable[[Region, Schedule], Refusal] = _takes_any
    product: Callable[[Region], Product | None] = _no_product
    split: Callable[[Region, Schedule], Split | None] = _no_split
    row_by_row: bool = False
    reads_rows: range | None = None
    lays_out: bool = False
    counts_prologue: bool = False
    cost: Callable[[Region, Schedule, CostModel], float] | None = None
    waits_for: Callable[[Region, Schedule, CostModel], str] | None = None

    def in_rows(self, region: Region, operand: Node) -> bool:
        """Whether it reads an operand of a region by pixel and channel, wherever it reads it."""
        rows, shape = self.reads_rows, operand.type.shape
        return rows is not None and all(
            node.type.shape == shape if node.op.kind is Kind.POINTWISE else place in rows
            for node in region.nodes
            for place, name in enumerate(node.inputs)
            if name == operand.name
        )

    def concerns(self, op: Op) -> bool:
        """Whether regions with this anchor are of its kind."""
        return op.kind is self.anchors if isinstance(self.anchors, Kind) else isinstance(op, self.anchors)

    def candidates(self, region: Region, model: CostModel) -> list[Schedule]:
        """Schedules that fit the model's target, best first. Raises NotEmittable where none does."""
        found = self.schedules(region, model)
        if not found:
            raise NotEmittable(
                f"{region.name}: no tiles of a {self.name} fit into the shared memory and registers of "
                f"{model.target.name}"
            )
        return found

    def seconds(self, region: Region, schedule: Schedule, model: CostModel) -> float:
        """What the model believes the kernel takes."""
        if self.cost is not None:
            return self.cost(region, schedule, model)
        return model.seconds(region, schedule, self.product(region))

    def reason(self, region: Region, schedule: Schedule, model: CostModel) -> str:
        """What the model believes most of the time goes to."""
        if self.waits_for is not None:
            return self.waits_for(region, schedule, model)
        return model.reason(region, schedule, self.product(region))

    def __str__(self) -> str:
        return self.name
