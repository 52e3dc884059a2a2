"""Callbacks of `fit`: what may watch a training run, change it, keep it and stop it."""

from .averages import SwapEMAWeights
from .callback import Callback, Logs
from .early_stopping import EarlyStopping
from .functions import LambdaCallback, TerminateOnNaN
from .rates import LearningRateScheduler, ReduceLROnPlateau
from .saving import ModelCheckpoint
from .tables import CSVLogger
from .tensorboard import TensorBoard

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]
