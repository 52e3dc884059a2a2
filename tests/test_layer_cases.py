"""Single layers with their arguments, layouts and odd sizes, against what Keras made of the same input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import on_gpu

import convloom as cl

FOLDER = Path(__file__).resolve().parent / "data" / "layer_cases"


def stored() -> dict[str, dict[str, np.ndarray]]:
    """"topic.case" -> part -> array."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(FOLDER.glob("*.npz")):
        with np.load(path) as file:
            for key in file.files:
                case, part = key.split("/")
                found.setdefault(f"{path.stem}.{case}", {})[part] = file[key]
    return found


CASES = stored()

RELATIVE = 16 * 2.0**-23
"""Of the largest output: sums of some hundred float32 terms, and a few operations after them."""


def numbered(case: str, letter: str) -> list[np.ndarray]:
    """The parts "x0", "x1", ..., or the only one, "x"."""
    parts = CASES[case]
    if letter in parts:
        return [parts[letter]]
    return [parts[f"{letter}{i}"] for i in range(sum(part.startswith(letter) for part in parts))]


def loaded(case: str) -> cl.Model:
    model = cl.loads(CASES[case]["json"].tobytes())
    model.set_weights(numbered(case, "w"))
    return model


def check(case: str, network: cl.CompiledNetwork) -> None:
    with torch.no_grad():
        result = network(*(torch.from_numpy(x).to(network.options.device) for x in numbered(case, "x")))
    results = result if isinstance(result, tuple) else (result,)
    for found, expected in zip(results, numbered(case, "y"), strict=True):
        value = found.cpu().numpy()
        assert (value.shape, value.dtype) == (expected.shape, expected.dtype)
        wide = expected.astype(np.float64)
        assert np.abs(value - wide).max() <= RELATIVE * np.abs(wide).max()


@pytest.mark.parametrize("case", CASES)
def test_on_aten(case: str) -> None:
    """Unfused as well where that makes other kernels."""
    model = loaded(case)
    fused, unfused = (cl.compile(model, device="cpu", backend="aten", fuse=fuse) for fuse in (True, False))
    check(case, fused)
    if str(fused.graph) != str(unfused.graph) or len(fused.plan.regions) != len(unfused.plan.regions):
        check(case, unfused)


@pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")
@pytest.mark.parametrize("device", ["cpu", on_gpu("cuda", slow=True)], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_in_emitted_kernels(case: str, device: torch.device) -> None:
    check(case, cl.compile(loaded(case), device=str(device), backend="triton"))


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
