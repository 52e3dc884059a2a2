"""Files that mean harm: each known weakness of Keras's own loader, as a crafted file that is refused.

Identifiers are those of the public advisories. The files are loaded in one process of its own, which watches
what is executed, imported and opened, and how much memory is taken.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hostile_archives
import hostile_growth
import hostile_hdf5
import hostile_names
import numpy as np
import pytest
from convloom.frontends import Limits, load, loads
from convloom.graph.errors import ConvLoomError, ModelFormatError
from hostile_cases import CASES
from hostile_hdf5 import weights
from keras_files import (
    chain,
    small,
    write_keras,
)

import convloom as cl

SECONDS, MEGABYTES = 1.0, 200.0
assert all((hostile_archives, hostile_growth, hostile_hdf5, hostile_names))  # each fills the table


# -- what happened -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rows = []
    root = tmp_path_factory.mktemp("hostile")
    for number, (name, (make, _, _)) in enumerate(CASES.items()):
        folder = root / "net" / str(number)
        folder.mkdir(parents=True)
        made = make(folder)
        model, stored = made if isinstance(made, tuple) else (made, None)
        rows.append([name, str(model), str(stored) if stored else None])
    existing = sorted(path for path in root.rglob("*"))
    script = Path(__file__).with_name("hostile_loads.py")
    finished = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(rows), capture_output=True, text=True, cwd=root
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert sorted(path for path in root.rglob("*")) == existing
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


@pytest.mark.parametrize("name", CASES)
def test_a_crafted_file_is_refused_and_nothing_else_happens(name: str, happened: dict[str, Any]) -> None:
    _, kind, text = CASES[name]
    found = happened[name]
    assert re.fullmatch(kind, found["kind"]), found
    assert re.search(text, found["text"]), found["text"]
    assert len(found["text"]) < 3_000
    assert found["text"].isprintable()
    assert found["events"] == []
    assert found["seconds"] < SECONDS


def test_all_of_them_together_take_little_memory(happened: dict[str, Any]) -> None:
    assert happened["memory"] < MEGABYTES


# -- limits --------------------------------------------------------------------------------------------------
def test_limits_are_checked_and_can_be_raised() -> None:
    data = chain(30)
    with pytest.raises(ModelFormatError, match=r"config: 31 layers; at most 30 .*Limits\(layers=\.\.\.\)"):
        loads(data, limits=Limits(layers=30))
    assert len(loads(data, limits=Limits(layers=31)).layers) == 31
    with pytest.raises(ModelFormatError, match=r"JSON: name: 300 characters of text; at most 200"):
        loads({"name": "n" * 300, **small()}, limits=Limits(text=200))
    with pytest.raises(ModelFormatError, match=r"Dense 'd': 8 weights so far; at most 7"):
        loads(small(), limits=Limits(parameters=7))
    with pytest.raises(ModelFormatError, match=r"elements in all values so far; at most 4"):
        loads(small(), limits=Limits(total_elements=4))
    with pytest.raises(ConvLoomError, match=r"Limits: layers must be a positive integer, got -1"):
        Limits(layers=-1)


def test_limits_of_files(tmp_path: Path) -> None:
    model, stored = weights(lambda file, folder: None)(tmp_path)  # type: ignore[misc]
    with pytest.raises(ModelFormatError, match=r"w\.weights\.h5: .*bytes of HDF5; at most 1,000 "):
        load(model, weights=stored, limits=Limits(hdf5_bytes=1_000))
    packed = write_keras(tmp_path / "n.keras", small(), stored)
    with pytest.raises(
        ModelFormatError, match=r"n\.keras: model\.weights\.h5: .*at most 100 .*archive_bytes"
    ):
        load(packed, limits=Limits(archive_bytes=100))
    with pytest.raises(ModelFormatError, match=r"n\.keras: 2 members; at most 1 "):
        load(packed, limits=Limits(archive_members=1))


def test_a_long_chain_is_loaded_and_compiled_in_time() -> None:
    """In time that grows with its length: anything quadratic takes far longer than this."""
    start = time.process_time()
    net = cl.compile(loads(chain(1_000)), device="cpu", backend="aten")
    result = net(np.zeros((1, 8, 8, 4), np.float32))
    assert tuple(result.shape) == (1, 8, 8, 4)
    assert time.process_time() - start < 12
