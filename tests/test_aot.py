"""Ahead-of-time compilation for targets this machine does not have, and what the resource report says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from convloom.codegen.machine.aot import Request, compile_kernel, compile_many
from convloom.codegen.machine.resources import Resources, _read_amdgcn
from convloom.graph.errors import CompileError
from convloom.planning.targets import DEVICES, TARGETS, device, target
from kernel_sources import MATMUL

SIZES = {"BM": 128, "BN": 64, "BK": 64}
NUMBERS = {"M": "i32:16", "N": "i32:16", "K": "i32:16"}


def signature(dtype: str) -> dict[str, str]:
    return dict.fromkeys(("a_ptr", "b_ptr", "c_ptr"), f"*{dtype}") | NUMBERS


def compile_matmul(target: str, dtype: str = "bf16", **sizes: int) -> Resources:
    constants = {**SIZES, **sizes}
    return compile_kernel(
        MATMUL, "matmul", signature(dtype), constants, target=target, num_warps=4, num_stages=3
    )


@pytest.mark.parametrize(("name", "unit"), [("sm_80", "mma"), ("sm_90", "wgmma"), ("gfx942", "mfma")])
def test_resources_of_a_bfloat16_matmul(name: str, unit: str) -> None:
    found = compile_matmul(name)
    assert set(found.matrix_instructions) == {unit}
    assert found.matrix_instructions[unit] >= 8
    assert found.spills_bytes == 0
    # One float32 sum for each element of the tile must be held in registers, over 4 warps.
    assert 128 * 64 // (4 * target(name).warp_size) <= found.registers <= target(name).registers_per_thread
    # At least one tile of a and of b in shared memory.
    assert (128 + 64) * 64 * 2 <= found.shared_bytes <= target(name).shared_per_block
    assert found.instructions > 100
    assert found.binary_bytes > 1000
    assert 0 < found.occupancy <= 1
    assert found.error is None


def test_float32_without_rounding_uses_no_matrix_unit_on_nvidia() -> None:
    assert compile_matmul("sm_80", "fp32", BM=32, BN=32, BK=16).matrix_instructions == {}


def test_spills_are_seen() -> None:
    """A 256 x 256 tile of float32 sums is 512 registers a thread over 4 warps: it cannot fit."""
    found = compile_matmul("sm_80", BM=256, BN=256, BK=32)
    assert found.registers == 255
    assert found.spills_bytes > 1000


def test_amdgcn_spills_are_read_from_the_metadata() -> None:
    text = (
        "\tv_add_f32 v0, v1, v2\n    .vgpr_count: 512\n    .vgpr_spill_count: 3\n    .sgpr_spill_count: 0\n"
    )
    assert _read_amdgcn(text).spills_bytes == 12
    assert _read_amdgcn(text + "    .private_segment_fixed_size: 64\n").spills_bytes == 64


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("tl.arange(0, BK)", "tl.arange(0, BK - 1)"), r"kernel matmul .* sm_80: .*power of 2"),
        (("tl.cdiv(N, BN)", "tl.cdiv(N, missing)"), r"kernel matmul .* sm_80: .*missing is not defined"),
        (
            (
                "sums.to(",
                "tl.inline_asm_elementwise('nonsense $0, $1;', '=r,r', [sums], tl.float32, True, 1).to(",
            ),
            r"kernel matmul .* sm_80: .*nonsense",
        ),
        (("def matmul(", "def other("), r"no @triton.jit function called 'matmul'"),
    ],
)
def test_a_kernel_that_does_not_compile(change: tuple[str, str], text: str) -> None:
    source = MATMUL.replace(*change)
    with pytest.raises(CompileError, match=text):
        compile_kernel(source, "matmul", signature("bf16"), SIZES, target="sm_80", num_warps=4, num_stages=2)


def test_arguments_must_be_complete() -> None:
    types = {**signature("bf16"), "Z": "i32"}
    del types["M"]
    with pytest.raises(CompileError, match=r"without a type or value: \['M'\].*not arguments of it: \['Z'\]"):
        compile_kernel(MATMUL, "matmul", types, SIZES, target="sm_80", num_warps=4, num_stages=2)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(CompileError, match=r"unknown target 'sm_1'.* Known: .*sm_90.*gfx942"):
        target("sm_1")
    with pytest.raises(CompileError, match=r"unknown device 'K80'; known: .*H200"):
        device("K80")


def test_many_at_once_and_a_worker_that_dies() -> None:
    good = Request(MATMUL, "matmul", signature("fp16"), {"BM": 32, "BN": 32, "BK": 32}, "sm_80")
    wrong = replace(good, target="sm_1")
    deadly = replace(good, source="import os\nos._exit(3)\n")
    answers = compile_many([good, deadly, wrong, replace(good, target="gfx942"), good], jobs=2)
    assert [answer.error is None for answer in answers] == [True, False, False, True, True]
    assert [answer.target for answer in answers] == ["sm_80", "sm_80", "sm_1", "gfx942", "sm_80"]
    assert "ended before answering" in (answers[1].error or "")
    assert "unknown target 'sm_1'" in (answers[2].error or "")
    assert answers[0].registers == answers[4].registers > 0


def test_occupancy_by_hand() -> None:
    hopper, cdna = target("sm_90"), target("gfx942")
    assert hopper.blocks_resident(registers=128, shared_bytes=0, num_warps=4) == 4  # 65536 / (128 * 32) / 4
    assert hopper.blocks_resident(registers=32, shared_bytes=100 * 1024, num_warps=4) == 2  # 228 / 101
    assert hopper.occupancy(registers=32, shared_bytes=0, num_warps=8) == 1.0
    assert hopper.blocks_resident(registers=32, shared_bytes=228 * 1024, num_warps=4) == 0
    assert (
        cdna.blocks_resident(registers=128, shared_bytes=0, num_warps=4) == 4
    )  # 512 / 128 waves a SIMD unit
    assert cdna.blocks_resident(registers=128, shared_bytes=40 * 1024, num_warps=4) == 1


def test_roofline_takes_the_slower_of_the_two() -> None:
    card = device("H200")
    assert card.roofline_seconds(790e12, 0, "bfloat16") == pytest.approx(1.0)
    assert card.roofline_seconds(1.0, 4.3e12, "float32") == pytest.approx(1.0)
    with pytest.raises(CompileError, match="no rate for 'int4'"):
        card.roofline_seconds(1.0, 1.0, "int4")
    assert {entry.target for entry in DEVICES.values()} <= set(TARGETS)
