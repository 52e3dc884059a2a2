"""What works with less installed, what is imported when, and what `make` says of a Python that is too old."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.partition(".")[0] == "triton" else found(name, *a)
sys.meta_path.insert(0, Hidden())
"""
"""Makes a process one in which Triton is not installed."""


def python(source: str, *arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# -- without Triton ------------------------------------------------------------------------------------------
WITHOUT = (
    HIDDEN
    + """
import numpy as np
import convloom as cl
from convloom import layers as L
from convloom.cli import main
x = cl.Input((8, 8, 3), name="x")
h = L.MaxPooling2D(2)(L.Conv2D(4, 3, padding="same", activation="relu")(x))
model = cl.Model(x, L.Dense(2, activation="softmax")(L.Flatten()(h)), name="net")
net = cl.compile(model)
assert net.options.backend == "aten"
data = np.ones((8, 8, 8, 3), np.float32), np.arange(8) % 2
cl.fit(net, data, loss="sparse_categorical_crossentropy", epochs=1, verbose=False)
model.save("net.keras")
again = cl.compile(cl.load("net.keras"))(data[0])
assert np.allclose(again.numpy(), net(data[0]).detach().numpy(), atol=1e-6)
assert len(cl.emit(model, "kernels", target="sm_90")) == 4
assert "tl.dot" in net.kernels[0].source
cl.profile(model, batch_size=1, device="cpu", repeats=1)
for call in (
    lambda: cl.compile(model, device="cpu", backend="triton"),
    lambda: net.kernels[0].load(interpreted=True),
):
    try:
        call()
    except cl.CompileError as error:
        print(error)
print(net.kernels[0].resources("sm_90")[0].error)
assert main(["info"]) == 0
assert main(["run", "net.keras", "--input", "x.npy", "--backend", "triton"]) == 2
assert not [name for name in sys.modules if name.partition(".")[0] == "triton"]
"""
)


def test_all_but_running_kernels_works_without_triton(tmp_path: Path) -> None:
    said = python(WITHOUT, cwd=tmp_path).splitlines()
    remedy = "needs the package triton, which is not installed: pip install 'triton>=3.6,<3.10'"
    assert said[0].startswith(f"backend 'triton' {remedy}")
    assert said[1].startswith(f"running a kernel {remedy}")
    assert remedy in said[2]
    assert ["triton", "not", "installed"] in [line.split() for line in "\n".join(said).splitlines()]


def test_the_triton_that_is_asked_for_is_the_one_installed() -> None:
    from convloom.codegen.machine.installed import WANTED

    assert f'"{WANTED}"' in (ROOT / "pyproject.toml").read_text()


# -- what is imported ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("module", ["convloom.start", "convloom.__main__"])
def test_the_version_is_said_before_anything_heavy_is_imported(module: str) -> None:
    source = f"""
import sys
sys.argv = ["convloom", "--version"]
from {module} import main
assert main() == 0
heavy = {{"torch", "triton", "numpy", "networkx", "h5py", "rich"}} & set(sys.modules)
assert not heavy, heavy
"""
    assert python(source) == "convloom 0.1.0\n"


def test_everything_is_there_when_asked_for() -> None:
    source = """
import sys
import convloom as cl
assert "torch" not in sys.modules
from convloom import *
assert load is cl.load and EarlyStopping is cl.EarlyStopping
assert set(cl.__all__) <= set(dir(cl))
assert all(hasattr(cl, name) for name in cl.__all__)
import convloom.graph.errors
assert cl.graph.errors.ConvLoomError is cl.ConvLoomError
try:
    cl.nothing
except AttributeError as error:
    print(error)
"""
    assert python(source) == "module 'convloom' has no attribute 'nothing'\n"


# -- what README says ----------------------------------------------------------------------------------------
def test_readme_says_what_is_needed_and_how_the_cpu_build_is_installed() -> None:
    text = (ROOT / "README.md").read_text()
    assert "Linux, Python 3.11 to 3.13" in text
    assert "pip install torch --index-url https://download.pytorch.org/whl/cpu" in text


# -- make ----------------------------------------------------------------------------------------------------
STAND_IN = """#!/bin/sh
case "$*" in
    *sys.exit*) test {minor} -ge 11 ;;
    *sys.version_info*) echo 3.{minor} ;;
    *venv*)
        rm -rf .venv && mkdir -p .venv/bin
        cp "$0" .venv/bin/python && cp "$0" .venv/bin/ruff ;;
    *) echo "3.{minor} $*" ;;
esac
"""
"""What `make` asks of a Python of that version."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the Makefile, and Pythons that only say their version."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for minor in (10, 11, 12):
        path = tmp_path / f"python3.{minor}"
        path.write_text(STAND_IN.format(minor=minor))
        path.chmod(0o755)
    (tmp_path / "python3").symlink_to("python3.11")
    return tmp_path


def make(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    outside = ("MAKE", "MFLAGS", "PYTHON")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
    environment = {**kept, "PATH": f"{tree}:{os.environ['PATH']}"}
    return subprocess.run(
        ["make", *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def test_a_python_that_is_too_old_is_refused_at_once(tree: Path) -> None:
    done = make(tree, "lint", "PYTHON=python3.10")
    assert done.returncode != 0
    assert "ConvLoom needs Python 3.11 or newer, and python3.10 is 3.10." in done.stderr
    assert "make lint PYTHON=python3.12" in done.stderr
    assert not (tree / ".venv").exists()
    assert "and python3.99 is not there." in make(tree, "demo", "PYTHON=python3.99").stderr
    assert make(tree, "lint").returncode == 0  # and the environment is the one of python3
    assert "is 3.10." in make(tree, "lint", "PYTHON=python3.10").stderr


def test_an_environment_of_another_python_is_made_anew(tree: Path) -> None:
    subprocess.run(["./python3.10", "-m", "venv", ".venv"], cwd=tree, check=True)
    for arguments, version in (
        ([], "3.11"),  # one too old is not kept
        (["PYTHON=python3.12"], "3.12"),
        ([], "3.12"),  # and the one that is there is kept
        (["PYTHON=python3.11"], "3.11"),
    ):
        done = make(tree, "lint", *arguments)
        assert done.returncode == 0, done.stderr
        assert f"{version} check ." in done.stdout
    before = make(tree, "lint").stdout
    assert "Installing" not in before
