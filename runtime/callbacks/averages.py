"""Weights averaged over the steps, in the place of the last ones wherever the network is looked at."""

from __future__ import annotations

from ...graph.errors import ConvLoomError
from .callback import Callback, Logs


class SwapEMAWeights(Callback):
    """Evaluate, predict and validate with the averages that an optimizer with `use_ema=True` keeps.

    swap_on_epoch: the averages are in place at the end of each epoch too, so that what is saved there, by a
    ModelCheckpoint behind this callback, are they.
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        self.swap_on_epoch = swap_on_epoch

    def _put(self, averages: bool) -> None:
        """Have the averages in the network, or its own weights; where nothing is trained, it is as it is."""
        if self.stepper is not None and averages != self.stepper.swapped:
            self.stepper.swap_averages()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.stepper is not None and not self.stepper.averages:
            raise ConvLoomError(
                "SwapEMAWeights: the optimizer averages no weights; give one of cl.optimizers with "
                "use_ema=True"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._put(False)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.swap_on_epoch:
            self._put(True)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._put(True)

    def on_test_end(self, logs: Logs) -> None:
        self._put(False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._put(True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._put(False)

    def close(self) -> None:
        self._put(False)
