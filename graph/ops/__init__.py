"""The ops of the IR, each one class."""

from .activation import (
    Abs,
    Activation,
    ActivationGrad,
    Elu,
    Exp,
    Gelu,
    LeakyRelu,
    Log,
    LogSigmoid,
    Mish,
    Relu,
    Relu6,
    Sigmoid,
    Softplus,
    Softsign,
    Sqrt,
    Squareplus,
    Swish,
    Tanh,
    TanhShrink,
)
from .contraction import (
    Conv2D,
    Conv2DDataGrad,
    Conv2DTranspose,
    Conv2DWeightGrad,
    Dense,
    DenseDataGrad,
    DenseWeightGrad,
)
from .movement import Concat, Pad, Reshape, Slice, Transpose
from .piecewise import (
    Clip,
    GeneralRelu,
    HardShrink,
    HardSigmoid,
    HardSwish,
    Prelu,
    PreluGrad,
    SoftShrink,
    SparsePlus,
    Threshold,
)
from .pointwise import (
    Add,
    BatchNorm,
    BatchNormGrad,
    BroadcastTo,
    Cast,
    Divide,
    Dropout,
    ExtremumGrad,
    Maximum,
    Minimum,
    Multiply,
    Normalize,
    RsqrtPlus,
    Scale,
    Square,
    Subtract,
)
from .pooling import AveragePool2D, AverageUnpool2D, MaxPool2D, MaxPoolIndex2D, MaxUnpool2D
from .reduction import (
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    LogSoftmax,
    LossGrad,
    MeanSquaredError,
    Reduce,
    Softmax,
    SoftmaxCrossEntropy,
    SoftmaxGrad,
    Sparsemax,
    SparsemaxGrad,
)
from .source import KNOWN, Constant, DropoutMask, Input, InterpolationMatrix, Parameter

__all__ = [
    "KNOWN", "Abs", "Activation", "ActivationGrad", "Add", "AveragePool2D", "AverageUnpool2D", "BatchNorm",
    "BatchNormGrad", "BinaryCrossEntropy", "BroadcastTo", "Cast", "CategoricalCrossEntropy", "Clip",
    "Concat", "Constant", "Conv2D", "Conv2DDataGrad", "Conv2DTranspose", "Conv2DWeightGrad", "Dense",
    "DenseDataGrad", "DenseWeightGrad", "Divide", "Dropout", "DropoutMask", "Elu", "Exp", "ExtremumGrad",
    "Gelu", "GeneralRelu", "HardShrink", "HardSigmoid", "HardSwish", "Input", "InterpolationMatrix",
    "LeakyRelu", "Log", "LogSigmoid", "LogSoftmax", "LossGrad", "MaxPool2D", "MaxPoolIndex2D",
    "MaxUnpool2D", "Maximum", "MeanSquaredError", "Minimum", "Mish", "Multiply", "Normalize", "Pad",
    "Parameter", "Prelu", "PreluGrad", "Reduce", "Relu", "Relu6", "Reshape", "RsqrtPlus", "Scale",
    "Sigmoid", "Slice", "SoftShrink", "Softmax", "SoftmaxCrossEntropy", "SoftmaxGrad", "Softplus",
    "Softsign", "SparsePlus", "Sparsemax", "SparsemaxGrad", "Sqrt", "Square", "Squareplus", "Subtract",
    "Swish", "Tanh", "TanhShrink", "Threshold", "Transpose",
]  # fmt: skip
