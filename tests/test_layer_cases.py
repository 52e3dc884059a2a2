"""Single layers with their arguments, layouts and odd sizes, against what Keras made of the same input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import convloom as cl

FOLDER = Path(__file__).resolve().parent / "data" / "layer_cases"


def stored() -> dict[str, np.ndarray]:
    """"topic.case/part" -> array."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(FOLDER.glob("*.npz")):
        with np.load(path) as file:
            found |= {f"{path.stem}.{key}": file[key] for key in file.files}
    return found


STORED = stored()
CASES = sorted({key.split("/")[0] for key in STORED})

RELATIVE = 16 * 2.0**-23
"""Of the largest output: sums of some hundred float32 terms, and a few operations after them."""


def numbered(case: str, letter: str) -> list[np.ndarray]:
    if f"{case}/{letter}" in STORED:
        return [STORED[f"{case}/{letter}"]]
    count = sum(key.startswith(f"{case}/{letter}") for key in STORED)
    return [STORED[f"{case}/{letter}{i}"] for i in range(count)]


def check(case: str, **options: object) -> None:
    model = cl.loads(STORED[f"{case}/json"].tobytes())
    model.set_weights(numbered(case, "w"))
    network = cl.compile(model, device="cpu", **options)
    with torch.no_grad():
        result = network(*map(torch.from_numpy, numbered(case, "x")))
    results = result if isinstance(result, tuple) else (result,)
    for found, expected in zip(results, numbered(case, "y"), strict=True):
        assert tuple(found.shape) == expected.shape
        assert np.abs(found.numpy() - expected).max() <= RELATIVE * np.abs(expected).max()


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
