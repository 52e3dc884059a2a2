"""Whole small networks as Keras saved them: the emitted kernels and aten compute what Keras computed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from convloom.runtime.backends import FallbackWarning

import convloom as cl

DATA = Path(__file__).resolve().parent / "data"
KERNELS = {"residual": (12, 31), "inception": (27, 64), "mobile": (22, 52)}
"""Launches in inference: fused, and one for each op. They may only fall."""

RELATIVE = 1e-5
"""Of the largest output: float32 sums of up to 600 terms, through at most twenty layers."""


def loaded(name: str) -> tuple[cl.Model, torch.Tensor, np.ndarray]:
    with np.load(DATA / f"small_{name}_io.npz") as stored:
        return cl.load(DATA / f"small_{name}.keras"), torch.from_numpy(stored["x"]), stored["y"]


def assert_equals_keras(network: cl.CompiledNetwork, x: torch.Tensor, expected: np.ndarray) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        found = network(x).numpy()
    assert np.ptp(expected, axis=0).max() > 0.01, "outputs that are all alike check little"
    assert np.abs(found - expected).max() <= RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_on_aten(name: str, fuse: bool) -> None:
    model, x, expected = loaded(name)
    network = cl.compile(model, device="cpu", backend="aten", fuse=fuse)
    assert_equals_keras(network, x, expected)
    assert len(network.kernels) <= KERNELS[name][0 if fuse else 1]


@pytest.mark.parametrize("name", KERNELS)
def test_in_emitted_kernels(name: str) -> None:
    model, x, expected = loaded(name)
    assert_equals_keras(cl.compile(model, device="cpu", backend="triton"), x, expected)


@pytest.mark.parametrize("name", KERNELS)
def test_trained_saved_and_opened_by_keras(name: str, tmp_path: Path) -> None:
    import keras

    model, x, before = loaded(name)
    network = cl.compile(model, device="cpu", backend="aten")
    target = np.eye(before.shape[1], dtype=np.float32)[[0, 1, 2]]
    cl.fit(network, (x.numpy(), target), "categorical_crossentropy", "sgd", epochs=3, verbose=False)
    model.save(tmp_path / "trained.keras")
    network.eval()
    with torch.no_grad():
        trained = network(x).numpy()
    theirs = keras.ops.convert_to_numpy(keras.models.load_model(tmp_path / "trained.keras")(x))
    assert np.abs(trained - before).max() > 1e-3
    assert np.abs(trained - theirs).max() <= RELATIVE * np.abs(theirs).max()
