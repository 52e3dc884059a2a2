"""Training a compiled network, with Keras's names for what is asked and what comes back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..graph.errors import ConvLoomError
from .batches import Batches, open_data, split_off
from .callbacks import Callback
from .network import CompiledNetwork
from .objectives import Measure, find_loss, find_metrics, make_optimizer

SHOWN_EVERY = 0.2
"""Seconds between updates of the progress bar; each reads a number back from the device."""

Step = Callable[[Sequence[torch.Tensor], torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""(inputs, target) -> loss, prediction, and the target in the form the metrics take."""


@dataclass
class History:
    """What training reported. epoch: the epochs that ran, from 0. history: name -> one value an epoch.

    The names are Keras's: loss, accuracy, val_loss, val_accuracy. seconds: of each epoch with its validation.
    """

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, logs: Mapping[str, float], seconds: float) -> None:
        self.epoch.append(len(self.epoch))
        self.seconds.append(seconds)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class _Mean:
    """Means over examples, kept on the device so that no step waits for a number."""

    def __init__(self) -> None:
        self.totals: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, values: Mapping[str, torch.Tensor], examples: int) -> None:
        self.count += examples
        for name, value in values.items():
            part = value.detach().to(torch.float64) * examples
            self.totals[name] = self.totals[name] + part if name in self.totals else part

    def read(self) -> dict[str, float]:
        return {name: float(total) / max(1, self.count) for name, total in self.totals.items()}


def fit(
    net: torch.nn.Module,
    data: Any,
    loss: str | Measure,
    optimizer: Any = "adam",
    *,
    epochs: int = 1,
    batch_size: int = 32,
    learning_rate: float | None = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    callbacks: Iterable[Callback] = (),
    metrics: Iterable[str | Measure] | Mapping[str, Measure] | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    verbose: bool = True,
) -> History:
    """Train a compiled network, and leave it in eval() mode.

    What the network's regularizers count is part of the loss in training and in validation, and its
    constraints follow each step of the optimizer, as in Keras.

    data, validation_data: a pair (x, y) of NumPy arrays or tensors, the batch first (x a list of them where
        the network has several inputs); or a DataLoader, or any iterable of such pairs, batches already.
    loss: "categorical_crossentropy", "sparse_categorical_crossentropy" (targets are class numbers),
        "binary_crossentropy", "mean_squared_error" or "mse"; or a function (prediction, target) -> scalar.
    optimizer: "sgd", "adam", "adamw" or "rmsprop" with Keras's defaults; a torch.optim.Optimizer; or what
        makes one from parameters. learning_rate: instead of the optimizer's default.
    validation_split: the last fraction of the data is kept for validation, as in Keras.
    metrics: "accuracy", or functions (prediction, target) -> mean over the batch; by default accuracy, except
        for a squared error.
    seed: of the shuffling and of dropout; the global generator of torch is left as it was.
    Raises ConvLoomError for data, names or shapes that do not fit, before or at the first batch.
    """
    if epochs < 0:
        raise ConvLoomError(f"epochs is {epochs}; it must be at least 0")
    if validation_split:
        if validation_data is not None:
            raise ConvLoomError("give validation_data or validation_split, not both")
        data, validation_data = split_off(data, validation_split)
    callbacks = _checked(callbacks)
    step, named = _step(net, loss)
    if metrics is None:
        metrics = ("accuracy",) if named is None or named.classifies else ()
    training = _Run(
        net, step, make_optimizer(optimizer, net.parameters(), learning_rate), find_metrics(metrics)
    )
    device = next(net.parameters()).device
    with _seeded(seed, device):
        order = torch.Generator().manual_seed(int(torch.randint(2**62, ()))) if shuffle else None
        batches = open_data(data, batch_size, device, order)
        held_out = None
        if validation_data is not None:
            held_out = open_data(validation_data, batch_size, device, None, "validation_data")
        try:
            return training.run(batches, held_out, epochs, callbacks, verbose)
        finally:
            net.eval()
            if isinstance(net, CompiledNetwork):
                net.update_model()


def _checked(callbacks: Iterable[Callback]) -> list[Callback]:
    found = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in found:
        if not isinstance(callback, Callback):
            raise ConvLoomError(f"callback {callback!r} is no cl.Callback; derive its class from cl.Callback")
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


