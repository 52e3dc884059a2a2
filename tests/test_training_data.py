"""Data of every kind trains alike; what is no data gets one clear error."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import convloom as cl
from convloom import layers as L

DATA = np.random.default_rng(0)
X = DATA.normal(size=(23, 6)).astype(np.float32)
Z = DATA.normal(size=(23, 2)).astype(np.float32)
Y = DATA.integers(0, 3, 23)
SIZES = DATA.normal(size=(23, 2)).astype(np.float32)
W = DATA.uniform(0.1, 2, 23).astype(np.float32)
SPARSE = "sparse_categorical_crossentropy"


def model() -> cl.Model:
    x = cl.Input((6,), name="x")
    h = L.Dense(5, activation="tanh", name="h")(x)
    return cl.Model(x, L.Dense(3, activation="softmax", name="head")(h), seed=0)


def wide() -> cl.Model:
    """Two inputs, two outputs."""
    x, z = cl.Input((6,), name="x"), cl.Input((2,), name="z")
    h = L.Concatenate()([L.Dense(5, activation="tanh", name="h")(x), z])
    outputs = [L.Dense(3, activation="softmax", name="kind")(h), L.Dense(2, name="size")(h)]
    return cl.Model([x, z], outputs, seed=0)


def weights_after(net: cl.Model, loss: Any, data: Any, **options: Any) -> list[Any]:
    net.compile("adam", loss)
    net.fit(data, **{"batch_size": 5, "epochs": 3, "shuffle": False, "verbose": 0} | options)
    return net.get_weights()


def alike(found: list[Any], wanted: list[Any]) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


class Mapped(Dataset[Any]):
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int) -> Any:
        return tuple(part[place] for part in self.parts)


class Streamed(IterableDataset[Any]):
    def __init__(self, *parts: Any) -> None:
        self.data = Mapped(*parts)

    def __iter__(self) -> Iterator[Any]:
        return (self.data[place] for place in range(len(X)))


class Numbered:
    """Batches by number, without a word of Keras."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> Any:
        return tuple(part[5 * number : 5 * number + 5] for part in self.parts)


def tensors(*parts: Any) -> Any:
    return tuple(map(torch.from_numpy, parts))


def loader(*parts: Any) -> Any:
    return DataLoader(TensorDataset(*tensors(*parts)), batch_size=5)


def listed(*parts: Any) -> Any:
    return [Numbered(*parts)[number] for number in range(5)]


def generator(*parts: Any) -> Any:
    return (batch for _ in range(3) for batch in listed(*parts))


def function(*parts: Any) -> Any:
    return lambda: iter(listed(*parts))


KINDS: dict[str, Callable[..., Any]] = {
    "tensors": tensors,
    "Dataset": Mapped,
    "IterableDataset": Streamed,
    "DataLoader": loader,
    "DataLoader of several processes": lambda *parts: DataLoader(Mapped(*parts), batch_size=5, num_workers=1),
    "list of batches": listed,
    "generator": generator,
    "function": function,
    "numbered": Numbered,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [(X, Y), (X, Y, W)], ids=["pairs", "triples"])
def test_all_kinds_train_alike(kind: str, parts: Any) -> None:
    steps = 5 if kind == "generator" else None
    found = weights_after(model(), SPARSE, KINDS[kind](*parts), steps_per_epoch=steps)
    alike(found, weights_after(model(), SPARSE, parts))


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_are_evaluated_and_predicted_alike(kind: str) -> None:
    net = model()
    net.compile("sgd", SPARSE, metrics=["accuracy"])
    wanted = net.evaluate(X, Y, batch_size=5, verbose=0)
    np.testing.assert_array_equal(net.evaluate(KINDS[kind](X, Y), batch_size=5, steps=5, verbose=0), wanted)
    parts = KINDS[kind](X, Y)
    x = parts[0] if kind == "tensors" else parts
    np.testing.assert_array_equal(
        net.predict(x, batch_size=5, steps=5, verbose=0), net.predict(X, batch_size=5, verbose=0)
    )


