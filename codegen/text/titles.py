"""Regions in words, for the first line of a file: "5x5 convolution + bias, ReLU, 2x2 max pooling"."""

from __future__ import annotations

from ...graph.ir import Node
from ...graph.op import Kind, Op
from ...graph.ops import (
    ActivationGrad,
    AveragePool2D,
    AverageUnpool2D,
    BroadcastTo,
    Cast,
    Clip,
    Compare,
    Conv2D,
    Conv2DDataGrad,
    Conv2DTranspose,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
    Elu,
    ExtremumGrad,
    Gelu,
    GeneralRelu,
    LeakyRelu,
    Logical,
    LookUp,
    LookUpGrad,
    MatMul,
    MaxPool2D,
    MaxPoolIndex2D,
    MaxUnpool2D,
    Prelu,
    PreluGrad,
    Reduce,
    Relu,
    Relu6,
    Resize,
    ResizeGrad,
    Sigmoid,
    SoftmaxGrad,
    SparsemaxGrad,
    Swish,
    Tanh,
    Where,
)
from ...planning.regions import Region

_PROPER: dict[type[Op], str] = {Relu: "ReLU", Relu6: "ReLU6", LeakyRelu: "leaky ReLU", GeneralRelu: "ReLU"}
_PROPER |= {Elu: "ELU", Gelu: "GELU", Sigmoid: "sigmoid", Swish: "swish", Tanh: "tanh", Prelu: "PReLU"}
_PROPER |= {PreluGrad: "derivative of PReLU", ExtremumGrad: "derivative of a maximum"}
_PROPER |= {BroadcastTo: "spreading", Clip: "clipping"}
_PROPER |= {LookUp: "rows looked up", LookUpGrad: "gradient of rows looked up", Where: "choice of two"}
_PROPER |= {SoftmaxGrad: "gradient of softmax", SparsemaxGrad: "gradient of sparsemax"}


def title(region: Region) -> str:
    """What the region computes, op by op."""
    words = ", ".join(_words(region, node) for node in region.nodes)
    return words[0].upper() + words[1:]


def _words(region: Region, node: Node) -> str:
    op = node.op
    match op:
        case Conv2D():
            r, s = region.graph[node.inputs[1]].type.size()[:2]
            return f"{r}x{s} convolution" + _stepping(op) + _bias(node)
        case Conv2DTranspose():
            r, s = region.graph[node.inputs[1]].type.size()[:2]
            return f"{r}x{s} transposed convolution" + _stepping(op)
        case Conv2DDataGrad():
            r, s = region.graph[node.inputs[1]].type.size()[:2]
            return f"gradient of a {r}x{s} convolution{_stepping(op)} with respect to its input"
        case Conv2DWeightGrad():
            r, s = op.kernel_size
            return f"gradient of a {r}x{s} convolution{_stepping(op)} with respect to its kernel"
        case Dense():
            return "matrix product" + _bias(node)
        case DenseDataGrad():
            return "gradient of a matrix product with respect to its input"
        case DenseWeightGrad():
            return "gradient of a matrix product with respect to its weights"
        case MatMul():
            return "product of two activations" + ("" if op.factor == 1.0 else ", scaled")
        case MaxPool2D():
            return f"{op.size[0]}x{op.size[1]} max pooling"
        case MaxPoolIndex2D():
            return "the position of each maximum"
        case AveragePool2D():
            return f"{op.size[0]}x{op.size[1]} average pooling"
        case MaxUnpool2D():
            return f"gradient of {op.size[0]}x{op.size[1]} max pooling"
        case AverageUnpool2D():
            return f"gradient of {op.size[0]}x{op.size[1]} average pooling"
        case Resize():
            return f"{op.method} resizing to {'x'.join(map(str, op.sizes))}"
        case ResizeGrad():
            return f"gradient of {op.method} resizing from {'x'.join(map(str, op.sizes))}"
        case Compare():
            return f"comparison ({op.relation.replace('_', ' ')})"
        case Logical():
            return f"logical {op.connective}"
        case ActivationGrad():
            return f"derivative of {_PROPER.get(type(op.activation), op.activation.op_name())}"
        case Cast():
            return f"conversion of {region.graph[node.inputs[0]].type.dtype}"
        case Reduce() if region.anchor.op.kind is Kind.CONTRACTION:
            return "gradient of the bias"
    return _PROPER.get(type(op), op.op_name().replace("_", " "))


def _stepping(op: Conv2D | Conv2DDataGrad | Conv2DWeightGrad) -> str:
    parts = []
    if op.strides != (1, 1):
        parts.append(f" at steps of {op.strides[0]}x{op.strides[1]}")
    if op.dilation != (1, 1):
        parts.append(f" dilated {op.dilation[0]}x{op.dilation[1]}")
    if op.groups > 1:
        parts.append(f" in {op.groups} groups")
    return "".join(parts)


def _bias(node: Node) -> str:
    return " + bias" if len(node.inputs) > 2 else ""
