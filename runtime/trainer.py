"""Training, evaluation and prediction with one network: behind `cl.fit` and behind the methods of models."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..graph.errors import ConvLoomError, UnsupportedLayerError
from . import checks
from .batch import Batch, Form
from .batch_step import find_weights, make_step, output_shapes
from .callback_list import CallbackList, checked
from .callbacks import BackupAndRestore, Callback
from .checkpoints.keeper import Keeper
from .checkpoints.settings import find_checkpoints
from .class_weights import by_class
from .distributed import check_together, divide, processes, synchronize
from .evaluation import Evaluation, Sums
from .feed import Feed
from .history import History
from .losses import Loss, find_losses
from .metrics import find_metrics
from .names import Names, compiled_in
from .open_data import Opening, split_off
from .optimizers.recipe import LearningRate
from .progress import ProgressBar
from .stepping import Stepper, make_stepper
from .training import Hooks, Training

Logs = dict[str, float]


class Trainer:
    """A network with its losses, metrics and optimizer.

    model: what was asked to train, and callbacks see: a Model, or the network itself.
    Raises ConvLoomError for names and objects that do not fit the network.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        *,
        model: Any = None,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        optimizer: Any = None,
        learning_rate: LearningRate | None = None,
        scheduler: Any = None,
    ) -> None:
        self.net = net
        self.model = net if model is None else model
        self.names = Names.of(net, model)
        self.device = next(net.parameters(), torch.empty(0)).device
        names = self.names.outputs
        self.losses = dict.fromkeys(names) if loss is None else find_losses(loss, names)
        self.trained = [name for name, found in self.losses.items() if found is not None]
        self.metrics = find_metrics(metrics, weighted_metrics, names)
        self.factors = find_weights(loss_weights, self.losses)
        self.step = make_step(net, self.losses, self.factors) if self.trained else None
        self.stepper: Stepper | None = None
        if optimizer is not None:
            self.stepper = make_stepper(net, optimizer, learning_rate, scheduler)
        self.form = self._form()

    def _form(self) -> Form:
        compiled = compiled_in(self.net)
        inputs = self.names.inputs
        if compiled is None or compiled.is_open:  # what fits hangs on the sizes of each batch
            return Form(inputs, self.names.outputs, self.trained)
        shapes = dict(zip(self.names.outputs, output_shapes(compiled).values(), strict=True))
        found = {
            name: partial(loss.check, output=shapes[name])
            for name, loss in self.losses.items()
            if isinstance(loss, Loss)
        }
        return Form(inputs, self.names.outputs, self.trained, found)

    # -- training ----------
    def fit(
        self,
        data: Any,
        *,
        batch_size: int | None = None,
        epochs: int = 1,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_data: Any = None,
        validation_split: float = 0.0,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Collection[int] = 1,
        class_weight: Mapping[int, float] | None = None,
        callbacks: Iterable[Callback] | Callback | None = (),
        shuffle: bool | str = True,
        seed: int | None = None,
        stop_on_nan: bool = True,
        verbose: int | str = "auto",
        checkpoint: Any = None,
        debug_nan: bool = False,
        sync_batch_norm: bool = False,
        hooks: Hooks | None = None,
    ) -> History:
        """As `cl.fit`; the network is left in eval() mode."""
        self._refuse_masks()
        stepper, step = self._ready()
        said = {
            "loss": self.losses,
            "loss weights": self.factors,
            "batch size": batch_size,
            "steps an epoch": steps_per_epoch,
            "shuffle": shuffle,
            "class weights": class_weight,
            "seed": seed,
        }
        watching, shown = checked(callbacks), _verbose(verbose)
        checkpoint = _one_checkpoint(checkpoint, watching)
        epochs = checks.whole(epochs, "epochs", 0)
        seed = checks.seed(seed)
        called = "batch_size", "steps_per_epoch"
        opening = self._opening(
            batch_size, steps_per_epoch, called, shuffle=shuffle, class_weight=class_weight
        )
        held_out = self._opening(
            batch_size if validation_batch_size is None else validation_batch_size,
            validation_steps,
            ("validation_batch_size", "validation_steps"),
        )
        together = processes(self.device)
        if together.count > 1:
            check_together(self.net, self.losses, debug_nan)
            seed = together.of_first(int(torch.randint(2**62, ())) if seed is None else seed)
        synchronize(self.net, sync_batch_norm and together.count > 1)
        said["processes"] = together.count
        if validation_split:
            if validation_data is not None:
                raise ConvLoomError("give validation_data or validation_split, not both")
            data, validation_data = split_off(opening, data, validation_split)
        with _seeded(seed, self.device):
            feed = self._ordered(opening).open(data)
            validation = (
                None if validation_data is None else held_out.open(validation_data, "validation_data")
            )
            if together.count > 1 and seed is not None:
                feeds = [feed] if validation is None else [feed, validation]
                divide(together, feeds, self.net, seed)
            training = Training(
                net=self.net,
                step=step,
                stepper=stepper,
                losses=self.trained,
                metrics=self.metrics,
                callbacks=self._watching(
                    watching, shown if together.is_first else 0, epochs, feed, validation is not None
                ),
                data=feed,
                validation=validation,
                epochs=epochs,
                epoch=checks.whole(initial_epoch, "initial_epoch", 0),
                validation_freq=_frequency(validation_freq),
                stop_on_nan=stop_on_nan and not any(callback.handles_nan for callback in watching),
                debug_nan=debug_nan,
                together=together,
                hooks=hooks or Keeper(find_checkpoints(checkpoint), said),
            )
            try:
                return training.run()
            finally:
                self.net.eval()
                synchronize(self.net, False)

    def train_on_batch(self, data: Any, class_weight: Mapping[int, float] | None = None) -> Logs:
        """One step on one batch: the loss and the metrics of it, from before the step."""
        stepper, step = self._ready()
        batch = self._batch(data, class_weight)
        self.net.train()
        try:
            result = stepper.step(lambda: step(batch))
        finally:
            self.net.eval()
        sums = self.sums()
        sums.add(result, batch)
        return sums.read()

    # -- evaluating and predicting ----------
    def evaluate(
        self,
        data: Any,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        callbacks: Iterable[Callback] | Callback | None = (),
        verbose: int | str = "auto",
    ) -> Logs:
        """The losses and the metrics of data in eval() mode, by Keras's names."""
        self._refuse_masks()
        _, step = self._ready(training=False)
        feed = self._opening(batch_size, steps).open(data)
        watching = self._watching(checked(callbacks), _verbose(verbose), 1, feed)
        evaluation = Evaluation(self.net, step, self.trained, self.metrics)
        with contextlib.closing(watching):
            return evaluation.run(feed, watching)

    def test_on_batch(self, data: Any) -> Logs:
        """The losses and the metrics of one batch in eval() mode."""
        _, step = self._ready(training=False)
        batch = self._batch(data)
        self.net.eval()
        sums = self.sums()
        with torch.no_grad():
            sums.add(step(batch), batch)
        return sums.read()

    @torch.no_grad()
    def predict(
        self,
        x: Any,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        callbacks: Iterable[Callback] | Callback | None = (),
        verbose: int | str = "auto",
    ) -> Any:
        """What the network gives for all of x in eval() mode, as NumPy arrays."""
        feed = self._opening(batch_size, steps, targets=False).open(x, "x")
        watching = self._watching(checked(callbacks), _verbose(verbose), 1, feed)
        self.net.eval()
        parts: list[list[npt.NDArray[Any]]] = []
        seen = 0
        with contextlib.closing(watching):
            watching.on_predict_begin()
            for place, batch in enumerate(feed.epoch()):
                watching.on_batch_begin("predict", place)
                found = self._predicted(batch)
                parts.append(found)
                seen += batch.size
                watching.on_batch_end("predict", place, partial(self._shown, found), seen)
                if getattr(self.model, "stop_predicting", False):
                    break
            watching.on_predict_end()
        if not parts:
            raise ConvLoomError("x gave no batch; give an array, a list or a DataLoader")
        return self.names.handed_out([np.concatenate(column) for column in zip(*parts, strict=True)])

    @torch.no_grad()
    def predict_on_batch(self, x: Any) -> Any:
        """What the network gives for one batch in eval() mode, as NumPy arrays."""
        examples = self._opening(targets=False).examples(x, "x")
        if examples is None:
            raise ConvLoomError("x is no batch; give arrays or tensors")
        self.net.eval()
        return self.names.handed_out(self._predicted(examples.rows(slice(None), self.device)))

    def _predicted(self, batch: Batch) -> list[npt.NDArray[Any]]:
        found = self.net(*batch.inputs)
        return [_as_array(part) for part in (found if isinstance(found, tuple) else (found,))]

    def _shown(self, found: list[npt.NDArray[Any]]) -> dict[str, Any]:
        return {"outputs": self.names.handed_out(found)}

    # -- what all of them need ----------
    def sums(self) -> Sums:
        """The losses and metrics of a pass that begins."""
        return Sums(self.trained, self.metrics)

    def _ready(self, training: bool = True) -> Any:
        """The stepper and the step; raises ConvLoomError where there is none."""
        if self.step is None:
            raise ConvLoomError("fit needs a loss, for example loss='categorical_crossentropy'")
        if training and self.stepper is None:
            raise ConvLoomError("fit needs an optimizer, for example optimizer='adam'")
        return self.stepper, self.step

    def _opening(
        self,
        batch_size: int | None = None,
        steps: int | None = None,
        called: tuple[str, str] = ("batch_size", "steps"),
        *,
        shuffle: bool | str = False,
        class_weight: Mapping[int, float] | None = None,
        targets: bool = True,
    ) -> Opening:
        size = None if batch_size is None else checks.whole(batch_size, called[0], 1)
        steps = None if steps is None else checks.whole(steps, called[1], 1)
        change = None if class_weight is None else by_class(class_weight, self._ranks())
        return Opening(self.form, self.device, size, steps, shuffle, None, change, targets)

    def _ordered(self, opening: Opening) -> Opening:
        """With a generator for the order of the data, which follows from torch's own."""
        return opening.with_generator() if opening.shuffle else opening

    def _ranks(self) -> list[int]:
        compiled = compiled_in(self.net)
        if compiled is None:
            return [2] * len(self.names.outputs)
        return [len(shape) + 1 for shape in output_shapes(compiled).values()]

    def _batch(self, data: Any, class_weight: Mapping[int, float] | None = None) -> Batch:
        examples = self._opening().examples(data, "data")
        if examples is None:
            raise ConvLoomError("x and y are no batch; give arrays or tensors")
        self.form.check(examples.targets)
        batch = examples.rows(slice(None), self.device)
        return batch if class_weight is None else by_class(class_weight, self._ranks())(batch)

    def _watching(
        self, callbacks: list[Callback], shown: int, epochs: int, feed: Feed, validated: bool = False
    ) -> CallbackList:
        reported = self.sums().directions
        if validated:
            reported |= {f"val_{name}": direction for name, direction in reported.items()}
        return CallbackList(
            [*callbacks, *([ProgressBar()] if shown else [])],
            model=self.model,
            net=self.net,
            params={"verbose": shown, "epochs": epochs, "steps": feed.size},
            stepper=self.stepper,
            reported=reported,
        )

    def _refuse_masks(self) -> None:
        compiled = compiled_in(self.net)
        if compiled is not None and compiled.masked_outputs:
            raise UnsupportedLayerError(
                f"fit: the output of {compiled.masked_outputs[0]!r} has a mask, of a Masking layer or an "
                f"Embedding with mask_zero, by which Keras leaves steps out of the loss; ConvLoom does not. "
                f"Let a layer that drops the mask follow, set mask_zero to False, or write your own training "
                f"loop"
            )


