"""Keras's optimizers: its names, arguments and formulas, as torch.optim.Optimizer.

`SGD`, `Adam` and the others are recipes: called with parameters, as `fit` does, they make an optimizer. Where
Keras and torch differ, Keras is followed: Adam's epsilon is added to the root of the second moment before its
bias is corrected, RMSprop's stands inside the root, SGD's momentum is a sum of steps and not of gradients
(which matters once the learning rate changes), and weight decay shrinks the weights themselves everywhere.
"""

from .base import KerasOptimizer
from .find import OPTIMIZERS, make_optimizer
from .gradients import SGD, Adadelta, Adagrad, Ftrl, RMSprop
from .loss_scale import LossScaleOptimizer
from .matrices import Adafactor, Muon
from .moments import Adam, Adamax, AdamW, Lamb, Lion, Nadam
from .recipe import Recipe

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "KerasOptimizer",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "Muon",
    "Nadam",
    "RMSprop",
    "Recipe",
    "make_optimizer",
]
