"""The ops of the IR, each one class."""

from .contraction import Conv2D, Conv2DDataGrad, Conv2DWeightGrad, Dense, DenseDataGrad, DenseWeightGrad
from .movement import Concat, Pad, Reshape, Slice, Transpose
from .pointwise import (
    Activation,
    ActivationGrad,
    Add,
    BatchNorm,
    BatchNormGrad,
    Cast,
    Dropout,
    Elu,
    Gelu,
    LeakyRelu,
    Multiply,
    Normalize,
    Relu,
    Relu6,
    RsqrtPlus,
    Scale,
    Sigmoid,
    Square,
    Subtract,
    Swish,
    Tanh,
)
from .pooling import AveragePool2D, AverageUnpool2D, MaxPool2D, MaxPoolIndex2D, MaxUnpool2D
from .reduction import (
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    LossGrad,
    MeanSquaredError,
    Reduce,
    Softmax,
    SoftmaxCrossEntropy,
    SoftmaxGrad,
)
from .source import Constant, DropoutMask, Input, Parameter

__all__ = [
    "Activation", "ActivationGrad", "Add", "AveragePool2D", "AverageUnpool2D", "BatchNorm",
    "BatchNormGrad", "BinaryCrossEntropy", "Cast", "CategoricalCrossEntropy", "Concat", "Constant",
    "Conv2D", "Conv2DDataGrad", "Conv2DWeightGrad", "Dense", "DenseDataGrad", "DenseWeightGrad",
    "Dropout", "DropoutMask", "Elu", "Gelu", "Input", "LeakyRelu", "LossGrad", "MaxPool2D",
    "MaxPoolIndex2D", "MaxUnpool2D", "MeanSquaredError", "Multiply", "Normalize", "Pad", "Parameter",
    "Reduce", "Relu", "Relu6", "Reshape", "RsqrtPlus", "Scale", "Sigmoid", "Slice", "Softmax",
    "SoftmaxCrossEntropy", "SoftmaxGrad", "Square", "Subtract", "Swish", "Tanh", "Transpose",
]  # fmt: skip
