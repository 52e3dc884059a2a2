"""Single layers with their arguments, layouts and odd sizes, against what Keras made of the same input."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import on_gpu

import convloom as cl

FOLDER = Path(__file__).resolve().parent / "data" / "layer_cases"


def stored() -> dict[str, dict[str, np.ndarray]]:
    """ "topic.case" -> part -> array."""
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
    if str(fused.graph) != str(unfused.graph) or len(fused.program.regions) != len(unfused.program.regions):
        check(case, unfused)


@pytest.mark.filterwarnings("error::convloom.runtime.backends.FallbackWarning")
@pytest.mark.parametrize("device", ["cpu", on_gpu("cuda", slow=True)], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_in_emitted_kernels(case: str, device: torch.device) -> None:
    check(case, cl.compile(loaded(case), device=str(device), backend="triton"))


def sized(case: str, samples: Sequence[Sequence[int | None]]) -> cl.Model:
    """The case with inputs of other sizes, in their order, or with axes left open (None)."""
    said = json.loads(CASES[case]["json"].tobytes())
    inputs = {layer["config"]["name"]: layer["config"] for layer in said["config"]["layers"]}
    ends = said["config"].get("input_layers", [])
    order = [ends[0]] if ends and isinstance(ends[0], str) else [name for name, *_ in ends]
    for name, sample in zip(order or inputs, samples, strict=bool(order)):
        inputs[name]["batch_shape"] = [None, *sample]
    model = cl.loads(said)
    model.set_weights(numbered(case, "w"))
    return model


def outcome(
    make: Callable[[], cl.CompiledNetwork], inputs: Sequence[torch.Tensor]
) -> list[torch.Tensor] | cl.ConvLoomError:
    try:
        with torch.no_grad():
            found = make()(*inputs)
    except cl.ConvLoomError as error:
        return error
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("case", CASES)
def test_with_axes_left_open(case: str) -> None:
    """At its own sizes and at others a layer gives what it gives where they are known, or says why not."""
    inputs = [torch.from_numpy(x) for x in numbered(case, "x")]
    samples = [tuple(x.shape[1:]) for x in inputs]
    spatial = range(max(1, max(map(len, samples)) - 1))
    opened = [[None if axis in spatial else size for axis, size in enumerate(s)] for s in samples]
    try:
        model = sized(case, opened)
    except cl.ConvLoomError:
        with pytest.raises(cl.ConvLoomError, match="axes left open"):
            sized(case, opened)
        return
    network = cl.compile(model, device="cpu", backend="aten")
    check(case, network)
    sizes = [[size + (axis in spatial) for axis, size in enumerate(s)] for s in samples]
    grown = [torch.from_numpy(np.resize(x, (len(x), *s))) for x, s in zip(inputs, sizes, strict=True)]
    found = outcome(lambda: network, grown)
    expected = outcome(lambda: cl.compile(sized(case, sizes), device="cpu", backend="aten"), grown)
    if isinstance(found, cl.ConvLoomError) or isinstance(expected, cl.ConvLoomError):
        assert type(found) is type(expected)
        return
    for y, z, output in zip(found, expected, model.outputs, strict=True):
        torch.testing.assert_close(y, z, rtol=RELATIVE, atol=RELATIVE, equal_nan=True)
        assert all(shown in (None, size) for shown, size in zip(output.shape, y.shape, strict=True))


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
