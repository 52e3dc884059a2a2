"""keras.applications: every network loads from its files and computes what Keras computes.

One small network a family runs always, from descriptions kept beside the tests and weights that both sides
draw from the same stream. The rest is the sweep (`make test-applications`), which needs Keras: it builds each
network, writes its files, and compares parameters and outputs with and without the classifier.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from applications.networks import APPLICATIONS, FAMILIES, Application, draw, generator, image, keras_2_stream
from convloom.graph.ir import Node
from convloom.graph.op import Kind

import convloom as cl

HERE = Path(__file__).resolve().parent / "applications"
ROWS = HERE.parent.parent / "build" / "applications"
"""Where the sweep leaves one JSON a network; tests/applications/table.py makes the page of them."""

RELATIVE = 1e-4
"""Of the largest output. Float32 sums in another order differ by up to 3e-5 through the deepest of these."""

KERAS_PYTHON = os.environ.get("CONVLOOM_KERAS_PYTHON", sys.executable)
"""The interpreter that has Keras."""


def outputs(model: cl.Model, x: np.ndarray, fuse: bool = True) -> np.ndarray:
    network = cl.compile(model, backend="aten", device="cpu", fuse=fuse)
    with torch.no_grad():
        return network(torch.from_numpy(x)).numpy()


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    assert expected.std() > 0, "an output without variation checks nothing"
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("application", FAMILIES, ids=lambda application: application.name)
def test_one_network_a_family(application: Application) -> None:
    model = cl.loads(gzip.decompress((HERE / f"{application.name}.json.gz").read_bytes()))
    with np.load(HERE / f"{application.name}.npz") as stored:
        expected, parameters = stored["y"], int(stored["parameters"])
    assert model.count_params() == parameters
    random = generator(application.name)
    for slot in model.slots():
        model.parameters[slot.name] = draw(slot.weight.name, slot.weight.shape, random)
    assert difference(outputs(model, image(application, random)), expected) < RELATIVE


@pytest.mark.parametrize("application", FAMILIES, ids=lambda application: application.name)
def test_one_network_a_family_of_keras_2(application: Application) -> None:
    folder = HERE / "keras_2"
    model = cl.loads(gzip.decompress((folder / f"{application.name}.json.gz").read_bytes()))
    with np.load(folder / f"{application.name}.npz") as stored:
        expected, parameters = stored["y"], int(stored["parameters"])
    assert model.count_params() == parameters
    random = generator(keras_2_stream(application))
    for slot in model.slots():
        depthwise = isinstance(slot.layer, cl.layers.DepthwiseConv2D) and slot.weight.name == "kernel"
        name = "depthwise_kernel" if depthwise else slot.weight.name  # so Keras 2 calls it
        model.parameters[slot.name] = draw(name, slot.weight.shape, random)
    assert difference(outputs(model, image(application, random)), expected) < RELATIVE


def test_whole_model_h5_of_keras_2(tmp_path: Path) -> None:
    """MobileNetV3, whose layers have names with '/' and whose arithmetic is TFOpLambda."""
    (tmp_path / "whole.h5").write_bytes(
        gzip.decompress((HERE / "keras_2" / "MobileNetV3Small.h5.gz").read_bytes())
    )
    model = cl.load(tmp_path / "whole.h5")
    with np.load(HERE / "keras_2" / "MobileNetV3Small_h5.npz") as stored:
        assert difference(outputs(model, stored["x"]), stored["y"]) < RELATIVE


@pytest.mark.applications
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.name)
def test_every_network_against_keras(application: Application, tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": application.backend}
    command = [KERAS_PYTHON, str(HERE / "make.py"), application.name, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    rows = {form: measured(tmp_path / form) for form in ("top", "notop")}
    ROWS.mkdir(parents=True, exist_ok=True)
    (ROWS / f"{application.name}.json").write_text(json.dumps({"size": application.size, **rows}))


def measured(folder: Path) -> dict[str, float | int]:
    """What the table says of one network; raises AssertionError where it differs from Keras."""
    with np.load(folder / "io.npz") as stored:
        x, expected, parameters = stored["x"], stored["y"], int(stored["parameters"])
    start = time.process_time()
    model = cl.load(folder / "model.json", weights=folder / "model.weights.h5")
    seconds = time.process_time() - start
    (folder / "model.weights.h5").unlink()
    assert model.count_params() == parameters
    network = cl.compile(model, backend="aten", device="cpu")
    with torch.no_grad():
        found = difference(network(torch.from_numpy(x)).numpy(), expected)
    assert found < RELATIVE
    once = network.graph.parameter_only()
    row = {
        "parameters": parameters,
        "layers": len(model.network),
        "ops": working(model.to_graph().nodes()),
        "ops_after": working(node for node in network.graph.nodes() if node.name not in once),
        "fused": working(region.anchor for region in network.program.regions),
        "difference": found,
        "seconds": seconds,
    }
    del network
    unfused = cl.compile(model, backend="aten", device="cpu", fuse=False)
    return {**row, "unfused": working(region.anchor for region in unfused.program.regions)}


def working(nodes: Iterable[Node]) -> int:
    """Nodes that cost a kernel: neither weights nor views."""
    return sum(node.op.kind not in (Kind.SOURCE, Kind.VIEW) for node in nodes)
