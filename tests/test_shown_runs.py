"""What a run shows: the bar and the lines in a terminal, and the pages of TensorBoard."""

from __future__ import annotations

import builtins
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console
from convloom.graph.errors import ConvLoomError
from convloom.runtime import progress
from convloom.runtime.progress import PassBar, Rate, shown
from small_training import CLASSES, X, Y, model, network
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import convloom as cl


# -- a terminal ----------------------------------------------------------------------------------------------
@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal is sent, with the bar's numbers read at every batch."""
    out = io.StringIO()
    console = rich.console.Console
    monkeypatch.setattr(
        progress, "Console", lambda: console(file=out, force_terminal=True, width=150, color_system=None)
    )
    monkeypatch.setattr(progress, "SHOWN_EVERY", 0.0)
    return out


def test_a_bar_shows_batches_throughput_time_left_and_values(terminal: io.StringIO) -> None:
    bar = PassBar("epoch 1/2", 4, 1)
    for batch in range(1, 4):
        bar.show(batch, lambda: {"loss": 0.5, "accuracy": 0.25}, 32 * batch)
    bar.progress.refresh()
    bar.finish({"loss": 0.5, "scores": np.array([0.25, 0.5])})
    text = terminal.getvalue()
    assert re.search(r"epoch 1/2 .*3/4 +[\d,]+ examples/s +[-\d]+:[-\d]+ +loss 0.5000  accuracy 0.2500", text)
    assert re.search(r"epoch 1/2 +0\.\d s  [\d,]+ examples/s  loss 0.5000  scores \[0.25 0.5\]", text)


def test_training_evaluation_and_prediction_show_a_bar(terminal: io.StringIO) -> None:
    cl.fit(network(), (X, Y), CLASSES, epochs=2, batch_size=8, validation_data=(X, Y))
    text = terminal.getvalue()
    assert re.search(r"epoch 2/2 +\d+\.\d s  [\d,]+ examples/s  loss .* val_accuracy", text)
    assert "validation" in text


def test_no_terminal_gets_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    cl.fit(network(), (X, Y), CLASSES, epochs=2, batch_size=8)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for epoch, line in enumerate(lines):
        assert re.fullmatch(rf"epoch {epoch + 1}/2 +\d+\.\d s  \S+ examples/s  loss \S+  accuracy \S+", line)
    cl.fit(network(), (X, Y), CLASSES, verbose=False)
    assert capsys.readouterr().out == ""


def test_values_are_read_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch, terminal: io.StringIO) -> None:
    """A reading waits for the device, so a bar must not ask for one at each batch."""
    now, reads = [0.0], [0]
    monkeypatch.setattr(progress, "SHOWN_EVERY", 0.2)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def read() -> dict[str, float]:
        reads[0] += 1
        return {}

    bar = PassBar("epoch", 100, 1)
    for batch in range(100):
        now[0] += 0.01
        bar.show(batch, read, batch)
    assert reads[0] <= 5


def test_throughput_leaves_the_first_batch_out() -> None:
    rate = Rate()
    assert str(rate) == ""
    for batch, seconds in ((1, 30.0), (2, 30.5), (3, 31.0)):
        rate.add(batch, 100 * batch, seconds)
    assert str(rate) == "200 examples/s"
    rate = Rate()
    for batch, seconds in ((1, 30.0), (3, 34.0)):
        rate.add(batch, 0, seconds)
    assert str(rate) == "0.5 batches/s"
    assert shown({"loss": 0.00001234, "zero": 0.0}) == "loss 1.23e-05  zero 0.0000"


# -- TensorBoard ---------------------------------------------------------------------------------------------
def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), {"histograms": 0, "scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_has_kerass_names(tmp_path: Path) -> None:
    board = cl.TensorBoard(
        tmp_path, histogram_freq=2, write_images=True, update_freq=2, write_steps_per_second=True
    )
    history = cl.fit(
        model(), (X, Y), CLASSES, epochs=3, batch_size=8, validation_data=(X, Y), verbose=False,
        callbacks=[board],
    ).history  # fmt: skip
    train, held_out = read(tmp_path / "train"), read(tmp_path / "validation")
    for part, prefix in ((train, ""), (held_out, "val_")):
        for name in ("loss", "accuracy"):
            found = scalars(part, f"epoch_{name}")
            assert [step for step, _ in found] == [0, 1, 2]
            np.testing.assert_allclose([v for _, v in found], history[prefix + name], rtol=1e-6)
    assert [step for step, _ in scalars(train, "batch_loss")] == [2, 4, 6, 8]
    assert [step for step, _ in scalars(held_out, "evaluation_loss_vs_iterations")] == [3, 6, 9]
    assert scalars(train, "epoch_learning_rate")[0][1] == pytest.approx(0.001)
    assert len(scalars(train, "epoch_steps_per_second")) == 3
    tags = train.Tags()
    assert {"conv2d/kernel/histogram", "dense/bias/histogram"} <= set(tags["histograms"])
    assert [event.step for event in train.Histograms("conv2d/kernel/histogram")] == [0, 2]
    assert "conv2d/kernel/image" in tags["images"]
    assert any("model" in tag for tag in tags["tensors"])


def test_without_tensorboard_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConvLoomError, match=r"pip install 'convloom\[tensorboard\]'"):
        cl.fit(network(), (X, Y), CLASSES, callbacks=[cl.TensorBoard(tmp_path)], verbose=False)