def _step(net: torch.nn.Module, loss: str | Measure) -> tuple[Step, Any]:
    """The computation of one batch's loss, and the named loss behind it (None for a function)."""
    predict = _predictor(net)
    if not isinstance(loss, str):
        if not callable(loss):
            raise ConvLoomError(
                f"loss {loss!r} is neither a name nor a function (prediction, target) -> scalar"
            )
        own = loss

        def by_function(inputs: Sequence[torch.Tensor], target: torch.Tensor) -> tuple[torch.Tensor, ...]:
            prediction, penalty = predict(*inputs)
            value = own(prediction, target)
            return value if penalty is None else value + penalty, prediction, target

        return by_function, None  # type: ignore[return-value]
    named = find_loss(loss)
    fused = net.with_loss(named.graph_name)  # type: ignore[operator]
    output = _output_shape(net)

    def by_name(inputs: Sequence[torch.Tensor], target: torch.Tensor) -> tuple[torch.Tensor, ...]:
        target = named.target(target, output)
        if net.training:
            value, prediction = fused(inputs, target)
        else:  # the inference plan and the loss's definition: no second graph to compile for validation
            prediction, penalty = predict(*inputs)
            value = named.op.reference(prediction, target.to(prediction.dtype))
            value = value if penalty is None else value + penalty
        return value, prediction, target

    return by_name, named  # type: ignore[return-value]


def _predictor(net: torch.nn.Module) -> Callable[..., tuple[Any, torch.Tensor | None]]:
    """The network as a function that also gives what its regularizers add to the loss, None for nothing."""
    if isinstance(net, CompiledNetwork) and net.is_regularized:
        return net.with_penalty()
    return lambda *inputs: (net(*inputs), None)


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
    metrics: dict[str, Measure]

    def run(
        self, data: Batches, validation: Batches | None, epochs: int, callbacks: list[Callback], verbose: bool
    ) -> History:
        history = History()
        for callback in callbacks:
            callback.on_train_begin(self.net)
        for epoch in range(epochs):
            start = time.perf_counter()
            with _EpochBar(epoch, epochs, data.size, verbose) as bar:
                logs = self._train(data, bar)
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

    def _train(self, data: Batches, bar: _EpochBar) -> dict[str, float]:
        self.net.train()
        mean = _Mean()
        for inputs, target in data:
            self.optimizer.zero_grad(set_to_none=True)
            loss, prediction, target = self.step(inputs, target)
            _check_scalar(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if isinstance(self.net, CompiledNetwork):
                self.net.apply_constraints()
            self._record(mean, loss, prediction, target)
            bar.advance(mean)
        if not mean.count:
            raise ConvLoomError(
                "the data gave no batch; an iterator can be read once only, so give a list or a DataLoader"
            )
        return mean.read()

    @torch.no_grad()
    def _validate(self, data: Batches) -> dict[str, float]:
        self.net.eval()
        mean = _Mean()
        for inputs, target in data:
            self._record(mean, *self.step(inputs, target))
        if not mean.count:
            raise ConvLoomError("validation_data gave no batch; give arrays, a list or a DataLoader")
        return mean.read()

    def _record(
        self, mean: _Mean, loss: torch.Tensor, prediction: torch.Tensor, target: torch.Tensor
    ) -> None:
        values = {"loss": loss.detach()}
        for name, metric in self.metrics.items():
            values[name] = torch.as_tensor(metric(prediction.detach(), target))
        mean.add(values, len(target))


def _check_scalar(loss: Any) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        kind = (
            f"a tensor of shape {tuple(loss.shape)}"
            if isinstance(loss, torch.Tensor)
            else type(loss).__name__
        )
        raise ConvLoomError(
            f"the loss function returned {kind}; it must return one number that torch can differentiate"
        )


class _EpochBar:
    """A bar while an epoch runs, and one line when it ends; nothing at all where not verbose."""

    def __init__(self, epoch: int, epochs: int, batches: int | None, verbose: bool) -> None:
        self.label = f"epoch {epoch + 1:{len(str(epochs))}}/{epochs}"
        self.console = Console()
        self.progress = Progress(
            TextColumn(self.label),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[logs]}", markup=False),
            console=self.console,
            transient=True,
            disable=not (verbose and self.console.is_terminal),
        )
        self.task = self.progress.add_task("", total=batches, logs="")
        self.verbose = verbose
        self.start = self.shown = time.perf_counter()

    def __enter__(self) -> _EpochBar:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def advance(self, mean: _Mean) -> None:
        if not self.verbose:
            return
        self.progress.advance(self.task)
        now = time.perf_counter()
        if now - self.shown > SHOWN_EVERY:
            self.shown = now
            self.progress.update(self.task, logs=_shown(mean.read()))

    def finish(self, logs: Mapping[str, float]) -> None:
        if self.verbose:
            line = f"{self.label}  {time.perf_counter() - self.start:5.1f} s  {_shown(logs)}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shown(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
