"""Checkpoints on disk: state comes back bit for bit, and what is broken or foreign is told apart."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.errors import ConvLoomError, ModelFormatError
from convloom.runtime.checkpoints import storage
from convloom.runtime.checkpoints.encoding import decode, encode
from convloom.runtime.checkpoints.lock import locked
from convloom.runtime.checkpoints.storage import Content

WEIGHTS = {"conv2d/kernel": torch.arange(6.0).reshape(2, 3)}


def content(step: int) -> Content:
    return Content(WEIGHTS, {"step": step, "exp": torch.full((3,), float(step))})


def through_files(state: dict[str, Any], folder: Path) -> Any:
    storage.prepare(folder)
    storage.write(folder, Content({}, state), 1)
    found = storage.find(folder)
    assert found is not None
    return found[1].state


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "numbers": [1, -(2**80), 0.1, -0.0, 5e-324, math.inf, -math.inf, True, None],
        "nested": ((1, ("a", None)), [[], {}, ()]),
        "keys": {0: {"$tensor": 1}, "a": 2, (1, 2): 3},
        "$number": "text",
        "bytes": b"\0\xff",
        "text": "Gewicht\n\u2028\0",
    }
    found = through_files(state, tmp_path / "run")
    assert found == state
    assert math.copysign(1.0, found["numbers"][3]) == -1.0
    assert type(found["numbers"][7]) is bool
    assert math.isnan(through_files({"x": math.nan}, tmp_path / "nan")["x"])


@pytest.mark.parametrize(
    "dtype",
    [*(torch.float32, torch.float64, torch.float16, torch.bfloat16), *(torch.int64, torch.uint8, torch.bool)],
)
def test_tensors_come_back_with_their_bits_and_their_layout(dtype: torch.dtype, tmp_path: Path) -> None:
    """An optimizer's state lies as its weight does: fused steps count on it."""
    rows = torch.randint(0, 2, (2, 3, 4, 5)).to(dtype)
    state: dict[str, Any] = {
        "rows": rows,
        "last": rows.to(memory_format=torch.channels_last),
        "kernel": rows.permute(2, 3, 1, 0),
        "part": rows[:, :, ::2],
        "scalar": rows[0, 0, 0, 0],
        "empty": rows[:0],
        "same": [rows, rows],
    }
    found = through_files(state, tmp_path)
    for name in ("rows", "last", "kernel", "part", "scalar", "empty"):
        assert found[name].dtype == dtype
        assert torch.equal(found[name], state[name])
        if name != "part":  # which has gaps, and comes back without
            assert found[name].stride() == state[name].stride()
    assert torch.equal(found["same"][1], rows)


def test_nan_has_its_bits(tmp_path: Path) -> None:
    strange = torch.tensor([0x7FC00001, 0x7F800001, -1], dtype=torch.int32).view(torch.float32)
    found = through_files({"x": strange}, tmp_path)["x"]
    assert torch.equal(found.view(torch.int32), strange.view(torch.int32))


def test_random_states_and_arrays_come_back(tmp_path: Path) -> None:
    state = {
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "array": np.arange(6, dtype=">i2").reshape(2, 3)[:, ::-1],
        "scalar": np.float32(0.1),
    }
    found = through_files(state, tmp_path)
    drawn = np.random.random(5), random.random(), torch.rand(5)
    np.random.set_state(found["numpy"])
    random.setstate(found["python"])
    torch.set_rng_state(found["torch"])
    assert np.array_equal(np.random.random(5), drawn[0])
    assert random.random() == drawn[1]
    assert torch.equal(torch.rand(5), drawn[2])
    assert np.array_equal(found["array"], state["array"])  # type: ignore[arg-type]
    assert found["scalar"] == np.float32(0.1)
    assert isinstance(found["scalar"], np.float32)


@pytest.mark.parametrize("value", [object(), {1j: 2}, torch.ones(1, dtype=torch.complex64), np.array(["a"])])
def test_what_has_no_form_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(ConvLoomError, match="a checkpoint cannot hold state/callbacks/0"):
        encode({"callbacks": [value]}, {})


def test_an_optimizer_of_torchs_goes_through(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3))
    optimizer = torch.optim.Adam([weight], lr=0.1, amsgrad=True)
    for _ in range(3):
        weight.grad = torch.randn(4, 3)
        optimizer.step()
    found = through_files({"optimizer": optimizer.state_dict()}, tmp_path)["optimizer"]
    again = torch.optim.Adam([torch.nn.Parameter(weight.detach().clone())])
    again.load_state_dict(found)
    for name, value in optimizer.state[weight].items():
        assert torch.equal(again.state[again.param_groups[0]["params"][0]][name], value)


def test_the_newest_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    storage.prepare(folder)
    assert storage.find(folder) is None
    paths = [storage.write(folder, content(step), 2) for step in range(4)]
    assert storage.listed(folder) == [paths[3], paths[2]]
    found = storage.find(folder)
    assert found is not None
    assert found[0] == paths[3]
    assert found[1].state["step"] == 3
    assert torch.equal(storage.read(paths[2]).weights["conv2d/kernel"], WEIGHTS["conv2d/kernel"])


