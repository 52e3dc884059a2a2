"""Hand-written kernel files in the form that codegen emits, for the tests of the tools around them."""

from __future__ import annotations

MATMUL = '''"""c = a @ b for a (M, K), b (K, N)."""

import torch

if __name__ == "__main__":
    import os

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"

import triton
import triton.language as tl


@triton.jit
def matmul(a_ptr, b_ptr, c_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    tiles_n = tl.cdiv(N, BN)
    rows = (tl.program_id(0) // tiles_n) * BM + tl.arange(0, BM)
    columns = (tl.program_id(0) % tiles_n) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        k = start + inner
        a_mask = (rows[:, None] < M) & (k[None, :] < K)
        b_mask = (k[:, None] < K) & (columns[None, :] < N)
        a = tl.load(a_ptr + rows[:, None] * K + k[None, :], mask=a_mask, other=0.0)
        b = tl.load(b_ptr + k[:, None] * N + columns[None, :], mask=b_mask, other=0.0)
        sums = tl.dot(a, b, sums, input_precision="ieee")
    c_mask = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(c_ptr + rows[:, None] * N + columns[None, :], sums.to(c_ptr.dtype.element_ty), mask=c_mask)


def launch(a, b, BM=32, BN=16, BK=16):
    (M, K), N = a.shape, b.shape[1]
    c = torch.full((M, N), float("nan"), dtype=a.dtype, device=a.device)
    matmul[(triton.cdiv(M, BM) * triton.cdiv(N, BN),)](a, b, c, M, N, K, BM, BN, BK)
    return c


def reference(a, b):
    return a.double() @ b.double()


if __name__ == "__main__":
    a, b = torch.randn(37, 45), torch.randn(45, 17)
    error = (launch(a, b) - reference(a, b)).abs().max().item()
    assert error < 1e-4, error
    print("largest difference", error)
'''

# Uses the library in each of the ways a kernel can: as a function, as a method, from a function of its own.
ROWS = '''"""Statistics of the rows of a matrix: largest value, sum, softmax of GELU."""

import torch
import triton
import triton.language as tl


@triton.jit
def gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def rows(x_ptr, y_ptr, largest_ptr, sum_ptr, C, BC: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BC)
    inside = columns < C
    x = tl.load(x_ptr + row * C + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(largest_ptr + row, tl.max(tl.where(inside, x, float("-inf")), axis=0))
    tl.store(sum_ptr + row, x.sum(axis=0))
    value = tl.where(inside, gelu(x), float("-inf"))
    power = tl.exp(value - tl.max(value, axis=0))
    y = power / tl.sum(power, axis=0)
    tl.store(y_ptr + row * C + columns, y.to(y_ptr.dtype.element_ty), mask=inside)


def launch(x):
    R, C = x.shape
    y = torch.full_like(x, float("nan"))
    largest, total = x.new_empty(R, dtype=torch.float32), x.new_empty(R, dtype=torch.float32)
    rows[(R,)](x, y, largest, total, C, triton.next_power_of_2(C))
    return y, largest, total
'''
