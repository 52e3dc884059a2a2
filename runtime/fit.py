"""Training a compiled network, with Keras's names for what is asked and what comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ..graph.errors import ConvLoomError, UnsupportedLayerError
from . import checks
from .batch_step import find_losses, make_step, output_shapes, outputs_of
from .batches import Form, open_data, split_off
from .callback_list import CallbackList, checked
from .callbacks import Callback
from .compile import compile
from .evaluation import Sums
from .history import History
from .inputs import holds_arrays, is_array
from .losses import Loss
from .metrics import find_metrics
from .network import CompiledNetwork
from .optimizers import make_optimizer
from .progress import ProgressBar
from .stepping import Stepper
from .training import Training


def fit(
    net: Any,
    data: Any,
    *more: Any,
    y: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    epochs: int = 1,
    batch_size: int = 32,
    learning_rate: float | None = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    callbacks: Iterable[Callback] = (),
    metrics: Any = None,
    shuffle: bool = True,
    seed: int | None = None,
    stop_on_nan: bool = True,
    verbose: bool = True,
) -> History:
    """Train a network, `fit(net, (x, y), loss, optimizer)`, and leave it in eval() mode.

    What the network's regularizers count is part of the loss in training and in validation, and its
    constraints follow each step of the optimizer, as in Keras.

    net: a compiled network; or a Model, which is compiled as `compile(model)` does, trained, and left with
        the new weights, while `history.net` is the network to predict with.
    data, validation_data: a pair (x, y) of NumPy arrays or tensors, the batch first (x a list of them, or a
        dictionary by the inputs' names, where the network has several inputs); or a DataLoader, or any
        iterable of such pairs, batches already. `fit(net, x, y, ...)` is taken as well.
    loss: "categorical_crossentropy", "sparse_categorical_crossentropy" (targets are class numbers),
        "binary_crossentropy", "mean_squared_error" or "mse"; an object of `cl.losses`, which takes
        from_logits=; or a function that returns one number. A function or object of Keras's, or one whose
        first argument is called y_true (or target, labels), is called as (y_true, y_pred); any other, torch's
        and torchmetrics' among them, as (prediction, target).
    optimizer: "sgd", "adam" (the default), "adamw" or "rmsprop", which are Keras's, with Keras's defaults;
        one of `cl.optimizers`, which take its other arguments; a torch.optim.Optimizer; or what makes one
        from parameters. learning_rate: instead of the default of an optimizer given by name.
    validation_split: the last fraction of the data is kept for validation, as in Keras.
    metrics: "accuracy"; functions that give the mean over a batch, called as losses are; or metric objects of
        Keras's or torchmetrics' kind, which keep their state over an epoch. By default accuracy, with a
        cross-entropy by name.
    seed: of the shuffling and of dropout; the global generator of torch is left as it was.
    stop_on_nan: stop with an error at the first step whose loss or new weights are not finite, with the
        weights from before it; False trains on.
    Raises ConvLoomError for data, names or shapes that do not fit, before or at the first batch.
    """
    data, loss, optimizer = _arguments(data, more, y, loss, optimizer)
    model, net = net, _network(net)
    _refuse_masks(net)
    epochs = checks.whole(epochs, "epochs", 0)
    batch_size = checks.whole(batch_size, "batch_size", 1)
    seed = checks.seed(seed)
    callbacks = checked(callbacks)
    losses = find_losses(loss, outputs_of(net))
    if metrics is None:
        only = next(iter(losses.values()))
        metrics = ("accuracy",) if len(losses) == 1 and isinstance(only, Loss) and only.classifies else ()
    form = _form(net, losses)
    if validation_split:
        if validation_data is not None:
            raise ConvLoomError("give validation_data or validation_split, not both")
        data, validation_data = split_off(data, validation_split, form)
    step = make_step(net, losses)
    stepper = Stepper(net, make_optimizer(optimizer, net.parameters(), learning_rate))
    found = find_metrics(metrics, outputs=list(losses))
    device = next(net.parameters()).device
    with _seeded(seed, device):
        order = torch.Generator().manual_seed(int(torch.randint(2**62, ()))) if shuffle else None
        batches = open_data(data, batch_size, device, order, "data", form)
        held_out = None
        if validation_data is not None:
            held_out = open_data(validation_data, batch_size, device, None, "validation_data", form)
        with_loss = [name for name, loss in losses.items() if loss is not None]
        reported = Sums(with_loss, found).directions
        if held_out is not None:
            reported |= {f"val_{name}": direction for name, direction in reported.items()}
        watching = CallbackList(
            [*callbacks, *([ProgressBar()] if verbose else [])],
            model=model,
            net=net,
            params={"verbose": int(verbose), "epochs": epochs, "steps": batches.size},
            stepper=stepper,
            reported=reported,
        )
        training = Training(
            net=net,
            step=step,
            stepper=stepper,
            losses=with_loss,
            metrics=found,
            callbacks=watching,
            data=batches,
            validation=held_out,
            epochs=epochs,
            stop_on_nan=stop_on_nan and not any(callback.handles_nan for callback in callbacks),
        )
        try:
            return training.run()
        finally:
            net.eval()


def _arguments(data: Any, more: tuple[Any, ...], y: Any, loss: Any, optimizer: Any) -> tuple[Any, Any, Any]:
    """(data, loss, optimizer) of fit(net, (x, y), loss, optimizer) or of fit(net, x, y, loss, optimizer)."""
    rest = list(more)
    if y is None and rest and _is_target(rest[0], data):
        y = rest.pop(0)
    if y is not None:
        if not (is_array(data) or isinstance(data, list | tuple | Mapping)):
            raise ConvLoomError(f"data is a {type(data).__name__} and brings its own targets; leave y out")
        data = (data, y)
    if rest and loss is None:
        loss = rest.pop(0)
    if rest and optimizer is None:
        optimizer = rest.pop(0)
    if rest:
        raise ConvLoomError(
            f"call fit(net, (x, y), loss, optimizer), everything else by name; {rest[0]!r:.60} is too much"
        )
    if loss is None:
        raise ConvLoomError("fit needs a loss, for example loss='categorical_crossentropy'")
    return data, loss, "adam" if optimizer is None else optimizer


def _is_target(value: Any, data: Any) -> bool:
    """Whether fit's third argument is the targets rather than the loss."""
    if is_array(value) or isinstance(value, list) or holds_arrays(value):
        return True
    return (is_array(data) or isinstance(data, Mapping)) and not (isinstance(value, str) or callable(value))


def _network(net: Any) -> torch.nn.Module:
    if isinstance(net, torch.nn.Module):
        return net
    if hasattr(net, "to_graph"):
        return compile(net)
    raise ConvLoomError(f"fit takes a compiled network or a Model, found {type(net).__name__}")


def _compiled(net: torch.nn.Module) -> CompiledNetwork | None:
    """The compiled network, which torch's data parallelism may wrap."""
    inner = getattr(net, "module", net)
    return inner if isinstance(inner, CompiledNetwork) else None


def _refuse_masks(net: torch.nn.Module) -> None:
    compiled = _compiled(net)
    if compiled is not None and compiled.masked_outputs:
        raise UnsupportedLayerError(
            f"fit: the output of {compiled.masked_outputs[0]!r} has a mask, of a Masking layer or an "
            f"Embedding with mask_zero, by which Keras leaves steps out of the loss; ConvLoom does not. Let "
            f"a layer that drops the mask follow, set mask_zero to False, or write your own training loop"
        )


def _form(net: torch.nn.Module, losses: Mapping[str, Any]) -> Form:
    compiled = _compiled(net)
    names = [node.name for node in compiled.input_nodes] if compiled else ()
    if compiled is None or compiled.is_open:  # what fits hangs on the sizes of each batch
        return Form(names, list(losses))
    shapes = output_shapes(compiled)
    checks = {
        name: partial(loss.check, output=shapes[name])
        for name, loss in losses.items()
        if isinstance(loss, Loss)
    }
    return Form(names, list(losses), checks)


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """torch's generators seeded inside, and as they were outside."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
