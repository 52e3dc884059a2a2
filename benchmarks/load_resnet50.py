"""Loading ResNet50's description and weights: ConvLoom against Keras, in one process.

    python benchmarks/load_resnet50.py [--repeats 5] [--output load_resnet50.json]

Needs Keras, which the extra `test` has. Keras itself writes the files, with random weights, into a temporary
folder. Both sides then do the same: read resnet50.json, make the model, read resnet50.weights.h5 into it.
They take turns, and the least and the median of all rounds are given. The outputs are compared as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch

import convloom as cl


def write(folder: Path) -> tuple[Path, Path]:
    """ResNet50 as Keras saves it; every weight is random, the statistics of the batch norms too."""
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    random = np.random.default_rng(0)
    model.set_weights([_drawn(weight, random) for weight in model.weights])
    description, weights = folder / "resnet50.json", folder / "resnet50.weights.h5"
    description.write_text(model.to_json())
    model.save_weights(weights)
    return description, weights


def _drawn(weight: Any, random: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = tuple(weight.shape)
    if len(shape) > 1:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype("float32")
    return random.uniform(0.5, 1.5, shape).astype("float32")


def by_convloom(description: Path, weights: Path) -> cl.Model:
    return cl.load(description, weights=weights)


def by_keras(description: Path, weights: Path) -> Any:
    model = keras.models.model_from_json(description.read_text())
    model.load_weights(weights)
    return model


def timed(load: Callable[[Path, Path], Any], description: Path, weights: Path) -> tuple[float, Any]:
    start = time.perf_counter()
    model = load(description, weights)
    return time.perf_counter() - start, model


def largest_difference(model: cl.Model, reference: Any) -> float:
    """Of the logits, relative to the largest."""
    image = np.random.default_rng(1).standard_normal((1, 224, 224, 3)).astype("float32")
    expected = keras.ops.convert_to_numpy(reference(image))
    found = cl.compile(model, device="cpu", backend="aten")(image)
    return float(np.abs(np.asarray(found.detach()) - expected).max() / np.abs(expected).max())


def measure(repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        description, weights = write(Path(folder))
        ours, theirs = [], []
        for _ in range(repeats):
            seconds, model = timed(by_convloom, description, weights)
            ours.append(seconds)
            seconds, reference = timed(by_keras, description, weights)
            theirs.append(seconds)
        return {
            "network": "ResNet50",
            "parameters": model.count_params(),
            "description_bytes": description.stat().st_size,
            "weight_bytes": weights.stat().st_size,
            "convloom_seconds": {"least": min(ours), "median": median(ours)},
            "keras_seconds": {"least": min(theirs), "median": median(theirs)},
            "times_faster": {"least": min(theirs) / min(ours), "median": median(theirs) / median(ours)},
            "largest_relative_difference": largest_difference(model, reference),
            "repeats": repeats,
            "keras": f"{keras.__version__} on {keras.backend.backend()}",
            "torch": torch.__version__,
            "python": platform.python_version(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    result = measure(arguments.repeats)
    for key, value in result.items():
        print(f"{key:<28} {value:.4g}" if isinstance(value, float) else f"{key:<28} {value}")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
