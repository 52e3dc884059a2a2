"""Interpreted kernels: their values, and that interpreting leaves the compiler as it was."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from convloom.codegen.machine.aot import compile_kernel
from convloom.codegen.machine.interpreter import compiling, interpreting, load_module
from convloom.codegen.machine.interpreter_repairs import from_bfloat16_bits, to_bfloat16_bits
from convloom.graph.errors import CompileError
from kernel_sources import MATMUL, ROWS
from triton.runtime.jit import JITFunction

SIGNATURE = {"a_ptr": "*bf16", "b_ptr": "*bf16", "c_ptr": "*bf16", "M": "i32", "N": "i32", "K": "i32"}
EPS = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def matmul_error(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences from float64 and their bound: one rounding of the result, K roundings of the sum."""
    kernel = load_module(MATMUL, "matmul_file", interpreted=True)
    a, b = random(37, 45, dtype=dtype), random(45, 17, dtype=dtype)
    expected = kernel.reference(a, b)
    magnitude = a.double().abs() @ b.double().abs()
    bound = EPS[dtype] * expected.abs() * 1.001 + 45 * 2.0**-24 * magnitude
    return (kernel.launch(a, b).double() - expected).abs(), bound


def compile_matmul(target: str = "sm_80") -> int:
    sizes = {"BM": 32, "BN": 32, "BK": 32}
    return compile_kernel(
        MATMUL, "matmul", SIGNATURE, sizes, target=target, num_warps=4, num_stages=2
    ).registers


@pytest.mark.parametrize("dtype", EPS)
def test_matmul_is_right_in_every_dtype(dtype: torch.dtype) -> None:
    """Bfloat16 needs both repairs: of tl.dot, and of the rounding when the result is stored."""
    error, bound = matmul_error(dtype)
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_library_functions_and_methods(dtype: torch.dtype) -> None:
    x = random(3, 17, dtype=dtype)
    y, largest, total = load_module(ROWS, "rows_file", interpreted=True).launch(x)
    wide = x.double()
    assert torch.equal(largest.double(), wide.amax(1))
    assert (total.double() - wide.sum(1)).abs().max() <= 17 * 2.0**-24 * wide.abs().sum(1).max()
    expected = torch.softmax(torch.nn.functional.gelu(wide), 1)
    assert ((y.double() - expected).abs() <= (EPS[dtype] + 32 * 2.0**-24) * expected).all()


def test_interpret_compile_interpret_compile() -> None:
    before = compile_matmul()
    first, bound = matmul_error(torch.float32)
    assert compile_matmul() == before
    assert compile_matmul("gfx942") > 0
    second, _ = matmul_error(torch.float32)
    assert compile_matmul() == before
    assert torch.equal(first, second)
    assert (first <= bound).all()


def test_compiling_inside_interpreting() -> None:
    with interpreting():
        error, bound = matmul_error(torch.float16)
        assert compile_matmul() > 0
        assert (error <= bound).all()
        error, bound = matmul_error(torch.float16)
    assert (error <= bound).all()


@pytest.mark.skipif(triton.knobs.runtime.interpret, reason="TRITON_INTERPRET is set")
def test_the_language_is_restored_completely() -> None:
    spaces = (tl, tl.core, tl.standard, tl.math, tl.random, tl.tensor, tl.dtype)
    before = [dict(vars(space)) for space in spaces]
    matmul_error(torch.float32)
    load_module(ROWS, "rows_file", interpreted=True).launch(random(3, 17))
    for space, names in zip(spaces, before, strict=True):
        now = dict(vars(space))
        assert now.keys() == names.keys()
        assert not [name for name, value in names.items() if now[name] is not value]
    assert isinstance(tl.max, JITFunction)


def test_the_language_is_restored_after_a_failure() -> None:
    source = MATMUL.replace("tl.cdiv(N, BN)", "tl.cdiv(N, BN) + undefined_name")
    kernel = load_module(source, "broken", interpreted=True)
    resting = triton.knobs.runtime.interpret
    with pytest.raises(CompileError, match=r"kernel matmul failed .* line 17: `.*undefined_name`\nNameError"):
        kernel.launch(random(3, 5), random(5, 2))
    assert triton.knobs.runtime.interpret == resting
    assert compile_matmul() > 0


def test_the_environment_is_not_touched() -> None:
    resting, variable = triton.knobs.runtime.interpret, os.environ.get("TRITON_INTERPRET")
    with interpreting():
        assert triton.knobs.runtime.interpret
        assert os.environ.get("TRITON_INTERPRET") == variable
        with compiling():
            assert not triton.knobs.runtime.interpret
        assert triton.knobs.runtime.interpret
    assert triton.knobs.runtime.interpret == resting


def test_source_is_readable_and_belongs_to_its_own_text() -> None:
    other = MATMUL.replace("a @ b", "another product").replace("def matmul(", "def matmul(  ")
    first = load_module(MATMUL, "same_name", interpreted=False)
    second = load_module(other, "same_name", interpreted=False)
    assert inspect.getsource(first.matmul.fn) in MATMUL
    assert "def matmul(  " in inspect.getsource(second.matmul.fn)
    assert isinstance(first.matmul, JITFunction)
    assert "same_name" not in sys.modules


def test_a_file_that_is_not_python() -> None:
    with pytest.raises(CompileError, match="kernel file half, line 2"):
        load_module("import torch\ndef (", "half", interpreted=True)


def test_threads_wait_for_each_other() -> None:
    """A compilation in another thread must never see the interpreter's language."""
    outcomes: list[object] = []

    def work(job: object) -> None:
        try:
            outcomes.append(job())  # type: ignore[operator]
        except Exception as error:
            outcomes.append(error)

    jobs = [lambda: matmul_error(torch.float32), lambda: load_module(MATMUL, "m", interpreted=False).matmul]
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert sum(isinstance(outcome, JITFunction) for outcome in outcomes) == 3


def test_bfloat16_rounding_agrees_with_torch() -> None:
    special = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3.4e38, 1.00390625, 1.01171875]
    values = torch.cat([torch.tensor(special), random(1000), random(999) * 1e-38])
    bits = to_bfloat16_bits(values.numpy())
    expected = values.to(torch.bfloat16)
    assert np.array_equal(from_bfloat16_bits(bits), expected.float().numpy(), equal_nan=True)


def test_a_kernel_file_runs_by_itself(tmp_path: Path) -> None:
    """With only torch and triton; the file turns the interpreter on where there is no GPU."""
    path = tmp_path / "matmul.py"
    # On a CPU this runs with Triton's own interpreter, without the repairs: hence a loop that needs none.
    path.write_text(MATMUL.replace("range(0, K, BK)", "range(0, 48, BK)"))
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "largest difference" in finished.stdout
