"""Fifty steps of nine networks follow Keras's fit: the same weights, batches, losses and optimizers.

The cross-entropies are taken of logits in both. The segmentation alone ends in a softmax: ours is of the
logits behind it and Keras's of the probabilities, which is the same while none of them is below 1e-7.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from convloom.runtime.optimizers import OPTIMIZERS
from nine_networks import BATCH, NINE, Case

import convloom as cl

NAMES = [made.__name__ for made in OPTIMIZERS.values()]
EACH = 3
"""Optimizers that a network meets in the ordinary tests: all of them come round twice."""
QUICK = [(net, NAMES[(EACH * i + j) % len(NAMES)]) for i, net in enumerate(NINE) for j in range(EACH)]
EVERY = [(net, name) for net in NINE for name in NAMES]
TOLERANCE = 1e-5
"""Of a weight's largest value."""


def loss_of(lib: Any, case: Case) -> Any:
    if case.loss == "mse":
        return "mse"
    if case.loss == "probabilities":  # in rows: Keras's sparse one fails in torch's backward on maps
        return lib.losses.CategoricalCrossentropy()
    return lib.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained(model: Any, lib: Any, case: Case, name: str) -> list[float]:
    """The loss of each epoch."""
    model.compile(getattr(lib.optimizers, name)(), loss_of(lib, case))
    history = model.fit(*case.data(), batch_size=BATCH, epochs=5, shuffle=False, verbose=0)
    found: list[float] = history.history["loss"]
    return found


def assert_follows(ours: Any, theirs: Any) -> None:
    for found, variable in zip(ours.get_weights(), theirs.weights, strict=True):
        wanted = keras.ops.convert_to_numpy(variable)
        off = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert off <= TOLERANCE, f"{variable.path} is off by {off:.1e}"


@pytest.mark.parametrize(
    ("net", "name"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in EVERY],
)
def test_fifty_steps(net: str, name: str, tmp_path: Path) -> None:
    case = NINE[net]
    keras.utils.set_random_seed(1)
    theirs = case.make(keras)
    theirs.save(tmp_path / "net.keras")
    before = theirs.get_weights()
    ours = cl.load(tmp_path / "net.keras")
    wanted = trained(theirs, keras, case, name)
    assert all((w != b).any() for w, b in zip(theirs.get_weights(), before, strict=True)), "nothing moved"
    np.testing.assert_allclose(trained(ours, cl, case, name), wanted, rtol=TOLERANCE)
    assert_follows(ours, theirs)


def test_every_optimizer_meets_two_networks() -> None:
    assert min(sum(name == other for _, other in QUICK) for name in NAMES) >= 2
