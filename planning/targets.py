"""The GPUs that kernels are compiled for, as data: what one kernel may use, and how fast the device is.

A *target* is an architecture: what ahead-of-time compilation and the schedule filter need.
A *device* is a card of some architecture: what the roofline needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from ..graph.errors import CompileError, unknown

KIB = 1024


@dataclass(frozen=True)
class Chip:
    """What Triton calls an architecture: its backend ("cuda" or "hip"), its name there, threads in a warp."""

    backend: str
    arch: int | str
    warp_size: int


@dataclass(frozen=True)
class Target:
    """One architecture. A *processor* is a streaming multiprocessor (NVIDIA) or a compute unit (AMD).

    Each processor has four partitions, and a warp lives in one of them. Registers hold 32 bits.
    """

    name: str
    gpu: Chip
    shared_per_block: int  # bytes one block may ask for
    shared_per_processor: int  # bytes all resident blocks share
    shared_reserved: int  # bytes the system takes for each block, beside what the block asks for
    warps_per_processor: int
    blocks_per_processor: int
    registers_per_partition: int  # over all lanes of all warps in it
    registers_per_thread: int  # beyond these the compiler spills
    products: tuple[int, int, int]  # that a processor adds up in a cycle: of 16 bits, of tf32, of float32

    @property
    def warp_size(self) -> int:
        """Threads in a warp: 32 on NVIDIA, 64 in an AMD wavefront."""
        return self.gpu.warp_size

    @property
    def groups_of_warps(self) -> bool:
        """Whether four warps multiply together, and read operands of 16 bits from shared memory."""
        return self.gpu.arch in (90, 100)

    @property
    def whole_tile_products(self) -> bool:
        """Whether one instruction multiplies for a whole block, which reads its operands once (tcgen05)."""
        return self.gpu.arch == 100

    def products_a_cycle(self, dtype: str) -> float:
        """Multiplications and additions of a processor in a cycle; of float64, half of float32's."""
        half, tf32, single = self.products
        known: dict[str, float] = {"bfloat16": half, "float16": half, "tf32": tf32, "float64": single / 2}
        return known.get(dtype, single)

    def blocks_resident(self, registers: int, shared_bytes: int, num_warps: int) -> int:
        """Blocks that fit on one processor at once; 0 if not even one does.

        Follows NVIDIA's occupancy calculator: a warp takes registers in steps of eight per thread.
        """
        if shared_bytes > self.shared_per_block or registers > self.registers_per_thread:
            return 0
        per_warp = max(8, -(-registers // 8) * 8) * self.warp_size
        warps = min(self.warps_per_processor, 4 * (self.registers_per_partition // per_warp))
        by_shared = self.shared_per_processor // max(1, shared_bytes + self.shared_reserved)
        return min(warps // num_warps, by_shared, self.blocks_per_processor)

    def occupancy(self, registers: int, shared_bytes: int, num_warps: int) -> float:
        """Resident warps over the most the processor holds, 0 to 1."""
        return self.blocks_resident(registers, shared_bytes, num_warps) * num_warps / self.warps_per_processor


def _nvidia(
    capability: int, shared_kib: int, warps: int, blocks: int, products: tuple[int, int, int]
) -> Target:
    return Target(
        name=f"sm_{capability}",
        gpu=Chip("cuda", capability, 32),
        shared_per_block=(shared_kib - 1) * KIB,
        shared_per_processor=shared_kib * KIB,
        shared_reserved=KIB,
        warps_per_processor=warps,
        blocks_per_processor=blocks,
        registers_per_partition=16 * KIB,
        registers_per_thread=255,
        products=products,
    )


def _amd(arch: str, shared_kib: int, products: tuple[int, int, int]) -> Target:
    return Target(
        name=arch,
        gpu=Chip("hip", arch, 64),
        shared_per_block=shared_kib * KIB,
        shared_per_processor=shared_kib * KIB,
        shared_reserved=0,
        warps_per_processor=32,
        blocks_per_processor=32,
        registers_per_partition=512 * 64,
        registers_per_thread=512,
        products=products,
    )


# NVIDIA: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
# AMD: CDNA2, CDNA3 and CDNA4 instruction set reference guides: 512 vector registers for each lane of a SIMD
# unit (ordinary and accumulation registers together), eight wavefronts a SIMD unit, four SIMD units.
# Products: the white papers of A100, GA102, Ada, H100, and CDNA2 to CDNA4; else a data sheet's rate over its
# processors and clock. tf32 on cards without it is float32's.
TARGETS: dict[str, Target] = {
    entry.name: entry
    for entry in (
        _nvidia(80, shared_kib=164, warps=64, blocks=32, products=(1024, 512, 64)),
        _nvidia(86, shared_kib=100, warps=48, blocks=16, products=(512, 256, 128)),
        _nvidia(89, shared_kib=100, warps=48, blocks=24, products=(512, 256, 128)),
        _nvidia(90, shared_kib=228, warps=64, blocks=32, products=(2048, 1024, 128)),
        _nvidia(100, shared_kib=228, warps=64, blocks=32, products=(4096, 2048, 128)),
        _nvidia(120, shared_kib=100, warps=48, blocks=24, products=(512, 256, 128)),
        _amd("gfx90a", shared_kib=64, products=(512, 128, 128)),
        _amd("gfx942", shared_kib=64, products=(1024, 512, 128)),
        _amd("gfx950", shared_kib=160, products=(2048, 128, 128)),
    )
}


def target_of(device: torch.device) -> str:
    """The target kernels are made for on a device; for the CPU, where they are only interpreted, sm_90.

    A GPU this table does not know gets the schedules of the nearest older one of its maker.
    """
    if device.type != "cuda":
        return "sm_90"
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        name = str(properties.gcnArchName).partition(":")[0]
        return name if name in TARGETS else "gfx942"
    capability = 10 * properties.major + properties.minor
    known = sorted(int(name[3:]) for name in TARGETS if name.startswith("sm_"))
    return f"sm_{max((k for k in known if k <= capability), default=known[0])}"


def card_of(device: torch.device) -> str:
    """What schedules are chosen for on a device: its card where its rates are known, or its target."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        own = next((card for card in DEVICES.values() if card.name in name), None)
        if own is not None and own.target == target_of(device):
            return own.name
    return target_of(device)


@dataclass(frozen=True)
class Device:
    """A named GPU and the rates its roofline is drawn with: FLOP/s for each compute dtype, and bytes/s.

    cache: bytes/s from its L2 cache.
    """

    name: str
    target: str
    processors: int
    flops: dict[str, float]
    bandwidth: float
    cache: float

    def roofline_seconds(self, flops: float, num_bytes: float, dtype: str) -> float:
        """The least time for so many operations in `dtype` ("bfloat16", "tf32", ...) and bytes of memory."""
        if dtype not in self.flops:
            raise CompileError(f"{self.name} has no rate for {dtype!r}; known: {', '.join(self.flops)}")
        return max(flops / self.flops[dtype], num_bytes / self.bandwidth)


def _rates(half: float, tf32: float, fp32: float) -> dict[str, float]:
    """FLOP/s from TFLOP/s: dense matrix products with 16-bit and tf32 operands, and plain float32."""
    rates = {"bfloat16": half, "float16": half, "tf32": tf32, "float32": fp32}
    return {dtype: tera * 1e12 for dtype, tera in rates.items()}


DEVICES: dict[str, Device] = {
    entry.name: entry
    for entry in (
        # NVIDIA A100 data sheet (SXM, 80 GB), without sparsity; its white paper: 5,120 bytes of L2 a cycle.
        Device("A100", "sm_80", 108, _rates(312.0, 156.0, 19.5), 2.039e12, 7.2e12),
        # NVIDIA H100 data sheet (SXM), without sparsity; as many bytes of L2 a cycle as the A100's, a guess.
        Device("H100", "sm_90", 132, _rates(989.4, 494.7, 66.9), 3.35e12, 9.0e12),
        # Measured rates of a bfloat16 matrix product and of a copy. The data sheet's are 989.4 TFLOP/s and
        # 4.8 TB/s; its tf32 rate is scaled by what bfloat16 reaches of its own. The cache as the H100's.
        Device("H200", "sm_90", 132, _rates(790.0, 395.0, 66.9), 4.3e12, 9.0e12),
        # NVIDIA HGX B200 data sheet, an eighth of it, without sparsity; the cache twice the H100's, a guess.
        Device("B200", "sm_100", 148, _rates(2250.0, 1125.0, 75.0), 8.0e12, 18.0e12),
        # AMD Instinct MI300X data sheet, without sparsity; the cache is the Infinity Cache's peak.
        Device("MI300X", "gfx942", 304, _rates(1307.4, 653.7, 163.4), 5.3e12, 17.2e12),
    )
}


def target(name: str) -> Target:
    """The target called `name`: an architecture such as "sm_90", or a card such as "H200" for its own.

    Upper and lower case are the same. Raises CompileError that lists the known ones.
    """
    card = _find(name, DEVICES)
    found = TARGETS[card.target] if card else _find(name, TARGETS)
    if found is None:
        raise CompileError(unknown("target", name, [*DEVICES, *TARGETS]))
    return found


def known_as(name: str) -> str:
    """A target's own name, of a card or an architecture. Raises CompileError for an unknown one."""
    card = _find(name, DEVICES)
    return card.name if card else target(name).name


def device(name: str) -> Device:
    """The device called `name`, such as "H200"; raises CompileError that lists the known ones."""
    found = _find(name, DEVICES)
    if found is None:
        raise CompileError(unknown("device", name, DEVICES))
    return found


def target_and_device(name: str, default: str) -> tuple[Target, Device | None]:
    """What `target` finds, and the card: of that name, or one of that architecture, first of all `default`.

    None where no rates of such a card are known.
    """
    found = target(name)
    cards = [DEVICES[default], *DEVICES.values()]
    of_it = next((card for card in cards if card.target == found.name), None)
    return found, _find(name, DEVICES) or of_it


_Entry = TypeVar("_Entry", Target, Device)


def _find(name: object, known: Mapping[str, _Entry]) -> _Entry | None:
    wanted = name.strip().lower() if isinstance(name, str) else None
    return next((entry for own, entry in known.items() if own.lower() == wanted), None)
