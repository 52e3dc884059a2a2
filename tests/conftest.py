"""Settings for every test."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import torch

# Tests run one process a core; a pool of threads in each would make the processes wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_runtest_setup() -> None:
    """Weights without a seed of their own are drawn from torch's generator: each test starts it anew."""
    torch.manual_seed(0)
