"""Keras's methods of a model that train it and use it, handed to the runtime by way of the public face."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar

from ..graph.errors import ConvLoomError


class Trainable:
    """What a model does with data: `compile`, `fit`, `evaluate`, `predict`, and the same on one batch.

    Behind it stands a compiled network, which is kept. It holds the very weights of the model. A copy or a
    pickle of the model is not compiled for training.
    """

    trainer_type: ClassVar[Callable[[Any], Any] | None] = None
    """What trains a model; the public face sets it, as this room knows nothing of running."""

    _training: Any = None

    stop_training: bool = False
    """Set to True, by a callback for one, it ends the training that runs."""

    @property
    def _trainer(self) -> Any:
        if self._training is None:
            if self.trainer_type is None:
                raise ConvLoomError("models train where convloom is imported whole: import convloom as cl")
            self._training = type(self).trainer_type(self)  # type: ignore[misc]
        return self._training

    @property
    def optimizer(self) -> Any:
        """The optimizer's steps after `compile`, with `learning_rate` to read and to set; before it, None."""
        return self._trainer.stepper

    @property
    def history(self) -> Any:
        """What the last `fit` reported; None before it."""
        return self._trainer.history

    @property
    def compiled_network(self) -> Any:
        """The network behind these methods, as `cl.compile` gives it, with its kernels and `explain()`."""
        return self._trainer.net

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        *,
        device: str = "auto",
        backend: str = "auto",
        dtype: str = "float32",
        fuse: bool = True,
        input_shape: Any = None,
    ) -> None:
        """Settle how the model is trained, in Keras's words, and start with a fresh optimizer.

        optimizer, loss, loss_weights, metrics, weighted_metrics: as of `cl.fit`; None for a loss: the model
        only predicts. device, backend, dtype, fuse, input_shape: of the network behind it, as of
        `cl.compile`. run_eagerly, steps_per_execution, jit_compile: are Keras's and change nothing here.
        Raises ConvLoomError for names and objects that do not fit the model.
        """
        del run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
        settings = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        options = {
            "device": device,
            "backend": backend,
            "dtype": dtype,
            "fuse": fuse,
            "input_shape": input_shape,
        }
        self._trainer.compile(settings, options)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Iterable[Any] | Any | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Collection[int] = 1,
        *,
        seed: int | None = None,
        stop_on_nan: bool = True,
        checkpoint: Any = None,
        debug_nan: bool = False,
        sync_batch_norm: bool = False,
    ) -> Any:
        """Train the model; another call goes on with the optimizer's state. Returns a `cl.History`.

        x: arrays, as a list or a dictionary by name for several inputs, with y, and sample_weight, the same
        for several outputs; or, without y, what brings them: a Dataset of torch's, a DataLoader, a PyDataset,
        batches (x, y) or (x, y, weights), or a function that makes them for each epoch. All arguments mean
        what they mean in `cl.fit`, and in Keras. Raises ConvLoomError for data that does not fit.
        """
        return self._trainer.fit(
            self._trainer.given(x, y, sample_weight),
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
            seed=seed,
            stop_on_nan=stop_on_nan,
            checkpoint=checkpoint,
            debug_nan=debug_nan,
            sync_batch_norm=sync_batch_norm,
        )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Iterable[Any] | Any | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics over data: one number, a list of them, or a dictionary by their names."""
        logs = self._trainer.evaluate(
            self._trainer.given(x, y, sample_weight),
            batch_size=batch_size,
            verbose=verbose,
            steps=steps,
            callbacks=callbacks,
        )
        return logs if return_dict else self._trainer.in_order(logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Iterable[Any] | Any | None = None,
    ) -> Any:
        """What the model gives for all of x, batch by batch, as NumPy arrays: one, or a list or a dictionary
        of them as its outputs were given. It needs no `compile`."""
        return self._trainer.predict(
            x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks
        )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step on one batch; returns its loss and metrics as `evaluate` does."""
        logs = self._trainer.train_on_batch(self._trainer.given(x, y, sample_weight), class_weight)
        return logs if return_dict else self._trainer.in_order(logs)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """The loss and the metrics of one batch, as `evaluate` returns them."""
        logs = self._trainer.test_on_batch(self._trainer.given(x, y, sample_weight))
        return logs if return_dict else self._trainer.in_order(logs)

    def predict_on_batch(self, x: Any) -> Any:
        """What the model gives for one batch, as `predict` returns it."""
        return self._trainer.predict_on_batch(x)
