"""The states of all random numbers that training draws from, as tensors and plain values."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device, generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """The global generators of torch (of the CPU and of `device`), Python and NumPy, and these others."""
    version, words, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "kind": str(kind),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rest": [int(place), int(has_gauss), float(cached)],
        },
        "generators": [generator.get_state() for generator in generators],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(
    state: Mapping[str, Any], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    place, has_gauss, cached = numpy["rest"]
    np.random.set_state((numpy["kind"], numpy["keys"].numpy().astype(np.uint32), place, has_gauss, cached))
    for generator, kept in zip(generators, state["generators"], strict=True):
        generator.set_state(kept)
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
