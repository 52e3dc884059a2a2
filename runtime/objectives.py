"""What training aims at, by Keras's names: losses, metrics and optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..graph import ops
from ..graph.errors import ConvLoomError, ShapeError
from ..graph.op import Op

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(prediction, target) -> one number for the batch."""


@dataclass(frozen=True)
class Loss:
    """A loss by name. graph_name: of the op that computes it. sparse: whether targets are class numbers."""

    name: str
    graph_name: str
    op: Op
    sparse: bool = False
    classifies: bool = True

    def target(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        """Targets of a batch in the op's shape (batch, *output); raises ShapeError where they do not fit."""
        if self.sparse:
            return self._one_hot(target, output)
        wanted = (len(target), *output)
        if target.shape != wanted and target.shape == wanted[:-1] and wanted[-1] == 1:
            target = target.unsqueeze(-1)
        if target.shape != wanted:
            hint = ""
            if self.graph_name == "categorical_crossentropy" and target.shape in (
                wanted[:-1],
                (*wanted[:-1], 1),
            ):
                hint = "; for class numbers use the loss 'sparse_categorical_crossentropy'"
            raise ShapeError(
                f"{self.name}: targets have shape {tuple(target.shape)}, "
                f"but the network's output is {wanted}{hint}"
            )
        return target.to(torch.float32) if not target.dtype.is_floating_point else target

    def _one_hot(self, target: torch.Tensor, output: tuple[int, ...]) -> torch.Tensor:
        """Class numbers of shape (batch, ...) or (batch, ..., 1) as rows of 0 and 1."""
        rows = (len(target), *output[:-1])
        if target.dtype.is_floating_point or target.dtype == torch.bool:
            kind = str(target.dtype).removeprefix("torch.")
            raise ShapeError(f"{self.name}: targets must be integers (class numbers), found {kind}")
        if target.shape == (*rows, 1):
            target = target.squeeze(-1)
        if target.shape != rows:
            hint = (
                "; for one-hot rows use 'categorical_crossentropy'"
                if target.shape == (*rows, output[-1])
                else ""
            )
            raise ShapeError(f"{self.name}: targets have shape {tuple(target.shape)}, expected {rows}{hint}")
        target = target.long()
        classes = output[-1]
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise ShapeError(
                f"{self.name}: found class {wrong}, "
                f"but the network has {classes} outputs: classes 0 to {classes - 1}"
            )
        return F.one_hot(target, classes).to(torch.float32)


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("categorical_crossentropy", "categorical_crossentropy", ops.CategoricalCrossEntropy()),
        Loss(
            "sparse_categorical_crossentropy",
            "categorical_crossentropy",
            ops.CategoricalCrossEntropy(),
            sparse=True,
        ),
        Loss("binary_crossentropy", "binary_crossentropy", ops.BinaryCrossEntropy()),
        Loss("mean_squared_error", "mean_squared_error", ops.MeanSquaredError(), classifies=False),
        Loss("mse", "mean_squared_error", ops.MeanSquaredError(), classifies=False),
    )
}


def find_loss(name: str) -> Loss:
    """The loss Keras calls `name`; raises ConvLoomError that lists the known ones."""
    if name.lower() not in LOSSES:
        raise ConvLoomError(
            f"unknown loss {name!r}; known: {', '.join(LOSSES)}, or a function (prediction, target) -> scalar"
        )
    return LOSSES[name.lower()]


# -- metrics ---------
def accuracy(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The share of right answers: of the largest output, or of one output against 0.5.

    target: one-hot rows of the prediction's shape, or class numbers of its shape without the last axis.
    """
    if prediction.shape[-1] > 1:
        best = prediction.argmax(-1)
        right = best == (
            target.argmax(-1) if target.shape == prediction.shape else target.reshape(best.shape)
        )
    else:
        right = (prediction > 0.5) == (target.reshape(prediction.shape) > 0.5)
    return right.double().mean()


METRICS: dict[str, Measure] = {"accuracy": accuracy, "acc": accuracy}


def find_metrics(metrics: Iterable[str | Measure] | Mapping[str, Measure]) -> dict[str, Measure]:
    """Metrics by name; a function keeps its own name. Raises ConvLoomError that lists the known ones."""
    if isinstance(metrics, str):
        metrics = (metrics,)
    if isinstance(metrics, Mapping):
        return dict(metrics)
    found: dict[str, Measure] = {}
    for metric in metrics:
        if isinstance(metric, str):
            if metric.lower() not in METRICS:
                raise ConvLoomError(
                    f"unknown metric {metric!r}; known: accuracy, or a function (prediction, target)"
                )
            found["accuracy"] = METRICS[metric.lower()]
        elif callable(metric):
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
        else:
            raise ConvLoomError(f"metric {metric!r} is neither a name nor a function (prediction, target)")
    return found


# -- optimizers ---------
# Keras's default learning rates and constants.
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.01, "fused": True}),
    "adam": (torch.optim.Adam, {"lr": 1e-3, "eps": 1e-7, "fused": True}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-3, "eps": 1e-7, "weight_decay": 0.004, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3, "alpha": 0.9, "eps": 1e-7}),
}


def make_optimizer(
    optimizer: Any, parameters: Iterable[torch.nn.Parameter], learning_rate: float | None
) -> torch.optim.Optimizer:
    """An optimizer over `parameters`.

    optimizer: Keras's name, a class or function that takes the parameters, or an optimizer that is ready.
    learning_rate: instead of the default. Raises ConvLoomError where the two do not go together.
    """
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise ConvLoomError("the network has no trainable parameters")
    if learning_rate is not None and not learning_rate > 0:
        raise ConvLoomError(f"learning_rate is {learning_rate}; it must be above 0")
    if isinstance(optimizer, torch.optim.Optimizer):
        return _ready(optimizer, trained, learning_rate)
    if isinstance(optimizer, str):
        if optimizer.lower() not in OPTIMIZERS:
            raise ConvLoomError(
                f"unknown optimizer {optimizer!r}; known: {', '.join(OPTIMIZERS)}, or a torch.optim.Optimizer"
            )
        made, options = OPTIMIZERS[optimizer.lower()]
        rate = {} if learning_rate is None else {"lr": learning_rate}
        return made(trained, **{**options, **rate})
    if callable(optimizer):
        product = optimizer(trained) if learning_rate is None else optimizer(trained, lr=learning_rate)
        if isinstance(product, torch.optim.Optimizer):
            return product
    raise ConvLoomError(
        f"optimizer {optimizer!r} is neither a name nor a torch.optim.Optimizer nor makes one"
    )


def _ready(
    optimizer: torch.optim.Optimizer, trained: list[torch.nn.Parameter], learning_rate: float | None
) -> torch.optim.Optimizer:
    if learning_rate is not None:
        raise ConvLoomError("learning_rate goes with an optimizer given by name; this one has its own")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in held for p in trained):
        raise ConvLoomError(
            "the optimizer holds none of this network's parameters; make it from net.parameters()"
        )
    return optimizer