def cut(name: str) -> Callable[[Path], object]:
    return lambda path: os.truncate(path / name, (path / name).stat().st_size // 2)


def flipped(name: str) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[-3] ^= 1
        (path / name).write_bytes(data)

    return flip


def rewritten(**changes: Any) -> Callable[[Path], object]:
    def rewrite(path: Path) -> None:
        manifest = json.loads((path / storage.MANIFEST).read_text())
        (path / storage.MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return rewrite


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut weights": (cut("weights.safetensors"), "weights.safetensors has"),
    "cut state": (cut("state.json"), "state.json has"),
    "cut manifest": (cut("checkpoint.json"), "its checkpoint.json is no JSON"),
    "a bit of the weights": (flipped("weights.safetensors"), "has changed since it was written"),
    "a bit of the state": (flipped("state.json"), "state.json has changed"),
    "no tensors": (lambda path: os.unlink(path / "tensors.safetensors"), "No such file"),
    "empty": (lambda path: [*map(os.unlink, path.iterdir())], "it has no checkpoint.json"),
    "foreign": (rewritten(format="other"), "no ConvLoom checkpoint: its checkpoint.json does not say so"),
    "newer": (rewritten(version=2), r"of version 2 of the format, and this ConvLoom reads 1"),
    "no files": (rewritten(files=[]), "does not speak of weights.safetensors"),
    "list": (lambda path: (path / storage.MANIFEST).write_text("[]"), "does not say so"),
    "deep": (lambda path: (path / storage.MANIFEST).write_text("[" * 10**5), "is no JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_checkpoint_is_told_and_the_one_before_is_used(fault: str, tmp_path: Path) -> None:
    spoil, text = FAULTS[fault]
    first, second = (storage.write(tmp_path, content(step), 2) for step in (1, 2))
    spoil(second)
    with pytest.raises(ModelFormatError, match=text):
        storage.read(second)
    with pytest.warns(UserWarning, match=text):
        found = storage.find(tmp_path)
    assert found is not None
    assert (found[0], found[1].state["step"]) == (first, 1)
    shutil.rmtree(first)
    with pytest.raises(ModelFormatError, match=r"no whole checkpoint is in .*remove them to start from the"):
        storage.find(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        '{"x": {"$tensor": "none"}}',
        '{"x": {"$tensor": "state/exp", "strides": [999999999]}}',
        '{"x": {"$tensor": "state/exp", "strides": [-1]}}',
        '{"x": {"$array": "state/exp", "dtype": "object", "shape": [3]}}',
        '{"x": {"$code": "import os"}}',
        '{"x": {"$scalar": ["O", 1]}}',
        '{"x": {"$dict": [[[1], 2]]}}',
        "[" * 10**5,
        "[]",
    ],
)
def test_state_that_says_something_else_is_an_error_of_ours(state: str, tmp_path: Path) -> None:
    path = storage.write(tmp_path, content(1), 1)
    (path / storage.STATE).write_text(state)
    files = json.loads((path / storage.MANIFEST).read_text())["files"]
    rewritten(files={**files, storage.STATE: storage._seal(path / storage.STATE)})(path)
    with pytest.raises(ModelFormatError, match="cannot be read"):
        storage.read(path)


def test_a_strange_file_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "checkpoint-abc", "checkpoint-1"):
        (tmp_path / name).write_text("mine")
    for step in range(3):
        storage.write(tmp_path, content(step), 1)
    assert (tmp_path / "checkpoint-1").read_text() == "mine"
    assert len(storage.listed(tmp_path)) == 1


def test_a_full_disk_leaves_the_last_one_whole(tmp_path: Path) -> None:
    """A limit on a file's size is to a writer what a full disk is."""
    code = f"""
import resource, signal, sys, torch
from pathlib import Path
from convloom.runtime.checkpoints import storage
folder = Path({str(tmp_path)!r})
first = storage.write(folder, storage.Content({{"w": torch.zeros(10)}}, {{}}), 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for weights, state in (({{"w": torch.zeros(5000)}}, {{}}), ({{}}, {{"x": list(range(9000))}})):
    try:
        storage.write(folder, storage.Content(weights, state), 1)
    except storage.ConvLoomError as error:
        assert "cannot write a checkpoint to" in str(error), error
        assert "File too large" in str(error), error
        assert f"the last whole one is {{first}}" in str(error), error
    else:
        sys.exit("nothing was refused")
assert storage.find(folder)[0] == first
assert [p.name for p in folder.iterdir()] == [first.name]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_written_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvLoomError, match=r"cannot write a checkpoint to .*file: "):
        storage.prepare(tmp_path / "file")
    with pytest.raises(ConvLoomError, match="cannot write a checkpoint to /proc/none: "):
        storage.prepare(Path("/proc/none"))


def test_what_an_interrupted_writer_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".writing-1").mkdir()
    (tmp_path / ".writing-1" / "weights.safetensors").write_bytes(b"half")
    assert storage.find(tmp_path) is None
    storage.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from convloom.runtime.checkpoints.lock import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        text = "another training run writes its checkpoints"
        with pytest.raises(ConvLoomError, match=text), locked(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    with locked(tmp_path):  # a process that was killed holds nothing
        pass


def test_decoding_is_the_inverse_of_encoding() -> None:
    tensors: dict[str, torch.Tensor] = {}
    state = {"a": (1, 2.5), "b": {3: [torch.ones(2)]}}
    found = decode(json.loads(json.dumps(encode(state, tensors))), tensors)
    assert found["a"] == (1, 2.5)
    assert torch.equal(found["b"][3][0], torch.ones(2))
