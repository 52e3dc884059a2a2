"""Nothing lost: runs that are killed, told to end, or broken by data or disk go on with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError, ModelFormatError
from convloom.runtime.checkpoints import storage
from kept_runs import X, Y, digest, network, run

import convloom as cl

SCRIPT = Path(__file__).with_name("kept_runs.py")


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return digest(run(None))


class StopsAt(cl.Callback):
    """Calls `what` after so many batches."""

    def __init__(self, batch: int, what: Any) -> None:
        self.count, self.batch, self.what = 0, batch, what

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.count += 1
        if self.count == self.batch:
            self.what()


def interrupted(number: signal.Signals) -> Any:
    return lambda: os.kill(os.getpid(), number)


def crash() -> None:
    raise RuntimeError("crash")


def run_with(callback: cl.Callback, folder: Path | None, **changes: Any) -> cl.History:
    """The run of kept_runs with one callback more, in the place of a `StopsAt` that does nothing."""
    decay = __import__("kept_runs").Decay()
    early = cl.EarlyStopping(patience=4, restore_best_weights=True)
    return run(folder, callbacks=[early, decay, callback], **changes)


def killed(folder: Path, kills: int, seed: int, limit: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, str(kills), str(seed)], capture_output=True, text=True, timeout=limit
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_run_killed_at_random_moments_has_the_same_bits(tmp_path: Path) -> None:
    digests = killed(tmp_path, 6, 0, 300)
    assert len(digests) > 1
    assert len(set(digests)) == 1


@pytest.mark.slow
def test_a_run_killed_a_hundred_times_has_the_same_bits(tmp_path: Path) -> None:
    assert len(set(killed(tmp_path, 100, 1, 1200))) == 1


@pytest.mark.parametrize("at", [1, 6, 8, 17, 30])
def test_a_run_that_crashes_goes_on(at: int, tmp_path: Path, undisturbed: str) -> None:
    """In the first epoch, at the end of one, in the middle of a later one, in the last."""
    with pytest.raises(RuntimeError, match="crash"):
        run_with(StopsAt(at, crash), tmp_path)
    assert digest(run_with(StopsAt(-1, crash), tmp_path)) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [2, 12])
def test_a_signal_ends_the_run_after_the_step_and_it_goes_on(
    number: signal.Signals, at: int, tmp_path: Path, undisturbed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    checkpoint = cl.Checkpoints(tmp_path, epochs=None, minutes=None)  # so that the signal alone writes one
    history = run_with(StopsAt(at, interrupted(number)), None, checkpoint=checkpoint)
    assert history.interrupted == number.name
    assert len(history.epoch) == (at - 1) // 6
    assert signal.getsignal(number) is before
    assert f"{number.name}: training ends after this step" in capfd.readouterr().err
    (only,) = storage.listed(tmp_path)
    assert storage.read(only).state["training"]["steps"] == at
    assert digest(run_with(StopsAt(-1, crash), None, checkpoint=checkpoint)) == undisturbed


def test_without_a_checkpoint_a_signal_returns_what_there_is() -> None:
    history = run_with(StopsAt(15, interrupted(signal.SIGINT)), None)
    assert history.interrupted == "SIGINT"
    assert history.epoch == [0, 1]
    assert history.net is not None
    assert not history.net.training
    whole = run(None, epochs=2)  # whose best weights EarlyStopping restores, as those of the other
    assert history.history == whole.history
    assert digest(history) == digest(whole)


def test_a_second_signal_ends_it_at_once(tmp_path: Path, undisturbed: str) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_with(StopsAt(9, twice), tmp_path)
    assert digest(run_with(StopsAt(-1, crash), tmp_path)) == undisturbed


def test_a_run_that_has_ended_is_not_trained_on(tmp_path: Path, undisturbed: str) -> None:
    run(tmp_path)
    again = run(tmp_path)
    assert digest(again) == undisturbed
    assert len(storage.listed(tmp_path)) == 2
    longer = run(tmp_path, epochs=8)
    assert digest(longer) == digest(run(None, epochs=8))


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    options: dict[str, Any] = {"callbacks": [cl.EarlyStopping(monitor="loss", mode="max", patience=1)]}
    first = run(tmp_path, **options)
    assert len(first.epoch) == 2
    assert digest(run(tmp_path, **options)) == digest(first)


def other_network() -> cl.CompiledNetwork:
    return cl.compile(cl.Sequential([cl.Input((6, 5, 2)), cl.layers.Flatten(), cl.layers.Dense(3)]))


def decaying(rate: float) -> Any:
    return cl.optimizers.Adam(cl.schedules.ExponentialDecay(0.02, 5, rate))


def stepping(gamma: float) -> Any:
    return lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma)


def partly_frozen(name: str) -> cl.CompiledNetwork:
    net = network()
    net.get_parameter(name).requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("before", "changes", "text"),
    [
        (lambda: {"loss_weights": 2.0}, dict, "loss weights head is only in the checkpoint"),
        (dict, lambda: {"sample_weight": np.ones(50)}, "data sample_weight is only here"),
        (
            lambda: {"learning_rate": None, "optimizer": decaying(0.5), "callbacks": ()},
            lambda: {"learning_rate": None, "optimizer": decaying(0.9), "callbacks": ()},
            "schedule decay_rate is 0.9 here and 0.5 there",
        ),
        (
            lambda: {"scheduler": stepping(0.5), "callbacks": ()},
            lambda: {"scheduler": stepping(0.9), "callbacks": ()},
            "scheduler gamma is 0.9 here and 0.5 there",
        ),
        (
            lambda: {"net": partly_frozen("norm/gamma")},
            lambda: {"net": partly_frozen("norm/beta")},
            "trained weights is ",
        ),
        (dict, lambda: {"metrics": ["mse"]}, "metrics is ['mse'] here and ['accuracy'] there"),
    ],
)
def test_so_is_one_whose_weights_rates_or_data_differ(
    before: Any, changes: Any, text: str, tmp_path: Path
) -> None:
    """Each of these was gone on from, with other numbers than either run."""
    run(tmp_path, epochs=1, **before())
    run_again = {"epochs": 2, **changes()}
    with pytest.raises(ConvLoomError, match="is of another run: ") as raised:
        run(tmp_path, **run_again)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch_size": 8}, "batch size is 8 here and 7 there"),
        ({"seed": 4}, "seed is 4 here and 3 there"),
        ({"optimizer": "sgd"}, "optimizer is "),
        ({"learning_rate": 0.1}, "lr is 0.1 here and 0.02 there"),
        ({"loss": lambda output, target: output.mean()}, "loss head is '<lambda>' here and "),
        ({"validation_split": 0.4}, "batches an epoch is 5 here and 6 there"),
        ({"callbacks": []}, "callbacks is [] here and ['EarlyStopping', 'Decay'] there"),
        ({"net": other_network}, "the network has other layers"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    before = storage.listed(tmp_path)
    if callable(changes.get("net")):
        changes = {"net": changes["net"]()}
    with pytest.raises(ConvLoomError, match="is of another run: ") as raised:
        run(tmp_path, **{"epochs": 1, **changes})
    assert text in str(raised.value)
    assert "to go on from it, or give another folder as checkpoint= to begin anew" in str(raised.value)
    assert storage.listed(tmp_path) == before


def test_a_broken_checkpoint_gives_way_to_the_one_before(tmp_path: Path, undisturbed: str) -> None:
    with pytest.raises(RuntimeError, match="crash"):
        run_with(StopsAt(20, crash), tmp_path)
    newest = storage.listed(tmp_path)[0]
    os.truncate(newest / "tensors.safetensors", 100)
    with pytest.warns(UserWarning, match=r"tensors.safetensors has 100 bytes.*goes on from .*checkpoint-"):
        found = run_with(StopsAt(-1, crash), tmp_path)
    assert digest(found) == undisturbed


def test_what_cannot_be_written_is_said_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConvLoomError, match=r"cannot write a checkpoint to .*file: "):
        run(tmp_path / "file", net=net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(ConvLoomError, match="checkpoint is 3; give the name of a folder"):
        run(None, checkpoint=3)
    with pytest.raises(ConvLoomError, match="Checkpoints: steps is 0; it must be at least 1"):
        cl.Checkpoints(tmp_path, steps=0)


def test_a_disk_that_fills_leaves_the_last_checkpoint(
    tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    real, count = storage._sync, 0

    def counted(path: Path) -> None:
        nonlocal count
        count += 1
        full(path) if count > 40 else real(path)

    monkeypatch.setattr(storage, "_sync", counted)
    with pytest.raises(ConvLoomError, match=r"No space left on device; the last whole one is .*checkpoint-"):
        run(tmp_path)
    monkeypatch.undo()
    assert digest(run(tmp_path)) == undisturbed


class Broken(torch.utils.data.Dataset[Any]):
    """Examples of which one cannot be read until it is mended, or takes its worker with it."""

    def __init__(self, at: int, how: str = "raise") -> None:
        self.at, self.how = at, how

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int) -> Any:
        if place == self.at and self.how == "raise":
            raise OSError("truncated picture")
        if place == self.at:
            os._exit(7)
        return X[place], Y[place]


def loader(data: Broken, workers: int = 0) -> Any:
    return torch.utils.data.DataLoader(data, batch_size=7, num_workers=workers)


def fit_from(data: Any, folder: Path | None) -> cl.History:
    return cl.fit(
        network(), data, loss="sparse_categorical_crossentropy", epochs=2, seed=1, checkpoint=folder,
        verbose=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "how", "text"),
    [
        (0, "raise", "OSError: truncated picture"),
        (1, "raise", "OSError: truncated picture (in a worker of the DataLoader)"),
        (1, "exit", "RuntimeError: DataLoader worker (pid"),
    ],
)
def test_a_broken_sample_is_one_error_and_the_run_goes_on(
    workers: int, how: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises(ConvLoomError, match="the data broke") as raised:
        fit_from(loader(Broken(25, how), workers), tmp_path)
    assert text in str(raised.value)
    assert "the same call goes on from it" in str(raised.value)
    if how == "raise":  # a worker's death comes in the middle of whatever runs
        assert f"at batch 3: {text}" in str(raised.value)
        assert f"the run up to there is kept in {tmp_path}" in str(raised.value)
    found = fit_from(loader(Broken(-1), workers), tmp_path)
    assert digest(found) == digest(fit_from(loader(Broken(-1), workers), None))


def test_a_generator_that_breaks_is_told_too() -> None:
    def batches() -> Any:
        yield X[:7], Y[:7]
        raise ValueError("no more")

    with pytest.raises(ConvLoomError, match=r"the data broke at batch 1: ValueError: no more\. Mend"):
        fit_from(batches(), None)
    with pytest.raises(ConvLoomError, match="validation_data broke at batch 1: ValueError: no more"):
        cl.fit(network(), (X, Y), loss="sparse_categorical_crossentropy", validation_data=batches())


def test_weights_come_out_of_a_checkpoint(tmp_path: Path) -> None:
    history = run(tmp_path, callbacks=[])
    for made in (network(), network_model()):
        found = cl.load_checkpoint(made, tmp_path)
        assert (found.epoch, found.steps) == (6, 36)
        assert found.history == history.history
        net = made if isinstance(made, cl.CompiledNetwork) else cl.compile(made, device="cpu")
        assert history.net is not None
        assert torch.equal(net(X), history.net(X))
    newest, before = storage.listed(tmp_path)
    found = cl.load_checkpoint(network(), before)  # of the same step, before the epoch's validation
    assert (found.epoch, found.steps) == (5, 36)
    with pytest.raises(ConvLoomError, match="is of another network: it has no dense/kernel"):
        cl.load_checkpoint(other_network(), newest)
    with pytest.raises(ModelFormatError, match="holds no checkpoint"):
        cl.load_checkpoint(network(), tmp_path / "none")
    with pytest.raises(ConvLoomError, match="takes a model or a network, found int"):
        cl.load_checkpoint(3, newest)


def network_model() -> cl.Model:
    model = network()._model
    assert isinstance(model, cl.Model)
    return model


def test_the_shuffled_order_is_not_stored_whole(tmp_path: Path) -> None:
    """A checkpoint's size does not grow with the data."""
    sizes = []
    for count in (1, 40):
        data = np.repeat(X, count, axis=0), np.repeat(Y, count)
        cl.fit(
            network(), data, loss="sparse_categorical_crossentropy", batch_size=25 * count,
            checkpoint=cl.Checkpoints(tmp_path / str(count), steps=1), verbose=False,
        )  # fmt: skip
        newest = storage.listed(tmp_path / str(count))[0]
        sizes.append(sum(path.stat().st_size for path in newest.iterdir()))
    assert abs(sizes[0] - sizes[1]) < 1000
