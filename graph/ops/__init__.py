"""The ops of the IR, each one class."""

from .activation import (
    Abs,
    Activation,
    ActivationGrad,
    Elu,
    Exp,
    Gelu,
    GeneralRelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Log,
    Mish,
    Prelu,
    PreluGrad,
    Relu,
    Relu6,
    Sigmoid,
    Softplus,
    Softsign,
    Sqrt,
    Swish,
    Tanh,
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
from .movement import Concat, Flip, Pad, Reshape, Slice, Transpose
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
    Step,
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
)
from .source import KNOWN, Constant, DropoutMask, Input, InterpolationMatrix, Parameter

__all__ = [
    "KNOWN", "Abs", "Activation", "ActivationGrad", "Add", "AveragePool2D", "AverageUnpool2D", "BatchNorm",
    "BatchNormGrad", "BinaryCrossEntropy", "BroadcastTo", "Cast", "CategoricalCrossEntropy", "Concat",
    "Constant", "Conv2D", "Conv2DDataGrad", "Conv2DTranspose", "Conv2DWeightGrad", "Dense",
    "DenseDataGrad", "DenseWeightGrad", "Divide", "Dropout", "DropoutMask", "Elu", "Exp",
    "ExtremumGrad", "Flip", "Gelu", "GeneralRelu", "HardSigmoid", "HardSwish", "Input", "InterpolationMatrix",
    "LeakyRelu", "Log", "LogSoftmax", "LossGrad", "MaxPool2D", "MaxPoolIndex2D", "MaxUnpool2D", "Maximum",
    "MeanSquaredError", "Minimum", "Mish", "Multiply", "Normalize", "Pad", "Parameter", "Prelu",
    "PreluGrad", "Reduce", "Relu", "Relu6", "Reshape", "RsqrtPlus", "Scale", "Sigmoid", "Slice",
    "Softmax", "SoftmaxCrossEntropy", "SoftmaxGrad", "Softplus", "Softsign", "Sqrt", "Square",
    "Step", "Subtract", "Swish", "Tanh", "Transpose",
]  # fmt: skip
