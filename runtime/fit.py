"""Training, evaluating and predicting with a compiled network, with Keras's names for what is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from .callbacks import Callback
from .compile import compile
from .history import History
from .inputs import holds_arrays, is_array
from .losses import Loss, find_loss
from .optimizers.recipe import LearningRate
from .trainer import Trainer


def fit(
    net: Any,
    data: Any,
    *more: Any,
    y: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    epochs: int = 1,
    batch_size: int | None = None,
    learning_rate: LearningRate | None = None,
    scheduler: Any = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    callbacks: Iterable[Callback] | Callback | None = (),
    metrics: Any = None,
    shuffle: bool | str = True,
    seed: int | None = None,
    stop_on_nan: bool = True,
    verbose: int | str = "auto",
    loss_weights: Any = None,
    weighted_metrics: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | Collection[int] = 1,
    checkpoint: Any = None,
    debug_nan: bool = False,
    sync_batch_norm: bool = False,
) -> History:
    """Train a network, `fit(net, (x, y), loss, optimizer)`, and leave it in eval() mode.

    What the network's regularizers count is part of the loss in training and in validation, and its
    constraints follow each step of the optimizer, as in Keras. Models have `fit` as a method too.

    net: a compiled network; or a Model, which is compiled as `compile(model)` does, trained, and left with
        the new weights, while `history.net` is the network to predict with.
    data, validation_data: a pair (x, y), or (x, y, weights of the examples), of NumPy arrays or tensors, the
        batch first; x is a list of them, or a dictionary by the inputs' names, where the network has several
        inputs, y and the weights the same where it has several outputs. Or a Dataset of torch's, a
        DataLoader, Keras's PyDataset, any iterable of such pairs, batches already, or a function that makes
        one for each epoch. `fit(net, x, y, ...)` is taken as well.
    loss: "categorical_crossentropy", "sparse_categorical_crossentropy" (targets are class numbers),
        "binary_crossentropy", "mean_squared_error" or "mse"; an object of `cl.losses`, which takes
        from_logits=; or a function that returns one number. A function or object of Keras's, or one whose
        first argument is called y_true (or target, labels), is called as (y_true, y_pred); any other, torch's
        and torchmetrics' among them, as (prediction, target). For several outputs one for all, a list, or a
        dictionary by their names; loss_weights: their factors in the sum, the same way.
    optimizer: "adam" (the default), "sgd" or another of Keras's names, with Keras's defaults; one of
        `cl.optimizers`, which take its other arguments; a torch.optim.Optimizer; or what makes one from
        parameters. learning_rate: instead of the default of an optimizer given by name.
    scheduler: one of torch.optim.lr_scheduler, made for the optimizer that is given, or a function that makes
        one of an optimizer. It steps after each epoch (OneCycleLR and CyclicLR after each batch, as any in
        `cl.schedules.EachStep`). Keras's schedules go into the optimizer, as its learning_rate.
    batch_size: of arrays and datasets; 32, or what makes steps_per_epoch batches of an array.
    validation_split: the last fraction of the data is kept for validation, as in Keras.
    metrics: "accuracy"; functions that give the mean over a batch, called as losses are; or metric objects of
        Keras's or torchmetrics' kind, which keep their state over an epoch. By default accuracy, with a
        cross-entropy by name. weighted_metrics: those that take the weights of the examples.
    sample_weight: of the examples, beside x and y. class_weight: class number -> weight of its examples.
    shuffle: True; False; or "batch", which leaves neighbours together.
    seed: of the shuffling and of dropout; the global generator of torch is left as it was.
    stop_on_nan: stop with an error at the first step whose loss or new weights are not finite, with the
        weights from before it; False trains on.
    verbose: 0 for nothing, 1 or "auto" for a bar, 2 for a line an epoch.
    steps_per_epoch: steps of an epoch, which then goes on in the data where the last one ended.
    validation_freq: validate every so many epochs, or after those listed, counted from 1.
    checkpoint: a folder that keeps the run, or `cl.Checkpoints`, which says how often too: the same call,
        made again after the process ended in whatever way, goes on where it stood, with the same bits.
    debug_nan: let the error of stop_on_nan name the layer and the op that made the first such value.
    sync_batch_norm: under torchrun, let batch norms take the statistics of all processes' batches.
    Ctrl-C and SIGTERM end the training after the step under way; the History says so (`interrupted`), and a
    second one ends it at once. Under torchrun all processes train one network, as docs/training.md says.
    Raises ConvLoomError for data, names or shapes that do not fit, before or at the first batch.
    """
    data, loss, optimizer = _arguments(data, more, y, loss, optimizer)
    trainer = Trainer(
        _network(net, "fit"),
        loss=loss,
        loss_weights=loss_weights,
        metrics=_default_metrics(loss) if metrics is None else metrics,
        weighted_metrics=weighted_metrics,
        optimizer=optimizer,
        learning_rate=learning_rate,
        scheduler=scheduler,
    )
    return trainer.fit(
        with_weights(data, sample_weight),
        batch_size=batch_size,
        epochs=epochs,
        initial_epoch=initial_epoch,
        steps_per_epoch=steps_per_epoch,
        validation_data=validation_data,
        validation_split=validation_split,
        validation_steps=validation_steps,
        validation_batch_size=validation_batch_size,
        validation_freq=validation_freq,
        class_weight=class_weight,
        callbacks=callbacks,
        shuffle=shuffle,
        seed=seed,
        stop_on_nan=stop_on_nan,
        verbose=verbose,
        checkpoint=checkpoint,
        debug_nan=debug_nan,
        sync_batch_norm=sync_batch_norm,
    )


def evaluate(
    net: Any,
    data: Any,
    y: Any = None,
    *,
    loss: Any,
    metrics: Any = None,
    loss_weights: Any = None,
    weighted_metrics: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    steps: int | None = None,
    callbacks: Iterable[Callback] | Callback | None = (),
    verbose: int | str = 0,
) -> dict[str, float]:
    """The loss and the metrics of a network over data in eval() mode, by Keras's names.

    The arguments are those of `fit`. steps: batches to take, where not all.
    """
    trainer = Trainer(
        _network(net, "evaluate"),
        loss=loss,
        loss_weights=loss_weights,
        metrics=_default_metrics(loss) if metrics is None else metrics,
        weighted_metrics=weighted_metrics,
    )
    given = with_weights(data if y is None else (data, y), sample_weight)
    return trainer.evaluate(given, batch_size=batch_size, steps=steps, callbacks=callbacks, verbose=verbose)


def predict(
    net: Any,
    x: Any,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    callbacks: Iterable[Callback] | Callback | None = (),
    verbose: int | str = 0,
) -> Any:
    """What a network gives for all of x in eval() mode, batch by batch, as NumPy arrays.

    x: as of `fit`, without targets; those that a Dataset or a DataLoader brings are left out. Returns one
    array, a list of them for several outputs, or a dictionary where the model's outputs were given as one.
    """
    trainer = Trainer(_network(net, "predict"))
    return trainer.predict(x, batch_size=batch_size, steps=steps, callbacks=callbacks, verbose=verbose)


def with_weights(data: Any, sample_weight: Any) -> Any:
    """(x, y) with weights of the examples; raises ConvLoomError where the data must bring its own."""
    if sample_weight is None:
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ConvLoomError(
            f"data is a {type(data).__name__} and brings its own weights, as the third part of a batch; "
            f"leave sample_weight out"
        )
    return (*data, sample_weight)


def _default_metrics(loss: Any) -> Any:
    """Accuracy, with a cross-entropy by name."""
    if isinstance(loss, list | tuple | Mapping):
        return ()
    found = find_loss(loss)
    return ("accuracy",) if isinstance(found, Loss) and found.classifies else ()


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


def _network(net: Any, called: str) -> torch.nn.Module:
    if isinstance(net, torch.nn.Module):
        return net
    if hasattr(net, "to_graph"):
        return compile(net)
    raise ConvLoomError(f"{called} takes a compiled network or a Model, found {type(net).__name__}")
