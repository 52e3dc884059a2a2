"""All that `import convloom` offers. It is imported when the first of it is asked for."""

from .checking import CheckReport, check
from .frontends import (
    Input,
    Limits,
    Model,
    Sequential,
    constraints,
    initializers,
    layers,
    loads,
    ops,
    regularizers,
)
from .graph.errors import (
    CompileError,
    ConvLoomError,
    ModelFormatError,
    ShapeError,
    UnsafeModelError,
    UnsupportedLayerError,
)
from .loading import load
from .runtime import losses, metrics, optimizers, schedules
from .runtime.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TensorBoard,
    TerminateOnNaN,
)
from .runtime.checkpoints.settings import Checkpoints
from .runtime.checkpoints.weights import load_checkpoint
from .runtime.compile import compile
from .runtime.emit import emit
from .runtime.fit import evaluate, fit, predict
from .runtime.history import History
from .runtime.memory import release_memory
from .runtime.model_trainer import ModelTrainer
from .runtime.network import CompiledNetwork
from .runtime.profile import profile
from .runtime.statistics import update_statistics

Model.trainer_type = ModelTrainer  # models train, and their room knows nothing of running

__all__ = [
    "CSVLogger",
    "Callback",
    "CheckReport",
    "Checkpoints",
    "CompileError",
    "CompiledNetwork",
    "ConvLoomError",
    "EarlyStopping",
    "History",
    "Input",
    "LambdaCallback",
    "LearningRateScheduler",
    "Limits",
    "Model",
    "ModelCheckpoint",
    "ModelFormatError",
    "ReduceLROnPlateau",
    "Sequential",
    "ShapeError",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
    "UnsafeModelError",
    "UnsupportedLayerError",
    "check",
    "compile",
    "constraints",
    "emit",
    "evaluate",
    "fit",
    "initializers",
    "layers",
    "load",
    "load_checkpoint",
    "loads",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "predict",
    "profile",
    "regularizers",
    "release_memory",
    "schedules",
    "update_statistics",
]
