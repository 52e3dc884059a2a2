"""Random operands for an emitted file's `example`: of the right shape and dtype, and of sensible values."""

from __future__ import annotations

from math import prod

from ..graph.ir import Node
from ..graph.ops import (
    ActivationGrad,
    BatchNorm,
    BatchNormGrad,
    BinaryCrossEntropy,
    Constant,
    Divide,
    Log,
    LossGrad,
    MaxUnpool2D,
    Normalize,
    Random,
    RsqrtPlus,
    SoftmaxCrossEntropy,
    SoftmaxGrad,
    Sqrt,
    Warp,
    WarpGrad,
)
from ..graph.regions import Region


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
        case SoftmaxGrad(), "y":
            value = f"torch.softmax({normal}, -1)"
        case SoftmaxCrossEntropy(), "target":
            last = node.type.channels
            lead = _size(node, 1)
            return [
                f"{name} = torch.randint({last}, {lead}, generator=generator)",
                f"{name} = F.one_hot({name}, {last}).to({dtype})",
            ]
        case BinaryCrossEntropy(), "target":
            value = f"({uniform} > 0.5)"
        case BinaryCrossEntropy(from_logits=False), "prediction":
            value = f"0.05 + 0.9 * {uniform}"
        case _ if not node.type.is_floating:
            return [f"{name} = torch.randint(4, {size}, generator=generator).to({dtype})"]
        case _:
            value = normal
    if value == normal and node.type.dtype == "float32":
        return [f"{name} = {value}"]
    return [f"{name} = ({value}).to({dtype})"]


def _size(node: Node, drop: int = 0) -> str:
    """The shape as text, `batch` standing for N, without the last `drop` axes."""
    dims = ["batch" if d == "N" else str(d) for d in node.type.shape[: node.type.rank - drop]]
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"
