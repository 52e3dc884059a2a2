"""Several processes under torchrun, over gloo on the CPU, train as one does with the same call."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from convloom.runtime.batch import Batch
from convloom.runtime.distributed import Processes
from spread_runs import CASES, result, run

SCRIPT = Path(__file__).with_name("spread_runs.py")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def started(folder: Path, count: int, *names: str, ends: bool = True) -> str:
    """What all processes print."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    command += [f"--master-port={free_port()}", str(SCRIPT), str(folder), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert (done.returncode == 0) == ends, done.stderr
    return done.stdout + done.stderr


def alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Within what float32 loses over 10 steps of sums in another order."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-5, atol=2e-6)


def close_logs(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=2e-5, abs=1e-6), name


def loaded(folder: Path, name: str, rank: int) -> Any:
    return torch.load(folder / f"{name}.{rank}.pt")


AS_ONE = [name for name in CASES if name not in ("stops", "dropout", "loader")]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """All cases, in two processes that are started once."""
    folder = tmp_path_factory.mktemp("two")
    return folder, started(folder, 2, *CASES, "interrupted")


@pytest.mark.parametrize("name", AS_ONE)
def test_two_processes_equal_one(name: str, two: tuple[Path, str], tmp_path: Path) -> None:
    """Batches of 9 in parts of 4 and 5, and a last one of 1: weights, statistics, losses and metrics."""
    expected = result(run(name, tmp_path))
    for rank in (0, 1):
        found = loaded(two[0], name, rank)
        alike(found["weights"], expected["weights"])
        close_logs(found["history"], expected["history"])


def test_four_processes_equal_one(tmp_path: Path) -> None:
    started(tmp_path, 4, "norm")
    expected = result(run("norm", tmp_path))
    for rank in range(4):
        found = loaded(tmp_path, "norm", rank)
        alike(found["weights"], expected["weights"])
        close_logs(found["history"], expected["history"])


@pytest.mark.parametrize("name", [*CASES, "interrupted"])
def test_all_processes_end_with_the_same(name: str, two: tuple[Path, str]) -> None:
    first, second = (loaded(two[0], name, rank) for rank in (0, 1))
    assert first["history"] == second["history"]
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key])


def test_the_first_one_prints(two: tuple[Path, str]) -> None:
    lines = [line for line in two[1].splitlines() if line.startswith("epoch 1/2")]
    assert len(lines) == sum(CASES[name].get("epochs", 2) == 2 for name in CASES) + 2


def test_one_that_stops_stops_all(two: tuple[Path, str]) -> None:
    assert len(loaded(two[0], "stops", 0)["history"]["loss"]) == 1


def test_a_signal_to_one_ends_all_and_they_go_on(two: tuple[Path, str]) -> None:
    found = loaded(two[0], "interrupted", 0)
    assert found["first"]["interrupted"] == "another process's signal"
    assert loaded(two[0], "interrupted", 1)["first"]["interrupted"] == "SIGTERM"
    assert len(found["first"]["history"]["loss"]) == 1
    assert found["history"] == found["whole"]["history"]
    assert all(torch.equal(v, found["whole"]["weights"][name]) for name, v in found["weights"].items())


def test_another_number_of_processes_is_refused(two: tuple[Path, str]) -> None:
    text = started(two[0], 3, "interrupted", ends=False)
    assert "is of another run: processes is 3 here and 2 there" in text


def test_each_process_has_its_part_of_a_batch() -> None:
    batch = Batch([torch.arange(5)], [torch.arange(5)], [torch.arange(5)])
    parts = [Processes(rank, 3).part(batch) for rank in range(3)]
    assert [part.inputs[0].tolist() for part in parts] == [[0], [1, 2], [3, 4]]
    assert sum(part.weight for part in parts) == pytest.approx(3)
    single = [Processes(rank, 3).part(Batch([torch.arange(1)])) for rank in range(3)]
    assert [part.inputs[0].tolist() for part in single] == [[0], [0], [0]]
    assert [part.weight for part in single] == [0.0, 0.0, 3.0]
