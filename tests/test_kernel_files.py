"""Emitted files stand alone: they run by themselves, check themselves, and hold no text of the user's."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from convloom.codegen import Kernel, emit
from convloom.graph import ops
from convloom.graph.ir import Graph
from convloom.planning.regions import Region

HOSTILE = '"""\nimport os; os.system("x") #\\" \'\'\' ünï'


def conv_kernel(layer: str = "conv") -> Kernel:
    graph = Graph()
    x = graph.add(ops.Input(("N", 9, 7, 3)), (), layer)
    w = graph.add(ops.Parameter((3, 3, 3, 5)), (), layer + "/kernel")
    y = graph.add(ops.Conv2D(padding=((1, 1), (1, 1))), (x, w), layer + "/y", layer=layer)
    r = graph.add(ops.Relu(), (y,), layer=layer)
    graph.outputs[layer] = r
    return emit(Region(graph, graph[y], [graph[y], graph[r]], "conv2d_relu"))


def kernels(layer: str = "layer") -> list[Kernel]:
    """One kernel of each emitter, every name of the graph being `layer`."""
    graph = Graph()

    def image(*shape: int, dtype: str = "float32") -> str:
        return graph.add(ops.Input(("N", *shape), dtype), (), layer)

    def add(op: object, *operands: str, phase: str = "forward") -> str:
        name = graph.add(op, operands, layer, layer=layer, phase=phase)  # type: ignore[arg-type]
        graph.outputs[name] = name
        return name

    x, flat = image(9, 7, 3), image(10)
    target = image(10)
    average = ((3, 3), (2, 2), ((1, 1), (0, 1)))
    made = [
        [add(ops.Gelu(), x)],
        [add(ops.MaxPool2D(), x), add(ops.MaxPoolIndex2D(), x)],
        [add(ops.AveragePool2D(*average), x)],
        [
            add(
                ops.MaxUnpool2D(input_size=(9, 7)),
                image(4, 3, 3),
                image(4, 3, 3, dtype="uint8"),
                phase="backward",
            )
        ],
        [add(ops.AverageUnpool2D(*average, input_size=(9, 7)), image(5, 3, 3), phase="backward")],
        [add(ops.Reduce((0, 1, 2), True), x)],
        [add(ops.Reduce((0,)), flat)],
        [add(ops.Reduce((1, 2), True, True), x)],
        [add(ops.Softmax(), flat)],
        [add(ops.SoftmaxGrad(), flat, target, phase="backward")],
        [add(ops.SoftmaxCrossEntropy(), flat, target)],
        [add(ops.RowLossGrad(ops.SoftmaxCrossEntropy()), flat, target, image(1), phase="backward")],
        [add(ops.Reduce((0, 1), mean=True), flat)],
        [add(ops.Concat(-1), x, x)],
        [add(ops.Pad(((1, 2), (0, 1), (0, 0))), x)],
        [add(ops.Transpose((0, 3, 1, 2)), x)],
    ]
    regions = []
    for names in made:
        nodes = [graph[name] for name in names]
        regions.append(Region(graph, nodes[0], nodes, "_".join(node.op.op_name() for node in nodes)))
    return [emit(region) for region in regions]


ALL = [pytest.param(kernel, id=kernel.name) for kernel in [*kernels(), conv_kernel()]]


def run(kernel: Kernel, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the file away from the project, with nothing of it importable."""
    path = folder / "kernel.py"
    path.write_text(kernel.source, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRITON_INTERPRET")}
    command = [sys.executable, "-I", str(path)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kernel", [conv_kernel(), kernels()[5]], ids=lambda kernel: kernel.name)
def test_a_file_runs_by_itself(kernel: Kernel, tmp_path: Path) -> None:
    finished = run(kernel, tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "OK" in finished.stdout


def test_a_wrong_kernel_says_so(tmp_path: Path) -> None:
    kernel = kernels()[0]
    kernel.source = kernel.source.replace("tl.store(y_ptr + at, y,", "tl.store(y_ptr + at, y * 1.001,")
    finished = run(kernel, tmp_path)
    assert finished.returncode == 1
    assert "WRONG" in finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ALL)
def test_every_file_runs_by_itself(kernel: Kernel, tmp_path: Path) -> None:
    finished = run(kernel, tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("kernel", ALL)
def test_a_file_is_readable(kernel: Kernel) -> None:
    lines = kernel.source.splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)
    assert "From the layers:" in _parts(kernel.source)[0]
    assert "FLOPs a byte" in kernel.source


@pytest.mark.parametrize("kernel", ALL)
def test_a_file_imports_torch_and_triton_alone(kernel: Kernel) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(kernel.source)):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        assert not isinstance(node, ast.ImportFrom)
    assert imported == {"os", "torch", "triton"}


@pytest.mark.parametrize("position", range(len(ALL)))
def test_a_hostile_layer_name_stays_in_the_header(position: int) -> None:
    """The code is the same, byte for byte, whatever the layers are called."""
    plain = [*kernels("layer"), conv_kernel("layer")][position]
    hostile = [*kernels(HOSTILE), conv_kernel(HOSTILE)][position]
    docstring, body = _parts(hostile.source)
    assert body == _parts(plain.source)[1]
    assert hostile.source.count('os.system("') == 0
    assert hostile.source.isascii()
    assert r"\x22\x22\x22\x0aimport\x20os" in docstring.replace("\n", "")


def _parts(source: str) -> tuple[str, str]:
    """The header's text and the dump of everything after it."""
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree, clean=False) or ""
    tree.body = tree.body[1:]
    return docstring, ast.dump(tree)


SOME = [kernels()[i] for i in (1, 5, 8)]


@pytest.mark.parametrize(
    ("target", "chosen"),
    [("sm_90", SOME)]
    + [pytest.param(t, kernels(), marks=pytest.mark.slow) for t in ("sm_80", "sm_90", "gfx942")],
    ids=["some on sm_90", "all on sm_80", "all on sm_90", "all on gfx942"],
)
def test_kernels_compile_without_spills(target: str, chosen: list[Kernel]) -> None:
    for kernel in chosen:
        for resources in kernel.resources(target):
            assert resources.error is None
            assert resources.spills_bytes == 0