def _as_array(value: torch.Tensor) -> npt.NDArray[Any]:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _verbose(verbose: Any) -> int:
    """0 for nothing, 1 for a bar, 2 for a line an epoch."""
    if verbose == "auto":
        return 1
    if isinstance(verbose, bool):
        return int(verbose)
    try:
        return checks.whole(verbose, "verbose", 0, 2)
    except ConvLoomError:
        raise ConvLoomError(f"verbose is {verbose!r:.60}; it takes 0, 1, 2 or 'auto'") from None


def _one_checkpoint(checkpoint: Any, callbacks: list[Callback]) -> Any:
    """What the argument says, or a BackupAndRestore among the callbacks."""
    given = [c.checkpoints for c in callbacks if isinstance(c, BackupAndRestore)]
    if len(given) + (checkpoint is not None) > 1:
        raise ConvLoomError("a run is kept in one place; give checkpoint= or one BackupAndRestore")
    return given[0] if given else checkpoint


def _frequency(freq: Any) -> int | Collection[int]:
    if isinstance(freq, Collection) and not isinstance(freq, str):
        return [checks.whole(epoch, "an epoch of validation_freq", 1) for epoch in freq]
    return checks.whole(freq, "validation_freq", 1)


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """torch's generators seeded inside, and as they were outside."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
