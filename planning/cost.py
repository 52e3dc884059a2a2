"""What is believed about a device: how long a schedule takes, and what fusing saves and costs.

`CostModel` is all that stands between what is scheduled and what it is believed to cost: whoever ranks or
decides asks it and knows no rates, and a better model, or measurements, take its place without a change
elsewhere. It estimates in order to compare; none of its seconds was ever on a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ..graph.types import HALF
from .batches import USUAL
from .product_time import LAUNCH_SECONDS, ProductTime
from .products import Product
from .regions import Region
from .schedules import Schedule
from .targets import DEVICES, Device, Target, target_and_device

SQUARE_RATE = 0.8
"""A tile of 128 x 128 reaches 0.8 of the matrix units' rate: what the bytes that its instructions read come
to at the shared memory's width."""

REGISTER_INSTRUCTIONS = 8
"""Instructions an element takes, beside its arithmetic, where a prologue stands between shared memory and
matrix units that would have read it there: a compiled 3x3 kernel of 128 x 128 x 64 with batch norm and relu
before it has 338 instructions a step more, for 32 elements a thread, of which two or three each compute."""


class CostModel:
    """What a target costs. precision: of float32 products. batch: images of a call."""

    def __init__(
        self, target: Target, device: Device, precision: str = "ieee", batch: int = USUAL
    ) -> None:
        self.target, self.device = target, device
        self.precision, self.batch = precision, batch

    @staticmethod
    def of(target: str = "sm_90", precision: str = "ieee", batch: int = USUAL) -> CostModel:
        """The model of an architecture or a card, by name. Raises CompileError for an unknown one."""
        return _model(target, precision, batch)

    # -- kernels -------------------------------------------------------------------------------------------
    def seconds(self, region: Region, schedule: Schedule, work: Product | None = None) -> float:
        """The time of one kernel. work: the product its anchor computes, for a contraction."""
        if work is not None:
            return self.product(work, schedule, region.cost(self.batch).bytes).seconds
        return LAUNCH_SECONDS + self.moving(region.cost(self.batch).bytes)

    def reason(self, region: Region, schedule: Schedule, work: Product | None = None) -> str:
        """What most of a kernel's time goes to."""
        if work is None:
            return "its bytes"
        return self.product(work, schedule, region.cost(self.batch).bytes).reason

    def product(self, work: Product, schedule: Schedule, num_bytes: float = 0.0) -> ProductTime:
        """The time of a product and what it goes to. num_bytes: that cross between the kernel and memory."""
        dtype = self.compute_dtype(work.dtype)
        return ProductTime(
            work, schedule, self.target, self.device, dtype, self.rate(work.dtype), self.batch, num_bytes,
            self.on_matrix_units(work.dtype), self.target.groups_of_warps and dtype in HALF,
        )  # fmt: skip

    # -- rates ---------------------------------------------------------------------------------------------
    def compute_dtype(self, dtype: str) -> str:
        """What numbers of this type are multiplied as."""
        return "tf32" if dtype == "float32" and self.precision == "tf32" else dtype

    def rate(self, dtype: str) -> float:
        """FLOP/s of products of this type; of float64, which no card is bought for, half of float32's."""
        found = self.device.flops.get(self.compute_dtype(dtype))
        return self.device.flops["float32"] / 2 if found is None else found

    def moving(self, num_bytes: float) -> float:
        """Seconds that so many bytes take to or from memory."""
        return num_bytes / self.device.bandwidth

    def computing(self, flops: float, dtype: str) -> float:
        """Seconds of a product of so many FLOPs, at the rate a good tile reaches."""
        return flops / (SQUARE_RATE * self.rate(dtype))

    def issuing(self, instructions: float) -> float:
        """Seconds of so many instructions on single numbers; the float32 rate counts two FLOPs each."""
        return instructions / (self.device.flops["float32"] / 2)

    def operands_in_registers(self, dtype: str) -> bool:
        """Whether matrix instructions read their operands from registers, not from shared memory (sm_90)."""
        from_shared = self.compute_dtype(dtype) in HALF and self.target.name in ("sm_90", "sm_100")
        return self.on_matrix_units(dtype) and not from_shared

    def on_matrix_units(self, dtype: str) -> bool:
        """Whether tl.dot becomes matrix instructions; NVIDIA has none for plain float32."""
        return self.compute_dtype(dtype) != "float32" or self.target.gpu.backend == "hip"

    # -- fusing --------------------------------------------------------------------------------------------
    def through_registers(self, work: Product) -> int:
        """Instructions an element that is gathered takes because something is computed of it first."""
        there = work.flattened or not self.on_matrix_units(work.dtype)
        return 0 if there or self.operands_in_registers(work.dtype) else REGISTER_INSTRUCTIONS

    @staticmethod
    def saved_bytes(merged: Region, parts: Sequence[Region]) -> int:
        """Bytes an image that cross between memory and the parts apart, but not where they are one kernel."""
        return sum(part.cost(1).bytes for part in parts) - merged.cost(1).bytes


@lru_cache(maxsize=256)
def _model(target: str, precision: str, batch: int) -> CostModel:
    """One model for all who ask, so that what was ranked with it can be kept under it."""
    found, card = target_and_device(target, "H100")
    return CostModel(found, card or DEVICES["A100"], precision, batch)
