"""A session on a lent GPU: its parts run here on tiny sizes in the interpreter, so that none of them rots."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gpu_carry
import gpu_room
import gpu_telling
import gpu_tests
import pytest
import torch
from convloom.codegen.machine import loaded
from convloom.graph.settings import settings
from gpu_timing import Session, main

HOME = Path(__file__).parent.parent
SCRIPT = HOME / "benchmarks" / "gpu_session.sh"
PARTS = re.findall(r"^part (\w+) (\d+)$", SCRIPT.read_text(), re.MULTILINE)


def bare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python as on a machine with PyTorch and Triton, where nothing of ConvLoom is installed."""
    gpu_room.lay(folder, absent=("rich", "h5py"))
    found = [importlib.util.find_spec(name) for name in ("torch", "pytest", "xdist", "triton")]
    packages = {str(Path(str(spec.origin)).parents[1]) for spec in found if spec is not None}
    path = os.pathsep.join([str(folder), *packages])
    python: str = sys._base_executable  # type: ignore[attr-defined]  # with no environment's installed packages
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([python, *arguments], env=environment, cwd=HOME, capture_output=True, text=True)


def test_rooms_are_laid_where_nothing_is_installed(tmp_path: Path) -> None:
    script = (
        "import importlib.util, convloom as cl\n"
        "from convloom import layers as L\n"
        "image = cl.Input((6, 5, 3))\n"
        "net = cl.compile(cl.Model(image, L.Conv2D(4, 3)(image)), backend='triton', device='cpu')\n"
        "print(cl.__file__, tuple(net(__import__('torch').randn(2, 6, 5, 3)).shape))\n"
        "try: cl.load('some.h5')\n"
        "except (ImportError, cl.ConvLoomError) as error: print(type(error).__name__)\n"
        "import rich.console\n"
        "try: rich.console.Console()\n"
        "except ImportError as error: print(error)\n"
    )
    done = bare(tmp_path / "room", "-P", "-c", script)
    assert done.returncode == 0, done.stderr
    first, _, last = done.stdout.strip().splitlines()
    assert first == f"{tmp_path / 'room' / 'convloom' / '__init__.py'} (2, 4, 3, 4)"
    assert last == "this machine lacks rich and h5py, one of which is wanted here"


def test_gpu_tests_are_collected_without_keras(tmp_path: Path) -> None:
    listed = bare(tmp_path / "room", "benchmarks/gpu_tests.py").stdout.split()
    assert "tests/test_gpu.py" in listed
    done = bare(tmp_path / "room", "-P", "-m", "pytest", "-p", "no:cacheprovider", "-q", "--collect-only",
                "-m", "gpu", *listed)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error" not in done.stdout
    assert int(re.findall(r"(\d+)(?:/\d+)? tests collected", done.stdout)[0]) > 40


def test_files_that_lack_something_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "test_other.py"
    path.write_text("import nowhere.at_all\nfrom helpers import on_gpu\nfrom test_gpu import NETWORKS\n")
    assert gpu_tests.lacks(path) == {"nowhere"}
    assert not gpu_tests.lacks(HOME / "tests" / "test_gpu.py")


@pytest.mark.parametrize("part", [name for name, _ in PARTS])
def test_a_part_runs_on_tiny_sizes(part: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"gpu_{part}")
    session = Session(part, torch.device("cpu"), tiny=True, output=tmp_path / "results.jsonl")
    module.run(session)
    written = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert written == session.told
    assert len(written) > 2
    assert [line for line in written if "failed" in line or "left_out" in line] == []
    if part == "values":
        assert [line["right"] for line in written if "right" in line] == [True] * len(gpu_telling.TWELVE)


def test_the_session_takes_eight_minutes() -> None:
    seconds = sum(int(limit) for _, limit in PARTS)
    (tests,) = re.findall(r"^tests (\d+)$", SCRIPT.read_text(), re.MULTILINE)
    assert seconds + int(tests) <= 480
    assert all((HOME / "benchmarks" / f"gpu_{name}.py").exists() for name, _ in PARTS)
    assert [name for name, _ in PARTS][:2] == ["ceilings", "values"]
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0


def test_what_goes_wrong_is_a_result_too(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session("values", torch.device("cpu"))

    def wrong() -> None:
        raise ValueError("no such card")

    session.attempt("one", wrong)
    session.attempt("two", lambda: session.say("two", error=1 / 3))
    session.seconds = -1.0
    session.attempt("three", wrong)
    assert [line.get("failed") for line in session.told] == ["ValueError: no such card", None, None]
    assert session.told[2]["left_out"] == "no time left"
    assert "part values  name two  error 0.3333" in capsys.readouterr().out


def test_a_part_is_told_where_to_write(tmp_path: Path) -> None:
    seen: list[Session] = []
    output = str(tmp_path / "x.jsonl")
    main("values", seen.append, ["--tiny", "--device", "cpu", "--seconds", "3", "--output", output])
    (session,) = seen
    assert (session.tiny, session.seconds, str(session.output)) == (True, 3.0, output)


def test_the_telling_kernels_are_what_they_are_called() -> None:
    told = {}
    for one in gpu_telling.TWELVE:
        region = one.region("sm_90")
        told[one.name] = [node.op.op_name() for node in region.nodes]
    assert len(told) == 12
    assert told["1x1 64 to 256 residual at 56"] == ["conv2d", "add", "relu"]
    assert told["3x3 64 pooled at 112"] == ["conv2d", "relu", "max_pool2d"]
    assert told["weights of 3x3 256 at 14"][0] == "conv2d_weight_grad"
    assert told["image of 3x3 128 stride 2 at 56"][0] == "conv2d_data_grad"
    assert told["dense 2048 to 1000"] == ["dense"]


# -- a cache that is carried ----------
def test_a_cache_is_found_where_it_was_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's lists name files by their whole paths; `settle` lets them name those beside them."""
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.setitem(settings.__dict__, "jobs", 2)
    monkeypatch.setenv("TRITON_STORE_BINARY_ONLY", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(here))
    some = [gpu_telling.TWELVE[11].tiny]
    gpu_carry.kernels("H200", some, [])
    gpu_carry.networks("H200", [("lenet5", 2)], [])
    made = sorted(path.name for path in here.rglob("*.cubin"))
    assert len(made) >= 6
    shutil.move(here, there)
    assert gpu_room.settle(there) == len(made)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(there))
    loaded._FUNCTIONS.clear()
    loaded._MODULES.clear()
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*.cubin")}
    gpu_carry.kernels("H200", some, [])
    gpu_carry.networks("H200", [("lenet5", 2)], [])
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*.cubin")} == before


@pytest.mark.slow
def test_the_whole_session_runs_tiny(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = ["bash", str(SCRIPT), str(tmp_path / "out"), sys.executable, "--tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    told = (tmp_path / "out" / "session.txt").read_text().splitlines()
    assert len(told) == len(PARTS) + 2, done.stdout + done.stderr
    assert all(": returned 0 after " in line for line in told[:-1]), told