def test_several_inputs_and_outputs_by_name_and_in_order() -> None:
    loss = {"kind": SPARSE, "size": "mse"}
    wanted = weights_after(wide(), loss, ([X, Z], [Y, SIZES], [W, W]))
    for x in ([X, Z], {"z": Z, "x": X}):
        for y in ([Y, SIZES], (Y, SIZES), {"size": SIZES, "kind": Y}):
            for w in (W, [W, W], {"size": W, "kind": W}):
                alike(weights_after(wide(), loss, (x, y, w)), wanted)
    batches = [
        (
            {"x": X[i : i + 5], "z": Z[i : i + 5]},
            {"kind": Y[i : i + 5], "size": SIZES[i : i + 5]},
            W[i : i + 5],
        )
        for i in range(0, 23, 5)
    ]
    alike(weights_after(wide(), loss, batches), wanted)


def test_collated_dictionaries() -> None:
    class Named(Dataset[Any]):
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, i: int) -> Any:
            return {"x": X[i], "z": Z[i]}, {"kind": Y[i], "size": SIZES[i]}

    loss = {"kind": SPARSE, "size": "mse"}
    alike(weights_after(wide(), loss, Named()), weights_after(wide(), loss, ([X, Z], [Y, SIZES])))


@pytest.mark.parametrize("kind", ["arrays", "Dataset", "numbered"])
def test_shuffling_takes_every_example_once(kind: str) -> None:
    seen: list[Any] = []

    def loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target.tolist())
        return prediction.mean()

    numbers = np.arange(23.0, dtype=np.float32)
    data = (X, numbers) if kind == "arrays" else KINDS[kind](X, numbers)
    net = cl.compile(model(), device="cpu")
    cl.fit(net, data, loss=loss, optimizer="sgd", batch_size=5, epochs=2, verbose=0, metrics=())
    first, second = seen[:5], seen[5:]
    for epoch in (first, second):
        assert sorted(number for batch in epoch for number in batch) == numbers.tolist()
    assert first != second
    assert sorted(first) != [numbers[i : i + 5].tolist() for i in range(0, 23, 5)] or kind == "numbered"


def test_batches_may_be_shuffled_whole() -> None:
    seen: list[Any] = []

    def loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target.tolist())
        return prediction.mean()

    numbers = np.arange(23.0, dtype=np.float32)
    net = cl.compile(model(), device="cpu")
    cl.fit(net, (X, numbers), loss=loss, batch_size=5, epochs=4, shuffle="batch", verbose=0, metrics=())
    whole = [numbers[i : i + 5].tolist() for i in range(0, 23, 5)]
    orders = [[whole.index(batch) for batch in seen[i : i + 5]] for i in range(0, 20, 5)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] and order[-1] == 4 for order in orders)
    assert orders != [[0, 1, 2, 3, 4]] * 4


# -- arrays in files -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_arrays_in_files_train_alike(tmp_path: Path, mode: Any) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    x, y = (np.load(tmp_path / name, mmap_mode=mode) for name in ("x.npy", "y.npy"))
    for options in ({}, {"shuffle": True, "seed": 3}, {"validation_split": 0.3}):
        alike(
            weights_after(model(), SPARSE, (x, y), **options),
            weights_after(model(), SPARSE, (X, Y), **options),
        )
    net = model()
    np.testing.assert_array_equal(net.predict(x, verbose=0), net.predict(X, verbose=0))
    y = np.load(tmp_path / "y.npy", mmap_mode="r+")
    y[20] = 7
    with pytest.raises(ConvLoomError, match="found class 7, but the network has 3 outputs"):
        weights_after(model(), SPARSE, (x, y))


