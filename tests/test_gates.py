"""What whole networks compile to, as `make gates` wrote it down, and what their plans say today."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import estimates
import gates
import pytest
from convloom.codegen.machine.loops import amdgcn_loop, multiplied, sass_loop
from convloom.codegen.machine.resources import Resources, _loads

TABLE: dict[str, Any] = gates.read()
ROWS: dict[str, Any] = TABLE["rows"]

TWO_SCREENS = 100
"""Lines that the longest function may have."""


# -- the table -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ROWS)
def test_everything_compiles_without_spills_and_onto_matrix_units(name: str) -> None:
    row = ROWS[name]
    assert row["failures"] == []
    assert row["without kernel"] == []
    assert row["spills"] == {}
    assert row["without units"] == []
    assert 0 < row["compiled"] <= row["functions"] <= 3 * row["kernels"]
    assert row["lines"] <= TWO_SCREENS


@pytest.mark.parametrize("name", [name for name in ROWS if (ROWS[name]["programs"] or {}).get("worth")])
def test_no_convolution_of_some_length_leaves_most_of_the_card_idle_at_batch_1(name: str) -> None:
    """Of U-Net and VGG-16 some large tiles leave up to half of it: smaller tiles or shared sums that fill it
    would take 1.25 to 1.6 times as long in the model."""
    programs = ROWS[name]["programs"]
    fewest, where = programs["worth"]
    assert fewest >= 0.45 * programs["processors"], where


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("ResNet-50 inference")])
def test_every_convolution_of_resnet_50_fills_the_card_at_batch_1(name: str) -> None:
    programs = ROWS[name]["programs"]
    assert programs["fewest"] >= programs["processors"], programs["where"]


def test_the_rows_are_those_of_every_case() -> None:
    known = {" ".join(way) for way in gates.every()}
    assert set(ROWS) <= known
    assert list(TABLE["estimates"]) == [f"{name} {mode} {batch}" for name, mode, batch in estimates.CASES]


# -- the plan's part -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "batch"), [("MobileNetV2", 256), ("VGG-16", 32)])
def test_estimates_are_those_of_the_table(name: str, batch: int) -> None:
    """They may only fall: then run `make gates`."""
    kept = TABLE["estimates"][f"{name} inference {batch}"]
    found = estimates.estimated(name, "inference", batch)
    assert found["us"] <= 1.01 * kept["us"]
    assert all(far["reason"] for far in found["far"])


def test_functions_of_a_program_are_told_apart_by_their_keys() -> None:
    program = gates.program_of("LeNet-5", "training", "bfloat16", "sm_90")
    found = gates.functions(program)
    assert len({function.request.function for function in found.values()}) == len(found)
    assert sum(function.work is not None for function in found.values()) >= 8


# -- compiling -----------------------------------------------------------------------------------------------
def test_what_was_compiled_is_kept_and_not_compiled_again(tmp_path: Path, monkeypatch: Any) -> None:
    program = gates.program_of("LeNet-5", "inference", "bfloat16", "sm_90")
    functions = list(gates.functions(program).values())
    asked: list[str] = []

    def compile_request(request: Any) -> Resources:
        asked.append(request.function)
        return Resources(request.function, request.target, registers=len(asked), loads={16: 2})

    monkeypatch.setattr(gates, "compile_request", compile_request)
    facts = gates.Facts(tmp_path / "facts.jsonl")
    for function in functions[:2]:
        facts.compile(function)
    row = gates.row("LeNet-5", "inference", "bfloat16", "sm_90", facts)
    assert (row["functions"], row["compiled"], row["registers"]) == (5, 2, 2)
    again = gates.Facts(tmp_path / "facts.jsonl")
    for function in functions:
        again.compile(function)
    assert asked == [function.request.function for function in functions]
    assert again.get("sm_90", functions[0].key) == Resources(asked[0], "sm_90", registers=1, loads={16: 2})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeNet-5", "ResNet-18"])
@pytest.mark.parametrize("card", ["sm_90", "gfx942"])
def test_a_sample_compiles_as_the_table_says(name: str, card: str, tmp_path: Path) -> None:
    facts = gates.Facts(tmp_path / "facts.jsonl")
    for function in gates.functions(gates.program_of(name, "training", "bfloat16", card)).values():
        facts.compile(function)
    row = gates.row(name, "training", "bfloat16", card, facts)
    assert row["compiled"] == row["functions"]
    assert row["failures"] == row["without units"] == row["without kernel"] == []
    assert row["spills"] == {}
    kept = ROWS.get(f"{name} training bfloat16 {card}")
    if kept is not None and gates.triton() == TABLE["triton"] and kept["compiled"] == kept["functions"]:
        assert row["registers"] <= kept["registers"]
        assert row["issue"] is None or row["issue"]["median"] <= 1.05 * kept["issue"]["median"]


# -- reading compiled code -----------------------------------------------------------------------------------
SASS = """
        /*0000*/                   LDG.E.128 R4, [R2] ;
        /*0010*/              @!P0 LDG.E.U16.CONSTANT R4, [R2] ;
        /*0020*/                   FFMA R1, R2, R3, R4 ;
        /*0030*/                   FFMA R1, R2, R3, R4 ;
        /*0040*/               @P1 BRA 0x20 ;
        /*0050*/                   IADD3 R1, R2, R3, R4 ;
        /*0060*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4] ;
        /*0070*/               @P1 BRA 0x50 ;
        /*0080*/               @P1 BRA 0x0 ;
