"""Training a compiled network, with Keras's names for what is asked and what comes back."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..graph.errors import ConvLoomError, UnsupportedLayerError
from ..graph.words import words
from . import checks
from .batches import Batches, Form, open_data, split_off
from .callbacks import Callback
from .compile import compile
from .guard import Guard
from .inputs import holds_arrays, is_array
from .losses import Loss, find_loss
from .metrics import Metric, find_metrics
from .network import CompiledNetwork
from .optimizers import make_optimizer
from .progress import EpochBar
from .steps import weight_penalty

Step = Callable[[Sequence[torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(inputs, target) -> loss and prediction."""


@dataclass
class History:
    """What training reported. epoch: the epochs that ran, from 0. history: name -> one value an epoch.

    The names are Keras's: loss, accuracy, val_loss, val_accuracy. seconds: of each epoch with its validation.
    net: the network that was trained, in eval() mode: `history.net(x)` predicts.
    """

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    net: torch.nn.Module | None = field(default=None, repr=False, compare=False)

    def add(self, logs: Mapping[str, float], seconds: float) -> None:
        self.epoch.append(len(self.epoch))
        self.seconds.append(seconds)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class _Epoch:
    """The loss and the metrics of an epoch; means stay on the device, so that no step waits for one."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self.totals: dict[str, torch.Tensor] = {}
        self.count = 0
        for metric in metrics:
            if metric.reset is not None:
                metric.reset()

    def add(self, loss: torch.Tensor, prediction: torch.Tensor, target: torch.Tensor) -> None:
        self.count += len(target)
        self._add("loss", loss, len(target))
        for metric in self.metrics:
            if metric.measure is not None:
                self._add(metric.name, torch.as_tensor(metric.measure(prediction, target)), len(target))
            elif metric.update is not None:
                metric.update(prediction, target)

    def _add(self, name: str, value: torch.Tensor, examples: int) -> None:
        if value.numel() != 1:
            raise ConvLoomError(
                f"metric {name} gave a tensor of shape {tuple(value.shape)}; it must give one number, "
                f"such as the mean over the batch"
            )
        part = value.detach().reshape(()).to(torch.float64) * examples
        self.totals[name] = self.totals[name] + part if name in self.totals else part

    def read(self) -> dict[str, float]:
        means = {name: float(total) / max(1, self.count) for name, total in self.totals.items()}
        return {"loss": means["loss"]} | {
            m.name: means[m.name] if m.name in means else m.read() for m in self.metrics
        }


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
    net = _network(net)
    _refuse_masks(net)
    epochs = checks.whole(epochs, "epochs", 0)
    batch_size = checks.whole(batch_size, "batch_size", 1)
    seed = checks.seed(seed)
    callbacks = _checked(callbacks)
    found = find_loss(loss)
    if metrics is None:
        metrics = ("accuracy",) if isinstance(found, Loss) and found.classifies else ()
    training = _Run(
        net,
        _step(net, found),
        make_optimizer(optimizer, net.parameters(), learning_rate),
        find_metrics(metrics),
        stop_on_nan,
    )
    form = _form(net, found)
    if validation_split:
        if validation_data is not None:
            raise ConvLoomError("give validation_data or validation_split, not both")
        data, validation_data = split_off(data, validation_split, form)
    device = next(net.parameters()).device
    with _seeded(seed, device):
        order = torch.Generator().manual_seed(int(torch.randint(2**62, ()))) if shuffle else None
        batches = open_data(data, batch_size, device, order, "data", form)
        held_out = None
        if validation_data is not None:
            held_out = open_data(validation_data, batch_size, device, None, "validation_data", form)
        try:
            return training.run(batches, held_out, epochs, callbacks, verbose)
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


def _form(net: torch.nn.Module, loss: Any) -> Form:
    compiled = _compiled(net)
    names = [node.name for node in compiled.input_nodes] if compiled else ()
    if not isinstance(loss, Loss):
        return Form(names)
    if compiled is not None and compiled.is_open:  # what fits hangs on the sizes of each batch
        return Form(names)
    output = _output_shape(net)
    return Form(names, lambda target: loss.check(target, output))


def _checked(callbacks: Iterable[Callback]) -> list[Callback]:
    found = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in found:
        if not isinstance(callback, Callback):
            raise ConvLoomError(
                f"callback {callback!r:.60} is no cl.Callback; derive its class from cl.Callback"
            )
    return found


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """torch's generators seeded inside, and as they were outside."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _step(net: torch.nn.Module, loss: Any) -> Step:
    """The computation of one batch's loss: one function, for training and for validation."""
    if not isinstance(loss, Loss):
        predict = _predictor(net)

        def by_function(inputs: Sequence[torch.Tensor], target: torch.Tensor) -> tuple[torch.Tensor, ...]:
            prediction, penalty = predict(*inputs)
            value = loss(prediction, target)
            return value if penalty is None else value + penalty, prediction

        return by_function  # type: ignore[return-value]
    if not isinstance(net, CompiledNetwork):
        raise ConvLoomError(
            f"{loss.keras_name} is compiled with the network, and {type(net).__name__} is no compiled one; "
            f"give a function (prediction, target)"
        )
    fused = net.with_loss(loss.graph_name, loss.from_logits)

    def by_name(inputs: Sequence[torch.Tensor], target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = _output_shape(net.of_size(inputs))
        if net.is_open:
            loss.check(target, output)
        return fused(inputs, loss.encode(target, output))

    return by_name


def _predictor(net: torch.nn.Module) -> Callable[..., tuple[Any, torch.Tensor | None]]:
    """The network as a function that also gives what its regularizers add to the loss, None for nothing."""
    regularized = [network for network in _networks(net) if network.is_regularized]
    if not regularized:
        return lambda *inputs: (net(*inputs), None)
    if regularized[0] is net:
        return regularized[0].with_penalty()
    for network in regularized:
        weight_penalty(network)  # which raises for what cannot be counted so
    return lambda *inputs: (net(*inputs), torch.stack([*map(weight_penalty, regularized)]).sum())


def _networks(net: torch.nn.Module) -> list[CompiledNetwork]:
    """The compiled networks in a module: itself, or what data parallelism and other modules wrap."""
    return [part for part in net.modules() if isinstance(part, CompiledNetwork)]


def _output_shape(net: Any) -> tuple[int, ...]:
    """Shape of the only output for one example."""
    graph = net.source
    (output,) = graph.outputs.values()
    return tuple(int(size) for size in graph[output].type.shape[1:])


@dataclass
class _Run:
    """One call of `fit`, with everything in it settled."""

    net: torch.nn.Module
    step: Step
    optimizer: torch.optim.Optimizer
    metrics: list[Metric]
    stop_on_nan: bool

    def run(
        self, data: Batches, validation: Batches | None, epochs: int, callbacks: list[Callback], verbose: bool
    ) -> History:
        history = History(net=self.net)
        reported = {"loss": "min"} | {metric.name: metric.direction for metric in self.metrics}
        if validation is not None:
            reported |= {f"val_{name}": direction for name, direction in reported.items()}
        for callback in callbacks:
            callback.reported = reported
            callback.on_train_begin(self.net)
        guard = Guard(self.net, next(self.net.parameters()).device) if self.stop_on_nan and epochs else None
        for epoch in range(epochs):
            start = time.perf_counter()
            with EpochBar(epoch, epochs, data.size, verbose) as bar:
                logs = self._train(data, bar, guard)
                if validation is not None:
                    logs |= {f"val_{name}": value for name, value in self._validate(validation).items()}
                bar.finish(logs)
            history.add(logs, time.perf_counter() - start)
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs)
            if any(callback.stop for callback in callbacks):
                break
        for callback in callbacks:
            callback.on_train_end()
        return history

    def _train(self, data: Batches, bar: EpochBar, guard: Guard | None) -> dict[str, float]:
        self.net.train()
        means, networks = _Epoch(self.metrics), _networks(self.net)
        for inputs, target in data:
            if guard is not None:
                guard.before()
            self.optimizer.zero_grad(set_to_none=True)
            loss, prediction = self.step(inputs, target)
            _check_scalar(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            for network in networks:
                network.apply_constraints()
            if guard is not None:
                guard.after(loss, (*inputs, target))
            means.add(loss, _detached(prediction), target)
            bar.advance(means.read)
        if guard is not None:
            guard.finish()
        if not means.count:
            raise ConvLoomError(
                "the data gave no batch; an iterator can be read once only, so give a list or a DataLoader"
            )
        return means.read()

    @torch.no_grad()
    def _validate(self, data: Batches) -> dict[str, float]:
        self.net.eval()
        means = _Epoch(self.metrics)
        for inputs, target in data:
            loss, prediction = self.step(inputs, target)
            means.add(loss, prediction, target)
        if not means.count:
            raise ConvLoomError("validation_data gave no batch; give arrays, a list or a DataLoader")
        logs = means.read()
        if self.stop_on_nan and not math.isfinite(logs["loss"]):
            raise ConvLoomError(
                f"training stopped: val_loss is {logs['loss']} while the training loss is finite; look for "
                f"NaN or infinite values in {words('validation_data', 'the data to validate on')}"
                + words("; fit(..., stop_on_nan=False) would go on")
            )
        return logs


def _detached(prediction: Any) -> Any:
    """The prediction without its graph; a tuple of them where the network has several outputs."""
    if isinstance(prediction, tuple):
        return tuple(part.detach() for part in prediction)
    return prediction.detach()


def _check_scalar(loss: Any) -> None:
    if isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.requires_grad:
        return
    if not isinstance(loss, torch.Tensor):
        kind = type(loss).__name__
        backend = (
            "; Keras computes with torch under KERAS_BACKEND=torch"
            if "keras" in type(loss).__module__
            else ""
        )
        raise ConvLoomError(
            f"the loss function returned {kind}; it must return one number that torch can differentiate"
            f"{backend}"
        )
    what = f"a tensor of shape {tuple(loss.shape)}" if loss.numel() != 1 else "a number without a gradient"
    hint = "; give its mean" if loss.numel() != 1 else "; compute it with torch from the prediction"
    raise ConvLoomError(
        f"the loss function returned {what}; it must return one number that torch can differentiate{hint}"
    )