def test_arrays_in_files_are_never_read_whole(tmp_path: Path) -> None:
    """Of three gigabytes, a few batches: pages that were read would count as resident."""
    count = 200_000
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(count, 64, 64, 1))  # nothing but a hole
    x = np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)
    y = np.memmap(tmp_path / "y", np.int64, "w+", shape=(count,))
    image = cl.Input((64, 64, 1))
    net = cl.Model(image, L.Dense(2, activation="softmax")(L.GlobalAveragePooling2D()(image)))
    net.compile("sgd", SPARSE)
    net.fit(x[:64], y[:64], verbose=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for shuffle in (True, "batch", False):
        net.fit(x, y, steps_per_epoch=3, batch_size=32, validation_split=0.5, validation_steps=2,
                shuffle=shuffle, verbose=0)  # fmt: skip
    net.evaluate(x, y, steps=2, batch_size=32, verbose=0)
    net.predict(x, steps=2, batch_size=32, verbose=0)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < x.nbytes / 10


# -- what is no data -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"x": X}, "data is a ndarray without targets; give the pair (x, y)"),
        ({"x": loader(X, Y), "y": Y}, "x is a DataLoader and brings its own targets; leave y out"),
        ({"x": loader(X, Y), "sample_weight": W}, "x is a DataLoader and brings its own weights; leave"),
        ({"x": X, "sample_weight": W}, "sample_weight goes with x and y; give y too"),
        ({"x": X, "y": Y, "sample_weight": W[:5]}, "x has 23 examples but sample_weight has 5"),
        ({"x": X, "y": Y, "sample_weight": {"hed": W}}, "has no output 'hed'; did you mean 'head'?"),
        ({"x": X, "y": {"tail": Y}}, "y of data: the network has no output 'tail'"),
        ({"x": X, "y": Y, "class_weight": [1, 2, 3]}, "class_weight is a list; give a dictionary"),
        ({"x": X, "y": Y, "class_weight": {"cat": 1}}, "a class of class_weight is 'cat', a str"),
        ({"x": X, "y": Y, "class_weight": {0: 2.0}, "sample_weight": W}, "give class_weight or weights"),
        ({"x": X, "y": Y, "shuffle": "batches"}, "shuffle is 'batches'; it takes True, False or 'batch'"),
        ({"x": X, "y": Y, "verbose": 3}, "verbose is 3; it takes 0, 1, 2 or 'auto'"),
        ({"x": X, "y": Y, "validation_freq": 0}, "validation_freq is 0; it must be at least 1"),
        ({"x": X, "y": Y, "validation_freq": [0]}, "an epoch of validation_freq is 0; it must be at least 1"),
        ({"x": X, "y": Y, "steps_per_epoch": 0}, "steps_per_epoch is 0; it must be at least 1"),
        ({"x": X, "y": Y, "initial_epoch": -1}, "initial_epoch is -1; it must be at least 0"),
        ({"x": X, "y": Y, "validation_batch_size": 0}, "validation_batch_size is 0; it must be at least 1"),
        ({"x": X, "y": Y, "validation_data": X}, "validation_data is a ndarray without targets"),
        ({"x": loader(X, Y), "validation_split": 0.5}, "validation_split needs data as a pair (x, y)"),
        ({"x": lambda: 3}, "data is a function that gave a int; it must give batches"),
        ({"x": 3}, "data is a int; give a pair (x, y) of arrays"),
        ({"x": iter(())}, "the data gave no batch; an iterator can be read once only"),
        ({"x": [(X, Y), (X, Y[:3])]}, "x has 23 examples but y has 3"),
        ({"x": [(X, Y), (X, Y + 5)]}, "found class 7, but the network has 3 outputs"),
    ],
)  # fmt: skip
def test_wrong_data(options: dict[str, Any], text: str) -> None:
    net = model()
    net.compile("sgd", SPARSE)
    with pytest.raises(ConvLoomError) as raised:
        net.fit(**{"verbose": 0} | options)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (Y, "y of data is a ndarray, and the network has 2 outputs (kind, size); give a list of one array"),
        ({"kind": Y}, "y of data: nothing for the output 'size', which has a loss"),
        ([Y, SIZES, Y], "y of data is a list of 3, and the network has 2 outputs"),
    ],
)
def test_wrong_targets_of_several_outputs(y: Any, text: str) -> None:
    net = wide()
    net.compile("sgd", {"kind": SPARSE, "size": "mse"})
    with pytest.raises(ConvLoomError) as raised:
        net.fit([X, Z], y, verbose=0)
    assert text in str(raised.value)


def test_data_that_runs_out_warns_and_goes_on_from_its_beginning() -> None:
    net = model()
    net.compile("sgd", SPARSE)
    with pytest.warns(UserWarning, match="the data ran out after 5 of the 7 steps of an epoch"):
        history = net.fit(loader(X, Y), steps_per_epoch=7, epochs=2, verbose=0, validation_data=None)
    assert history.epoch == [0, 1]
