"""What a compiled kernel uses, read from the binary that the compiler made."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...graph.errors import CompileError
from ...planning.targets import Target
from .loops import amdgcn_loop, sass_loop

# Instructions of the matrix units, under the name each vendor's manuals give the unit.
_MATRIX_INSTRUCTIONS = (
    ("wgmma", re.compile(r"[HIQ]GMMA")),
    ("tcgen05", re.compile(r"UTC\w*MMA")),
    ("mma", re.compile(r"[HIQDO]MMA")),
    ("mfma", re.compile(r"v_s?mfma\w*")),
    ("wmma", re.compile(r"v_s?wmma\w*")),
)
# "        /*0120*/   @!P0 LDG.E.128 R4, [R2] ;": an address, perhaps a predicate, the operation.
_SASS_LINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
# LDG.E.128 and LDGSTS.E.BYPASS.128; AMD's global_load_dwordx4 and buffer_load_ushort.
_SASS_LOAD = re.compile(r"LDG(?:STS)?\.(?:[\w.]*\.)?(U8|S8|U16|S16|64|128|256)\b|LDG(?:STS)?\.")
_AMD_LOAD = re.compile(r"(?:global|buffer|flat)_load_(\w+)")
_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_BYTES |= {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
_AMDGCN_LINE = re.compile(r"^\t([a-z]+_[a-z0-9_]+)", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one target. All numbers are 0 where `error` says why it did not compile."""

    kernel: str
    target: str
    registers: int = 0  # of a thread
    spills_bytes: int = 0  # that the code of a thread writes to and reads from memory for want of registers
    shared_bytes: int = 0  # of a block
    instructions: int = 0
    loads: dict[int, int] = field(default_factory=dict)  # from memory: bytes of a thread -> instructions
    loop: dict[str, int] = field(default_factory=dict)  # instructions of a step of its main loop
    matrix_instructions: dict[str, int] = field(default_factory=dict)  # {"wgmma": 8}; empty: no matrix unit
    occupancy: float = 0.0  # resident warps over the most the processor holds; 0: not even one block fits
    binary_bytes: int = 0
    compile_seconds: float = 0.0  # near 0 where Triton's cache held the result
    error: str | None = None

    @property
    def loop_instructions(self) -> int:
        """Of one step of its main loop; 0 where there is none, or it is written out."""
        return sum(self.loop.values())

    def __str__(self) -> str:
        if self.error:
            return f"{self.kernel}: {self.error}"
        units = ", ".join(f"{unit} x{count}" for unit, count in self.matrix_instructions.items()) or "none"
        return (
            f"{self.kernel}: {self.registers} registers, {self.spills_bytes} bytes spilled, "
            f"{self.shared_bytes / 1024:.1f} KiB shared, matrix unit {units}, "
            f"occupancy {100 * self.occupancy:.0f} %, on {self.target}"
        )


@dataclass(frozen=True)
class _Code:
    """What the disassembly says."""

    registers: int
    spills_bytes: int
    operations: Counter[str]
    loop: Counter[str]


def read_resources(compiled: Any, kernel: str, target: Target, num_warps: int, seconds: float) -> Resources:
    """Resources of `compiled`, a result of `triton.compile` for `target`."""
    nvidia = target.gpu.backend == "cuda"
    binary: bytes = compiled.asm["cubin" if nvidia else "hsaco"]
    code = _read_cubin(binary) if nvidia else _read_amdgcn(compiled.asm["amdgcn"])
    shared = int(compiled.metadata.shared)
    return Resources(
        kernel=kernel,
        target=target.name,
        registers=code.registers,
        spills_bytes=code.spills_bytes,
        shared_bytes=shared,
        instructions=code.operations.total(),
        loads=_loads(code.operations),
        loop=dict(code.loop),
        matrix_instructions=_matrix_instructions(code.operations),
        occupancy=target.occupancy(code.registers, shared, num_warps),
        binary_bytes=len(binary),
        compile_seconds=seconds,
    )


def _matrix_instructions(operations: Counter[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for operation, count in operations.items():
        name = operation.split(".")[0]
        unit = next((unit for unit, pattern in _MATRIX_INSTRUCTIONS if pattern.fullmatch(name)), None)
        if unit is not None:
            counts[unit] = counts.get(unit, 0) + count
    return counts


def _loads(operations: Counter[str]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for operation, count in operations.items():
        if found := _SASS_LOAD.match(operation):
            counts[_BYTES[found[1]] if found[1] else 4] += count
        elif found := _AMD_LOAD.match(operation):
            kind = found[1]
            counts[_BYTES.get(kind.split("_")[0], 1 if "byte" in kind else 2)] += count
    return dict(sorted(counts.items()))


def _read_cubin(binary: bytes) -> _Code:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(binary)
        usage = _cuobjdump("--dump-resource-usage", str(path))
        sass = _cuobjdump("--dump-sass", str(path))
    found = re.search(r"REG:(\d+)", usage)
    if found is None:
        raise CompileError(
            f"cuobjdump reports no register count for this kernel; it printed: {usage.strip()}"
        )
    operations = Counter(name for name in _SASS_LINE.findall(sass) if name != "NOP")
    spills = sum(count * _local_bytes(name) for name, count in operations.items())
    return _Code(int(found[1]), spills, operations, sass_loop(sass))


def _local_bytes(operation: str) -> int:
    """Bytes that a load or store of local memory moves: LDL is 4, STL.64 is 8. Triton only spills there."""
    name, *suffixes = operation.split(".")
    if name not in ("LDL", "STL"):
        return 0
    return next((int(suffix) // 8 for suffix in suffixes if suffix in ("64", "128")), 4)


def _cuobjdump(*arguments: str) -> str:
    tool = _nvidia_tool("cuobjdump")
    result = subprocess.run([str(tool), *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CompileError(f"{tool} failed: {result.stderr.strip()}")
    return result.stdout


def _nvidia_tool(name: str) -> Path:
    """One of the CUDA tools that come inside the triton package, wherever this version keeps it."""
    import triton

    package = Path(triton.__file__).parent
    usual = package / "backends" / "nvidia" / "bin" / name
    found = [usual] if usual.exists() else sorted(package.rglob(name))
    if not found:
        raise CompileError(f"triton {triton.__version__} holds no {name}; install its wheel from PyPI")
    return found[0]


def _read_amdgcn(assembly: str) -> _Code:
    """Read AMD's assembly text; its metadata is described in LLVM's "User Guide for AMDGPU Backend"."""
    numbers = {
        name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", assembly, re.MULTILINE)
    }
    spilled_registers = numbers.get("vgpr_spill_count", 0) + numbers.get("sgpr_spill_count", 0)
    spills = max(4 * spilled_registers, numbers.get("private_segment_fixed_size", 0))
    operations = Counter(name for name in _AMDGCN_LINE.findall(assembly) if name != "s_nop")
    return _Code(numbers["vgpr_count"], spills, operations, amdgcn_loop(assembly))
