"""Settings for every test, and the devices that tests run on."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports Keras

import pytest
import torch
from helpers import on_gpu

# Tests run one process a core; a pool of threads in each would make the processes wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_runtest_setup() -> None:
    """Weights without a seed of their own are drawn from torch's generator: each test starts it anew."""
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", on_gpu("cuda")])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, where Triton interprets, and with `-m gpu` a GPU: a test for a GPU runs, small, without one.

    A test that chooses what runs where gives it its values: `parametrize(..., indirect=["device"])`.
    """
    return torch.device(request.param)
