"""Single layers with their arguments, layouts and odd sizes, against what Keras made of the same input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import convloom as cl

FILE = Path(__file__).resolve().parent / "data" / "layer_cases.npz"
with np.load(FILE) as file:
    STORED = {key: file[key] for key in file.files}
CASES = sorted({key.split("/")[0] for key in STORED})

RELATIVE = 16 * 2.0**-23
"""Of the largest output: sums of some hundred float32 terms, and a few operations after them."""


def numbered(case: str, letter: str) -> list[np.ndarray]:
    count = sum(key.startswith(f"{case}/{letter}") for key in STORED)
    return [STORED[f"{case}/{letter}{i}"] for i in range(count)]


def check(case: str, **options: object) -> None:
    model = cl.loads(STORED[f"{case}/json"].tobytes())
    model.set_weights(numbered(case, "w"))
    network = cl.compile(model, device="cpu", **options)
    with torch.no_grad():
        found = network(*map(torch.from_numpy, numbered(case, "x"))).numpy()
    expected = STORED[f"{case}/y"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("case", CASES)
def test_on_aten(case: str, fuse: bool) -> None:
    check(case, backend="aten", fuse=fuse)


@pytest.mark.parametrize("case", CASES)
def test_in_emitted_kernels(case: str) -> None:
    check(case, backend="triton")


def test_a_layer_of_the_applications_is_refused_from_another_module() -> None:
    model = cl.Sequential([cl.Input((2, 2, 3)), cl.layers.LayerScale(0.1, 3, name="scale")])
    entry = {
        "class_name": "LayerScale",
        "module": "somebody.else",
        "registered_name": "LayerScale",
        "config": {"name": "scale", "init_values": 0.1, "projection_dim": 3},
    }
    first = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 2, 2, 3]}}
    text = {"class_name": "Sequential", "config": {"name": "net", "layers": [first, entry]}}
    with pytest.raises(cl.UnsupportedLayerError, match=r"LayerScale.*somebody"):
        cl.loads(text)
    entry["module"] = "keras.src.applications.convnext"
    assert cl.loads(text).count_params() == model.count_params() == 3
    assert cl.loads(text).get_weights()[0].tolist() == [pytest.approx(0.1)] * 3
