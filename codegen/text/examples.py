"""Random operands for an emitted file's `example`: of the right shape and dtype, and of sensible values."""

from __future__ import annotations

from math import prod

from ...graph.formula import Name
from ...graph.ir import Node
from ...graph.op import Sample
from ...graph.ops import (
    AttentionMask,
    Constant,
    InterpolationMatrix,
    LookUp,
    LookUpGrad,
    MaxUnpool2D,
    Random,
    Warp,
    WarpGrad,
)
from ...graph.ops.source import tap_weight
from ...planning.regions import Region
from .printers import in_torch

_VALUES: dict[Sample, str] = {
    "normal": "{normal}",
    "positive": "0.5 + {uniform}",
    "not negative": "{normal}.abs()",
    "log sigmoid": "F.logsigmoid({normal})",
    "coin": "({uniform} > 0.5)",
    "share": "0.05 + 0.9 * {uniform}",
    "part": "0.05 + {uniform}",
    "rows": "torch.softmax({normal}, -1)",
    "clipped": "{normal}.clamp(min=0)",
}
"""What an op says of its operand, as text."""


def example_lines(region: Region, node: Node, name: str) -> list[str]:
    """Statements that give `name` random values; `generator` and `batch` stand ready."""
    size = _size(node)
    dtype = f"torch.{node.type.dtype}"
    reader = next(member for member in region.nodes if node.name in member.inputs)
    place = reader.inputs.index(node.name)
    operand = reader.op.operands[min(place, len(reader.op.operands) - 1)]
    sample = reader.op.example(operand)
    normal = f"torch.randn({size}, generator=generator)"
    uniform = f"torch.rand({size}, generator=generator)"
    match node.op, reader.op, operand:
        case Constant() as constant, _, _:
            value = f"torch.tensor({constant.value!r}).expand({size}).contiguous()"
        case InterpolationMatrix() as matrix, _, _:
            return _interpolation_lines(matrix, name)
        case AttentionMask(), _, _:
            value = f"torch.triu(torch.full({size}, -1e9), 1)"
        case Random(distribution="bernoulli", of=(probability, high)), _, _:
            value = f"({uniform} < {probability!r}) * {high!r}"
        case _, Warp() | WarpGrad(), "transform":
            value = f"torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0]) + 0.01 * {normal}"
        case _, MaxUnpool2D(size=window), "index":
            return [f"{name} = torch.randint({prod(window)}, {size}, generator=generator).to({dtype})"]
        case _, LookUp() | LookUpGrad(), "indices":
            rows = _rows(region, reader)
            return [f"{name} = torch.randint({rows}, {size}, generator=generator).to({dtype})"]
        case _ if sample == "one hot":
            last = node.type.channels
            lead = _size(node, 1)
            return [
                f"{name} = torch.randint({last}, {lead}, generator=generator)",
                f"{name} = F.one_hot({name}, {last}).to({dtype})",
            ]
        case _ if node.type.dtype == "bool":
            value = f"{uniform} < 0.5"
        case _ if not node.type.is_floating:
            return [f"{name} = torch.randint(4, {size}, generator=generator).to({dtype})"]
        case _:
            value = _VALUES[sample].format(normal=normal, uniform=uniform)
    if value == normal and node.type.dtype == "float32":
        return [f"{name} = {value}"]
    return [f"{name} = ({value}).to({dtype})"]


def _rows(region: Region, reader: Node) -> int:
    """Rows of the table that numbers are looked up in; small dtypes cannot name them all."""
    op = reader.op
    rows = op.rows if isinstance(op, LookUpGrad) else int(region.graph[reader.inputs[0]].type.shape[0])
    return min(rows, 127)


def _interpolation_lines(op: InterpolationMatrix, name: str) -> list[str]:
    """The very matrix: kernels read only where it is not 0."""
    width = max(op.in_size / op.out_size, 1.0) if op.antialias else 1.0
    return [
        f"place = (torch.arange({op.out_size}).double() + 0.5) * {op.in_size} / {op.out_size} - 0.5",
        f"away = (place - torch.arange({op.in_size})[:, None]).abs() / {width!r}",
        f"{name} = {in_torch(tap_weight(Name('away'), op.method))}",
        f"{name} = ({name} / {name}.sum(0)).to(torch.{op.dtype})",
    ]


def _size(node: Node, drop: int = 0) -> str:
    """The shape as text, `batch` standing for N, without the last `drop` axes."""
    dims = ["batch" if d == "N" else str(d) for d in node.type.shape[: node.type.rank - drop]]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"