"""


def test_the_main_loop_is_the_one_that_multiplies() -> None:
    assert sass_loop(SASS) == {"IADD3": 1, "HGMMA.64x128x16.F32.BF16": 1, "BRA": 1}
    assert sass_loop(SASS.replace("HGMMA", "FFMA")).total() == 9  # or else the longest
    assert sass_loop("        /*0000*/   FFMA R1, R2, R3, R4 ;") == {}


def test_the_main_loop_of_amd() -> None:
    text = ".LBB0_1:\n\tv_mfma_f32_32x32x8_bf16_1k a, b\n\ts_cbranch_scc1 .LBB0_1\n"
    assert multiplied(amdgcn_loop(text), warps=4) == 4 * 32 * 32 * 8


@pytest.mark.parametrize(
    ("operation", "products"),
    [
        ("HGMMA.64x128x16.F32.BF16", 64 * 128 * 16 * 2),  # of two groups of four warps
        ("HMMA.16816.F32.BF16", 16 * 8 * 16 * 8),
        ("HMMA.1688.F32.TF32", 16 * 8 * 8 * 8),
        ("v_mfma_f32_16x16x16_bf16", 16 * 16 * 16 * 8),
        ("UTCHMMA", 0),
        ("FFMA", 0),
    ],
)
def test_products_of_a_matrix_instruction(operation: str, products: int) -> None:
    assert multiplied({operation: 3}, warps=8) == 3 * products


def test_loads_by_their_width() -> None:
    operations = {
        "LDG.E.128": 1, "LDGSTS.E.BYPASS.128": 2, "LDG.E.64.CONSTANT": 3, "LDG.E": 4, "LDG.E.U16": 5,
        "LDG.E.U8": 6, "LDS.128": 7, "global_load_dwordx4": 8, "buffer_load_ushort": 9,
        "global_load_short_d16_hi": 10, "buffer_load_dword": 11, "global_load_ubyte": 12,
    }  # fmt: skip
    found = _loads(Counter(operations))
    assert found == {1: 6 + 12, 2: 5 + 9 + 10, 4: 4 + 11, 8: 3, 16: 1 + 2 + 8}


def test_the_table_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "TABLE", tmp_path / "gates.json")
    gates.write("rows", "one", {"kernels": 1})
    gates.write("rows", "two", {"kernels": 2})
    assert gates.read()["rows"] == {"one": {"kernels": 1}, "two": {"kernels": 2}}
    assert json.loads((tmp_path / "gates.json").read_text())["triton"] == gates.triton()
