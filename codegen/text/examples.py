"""Random operands for an emitted file's `example`: of the right shape and dtype, and of sensible values."""

from __future__ import annotations

from math import prod

from ...graph.ir import Node
from ...graph.ops import (
    ActivationGrad,
    AttentionMask,
    BatchNorm,
    BatchNormGrad,
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    Constant,
    Divide,
    InterpolationMatrix,
    Log,
    LogSigmoid,
    LookUp,
    LookUpGrad,
    LossGrad,
    MaxUnpool2D,
    Normalize,
    Random,
    RsqrtPlus,
    SoftmaxCrossEntropy,
    SoftmaxGrad,
    SparsemaxGrad,
    SparsePlus,
    Sqrt,
    Squareplus,
    Warp,
    WarpGrad,
)
from ...planning.regions import Region


def example_lines(region: Region, node: Node, name: str) -> list[str]:
    """Statements that give `name` random values; `generator` and `batch` stand ready."""
    size = _size(node)
    dtype = f"torch.{node.type.dtype}"
    reader = next(member for member in region.nodes if node.name in member.inputs)
    place = reader.inputs.index(node.name)
    op = reader.op.loss if isinstance(reader.op, LossGrad) else reader.op
    operand = reader.op.operands[min(place, len(reader.op.operands) - 1)]
    normal = f"torch.randn({size}, generator=generator)"
    uniform = f"torch.rand({size}, generator=generator)"
    match op, operand:
        case _ if isinstance(node.op, Constant):
            value = f"torch.tensor({node.op.value!r}).expand({size}).contiguous()"
        case _ if isinstance(node.op, InterpolationMatrix):
            return _interpolation_lines(node.op, name)
        case _ if isinstance(node.op, AttentionMask):
            value = f"torch.triu(torch.full({size}, -1e9), 1)"
        case _ if isinstance(node.op, Random) and node.op.distribution == "bernoulli":
            probability, high = node.op.of
            value = f"({uniform} < {probability!r}) * {high!r}"
        case Warp() | WarpGrad(), "transform":
            value = f"torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0]) + 0.01 * {normal}"
        case (BatchNorm() | Normalize() | BatchNormGrad(), "variance") | (RsqrtPlus() | Log() | Sqrt(), _):
            value = f"0.5 + {uniform}"
        case (Divide(), "b") | (ActivationGrad(activation=Log() | Sqrt()), "saved"):
            value = f"0.5 + {uniform}"
        case MaxUnpool2D(), "index":
            return [f"{name} = torch.randint({prod(op.size)}, {size}, generator=generator).to({dtype})"]
        case LookUp() | LookUpGrad(), "indices":
            rows = _rows(region, reader)
            return [f"{name} = torch.randint({rows}, {size}, generator=generator).to({dtype})"]
        case SoftmaxGrad(), "y":
            value = f"torch.softmax({normal}, -1)"
        case SparsemaxGrad(), "y":
            value = f"{normal}.clamp(min=0)"
        case ActivationGrad(activation=LogSigmoid()), "saved":
            value = f"F.logsigmoid({normal})"
        case ActivationGrad(activation=SparsePlus() | Squareplus()), "saved":
            value = f"{normal}.abs()"
        case SoftmaxCrossEntropy() | CategoricalCrossEntropy(), "target":
            last = node.type.channels
            lead = _size(node, 1)
            return [
                f"{name} = torch.randint({last}, {lead}, generator=generator)",
                f"{name} = F.one_hot({name}, {last}).to({dtype})",
            ]
        case BinaryCrossEntropy(), "target":
            value = f"({uniform} > 0.5)"
        case CategoricalCrossEntropy(), "prediction":
            value = f"0.05 + {uniform}"
        case BinaryCrossEntropy(from_logits=False), "prediction":
            value = f"0.05 + 0.9 * {uniform}"
        case _ if node.type.dtype == "bool":
            value = f"{uniform} < 0.5"
        case _ if not node.type.is_floating:
            return [f"{name} = torch.randint(4, {size}, generator=generator).to({dtype})"]
        case _:
            value = normal
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
        f"{name} = {_tap_text(op.method)}",
        f"{name} = ({name} / {name}.sum(0)).to(torch.{op.dtype})",
    ]


def _tap_text(method: str) -> str:
    """Weight of a tap `away` pixels off."""
    if method == "bilinear":
        return "(1 - away).clamp(min=0)"
    if method == "bicubic":
        far = "((-0.5 * away + 2.5) * away - 4) * away + 2"
        near = "(1.5 * away - 2.5) * away * away + 1"
        return f"torch.where(away < 1, {near}, torch.where(away < 2, {far}, 0.0))"
    reach = method.removeprefix("lanczos")
    return f"torch.where(away < {reach}, torch.sinc(away) * torch.sinc(away / {reach}), 0.0)"


def _size(node: Node, drop: int = 0) -> str:
    """The shape as text, `batch` standing for N, without the last `drop` axes."""
    dims = ["batch" if d == "N" else str(d) for d in node.type.shape[: node.type.rank - drop]]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"
