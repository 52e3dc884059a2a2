"""The logs for TensorBoard, through the writer that PyTorch brings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...graph.errors import ConvLoomError
from ..checks import whole
from .callback import Callback, Logs, is_first_process


class TensorBoard(Callback):
    """Write scalars and histograms that `tensorboard --logdir` shows; Keras's arguments and names.

    log_dir: gets the folders train and validation. histogram_freq: epochs between histograms of the weights,
    0 for none. write_graph: the model's summary, as text. write_images: the weights as pictures, too.
    write_steps_per_second: how fast it went. update_freq: "epoch", "batch", or a number of batches after
    which the batch's values are written, for which a GPU is waited for.
    Raises ConvLoomError where the package tensorboard is not installed: pip install 'convloom[tensorboard]'.
    """

    reads_seldom = True

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: int = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        if profile_batch or embeddings_freq or embeddings_metadata:
            raise ConvLoomError(
                "TensorBoard: profile_batch and embeddings_freq are not supported; cl.profile shows where a "
                "step's time goes"
            )
        self.log_dir = Path(log_dir)
        self.histogram_freq = whole(histogram_freq, "TensorBoard: histogram_freq", 0)
        self.write_graph, self.write_images = write_graph, write_images
        self.write_steps_per_second = write_steps_per_second
        given = {"epoch": 0, "batch": 1}.get(str(update_freq), update_freq)
        self.every = whole(given, "TensorBoard: update_freq ('epoch', 'batch' or a number)", 0)
        self.steps = self.evaluations = self.steps_before = 0
        self.writers: dict[str, Any] = {}

    def _writer(self, part: str) -> Any:
        if part not in self.writers:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ConvLoomError(
                    "TensorBoard needs the package tensorboard: pip install 'convloom[tensorboard]'"
                ) from None
            try:
                self.writers[part] = SummaryWriter(str(self.log_dir / part))  # type: ignore[no-untyped-call]
            except OSError as error:
                raise ConvLoomError(
                    f"TensorBoard: {self.log_dir / part} cannot be written: {error.strerror}"
                ) from None
        return self.writers[part]

    def _write(self, part: str, values: Mapping[str, Any], step: int) -> None:
        if not is_first_process():
            return
        for name, value in values.items():
            for place, number in enumerate(np.ravel(value)):
                tag = name if np.size(value) == 1 else f"{name}/{place}"
                self._writer(part).add_scalar(tag, float(number), step)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.steps = self.evaluations = self.steps_before = 0
        if not is_first_process():
            return
        writer = self._writer("train")  # which raises where it cannot be
        if self.write_graph and hasattr(self.model, "summary"):
            lines: list[str] = []
            self.model.summary(print_fn=lines.append)
            writer.add_text("model", "".join(f"    {line}\n" for line in "\n".join(lines).splitlines()), 0)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.steps_before, self.time = self.steps, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.steps += 1
        if self.every and self.steps % self.every == 0:
            self._write("train", {f"batch_{name}": value for name, value in logs().items()}, self.steps)
            if self.write_steps_per_second:
                rate = (self.steps - self.steps_before) / (time.perf_counter() - self.time)
                self._write("train", {"batch_steps_per_second": rate}, self.steps)

    def on_test_end(self, logs: Logs) -> None:
        values = {f"evaluation_{name}_vs_iterations": value for name, value in logs.items()}
        self._write("validation", values, self.steps)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        train = {name: value for name, value in logs.items() if not name.startswith("val_")}
        if self.stepper is not None:
            train["learning_rate"] = self.stepper.learning_rate
        if self.write_steps_per_second:
            elapsed = time.perf_counter() - self.time
            train["steps_per_second"] = (self.steps - self.steps_before) / elapsed
        held_out = {n.removeprefix("val_"): v for n, v in logs.items() if n.startswith("val_")}
        for part, values in (("train", train), ("validation", held_out)):
            self._write(part, {f"epoch_{name}": value for name, value in values.items()}, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        for writer in self.writers.values():
            writer.flush()

    def _write_weights(self, epoch: int) -> None:
        if self.net is None or not is_first_process():
            return
        for name, weight in self.net.named_parameters():
            values = weight.detach().float().cpu()
            self._writer("train").add_histogram(f"{name}/histogram", values, epoch)
            if self.write_images and values.ndim >= 2:
                flat = values.reshape(-1, values.shape[-1])
                low, high = flat.min(), flat.max()
                shown = (flat - low) / (high - low).clamp_min(1e-12)
                self._writer("train").add_image(f"{name}/image", shown, epoch, dataformats="HW")

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers = {}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = self.steps_before = int(state["steps"])
