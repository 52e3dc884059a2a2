"""CONVLOOM_DEBUG prints what graph/settings.py promises of each level, and CONVLOOM_DUMP keeps it all."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
from pathlib import Path

import pytest
import torch
from convloom.graph.settings import settings

import convloom as cl
from convloom import layers as L

PASSES = (
    "remove-dead-code",
    "remove-identities",
    "padding-into-convolutions",
    "pointwise-before-views",
    "fold-batch-norm",
    "long-rows-in-steps",
    "float32-for-what-is-summed",
    "remove-dead-code",
)


def network(classes: int) -> cl.Model:
    image = cl.Input((9, 7, 3), name="image")
    h = L.Conv2D(5, 3, padding="same", name="conv")(image)
    h = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(h))
    h = L.Flatten(name="flat")(L.MaxPooling2D(2, name="pool")(h))
    return cl.Model(image, L.Dense(classes, activation="softmax", name="classes")(h), name="../ti ny")


def run(backend: str, **environment: str) -> tuple[list[str], str]:
    """Two networks, one of them trained: the names of the last one's kernels, and what stderr was told."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        for name, value in environment.items():
            patch.setenv(name, value)
            patch.delitem(settings.__dict__, name.removeprefix("CONVLOOM_").lower(), raising=False)
        x = torch.randn(2, 9, 7, 3)
        nets = [cl.compile(network(classes), device="cpu", backend=backend) for classes in (4, 3)]
        for net in nets:
            net(x)
        net.train()(x).sum().backward()
        names = [kernel.name for kernel in net.eval().kernels]
    for name in environment:  # what was read here is not for the tests that follow
        settings.__dict__.pop(name.removeprefix("CONVLOOM_").lower(), None)
    return names, said.getvalue()


SAID = {
    1: (
        r"^planning \.\./ti ny: inference, for sm_90$",
        r"^pass: fold batch norm  \(16 -> 21 nodes\)$",
        r"^    batch_norm\(conv\(x, w\) \+ b\) -> conv\(.*\n        applied at norm: now conv$",
        r"^        refused at flat: the shape changes$",
        r"^fusion: 2 kernels\n    pointwise\(contraction\(x\)\) -> one kernel\n        applied at relu$",
        r"^planning \.\./ti ny: training, with gradients, for sm_90$",
    ),
    2: (
        r"^kernel conv2d_relu_max_pool2d: from conv, relu, pool; for one example 17,880 FLOPs, 1,556 bytes$",
        r"^kernel conv2d_weight_grad.*: from conv.*; for one example [\d,]+ FLOPs, [\d,]+ bytes$",
    ),
    3: (
        r"^source of conv2d_relu_max_pool2d:\n\"\"\"3x3 convolution",
        r"^def conv2d_relu_max_pool2d_[0-9a-f]{6}\($",
        r"^source of softmax_grad:$",
    ),
    4: (
        r"^schedule conv2d_relu_max_pool2d: convolution, takes (.*), of [1-9]\d* considered for 32 images\n"
        r" +[\d.]+ us  \1\n +[\d.]+ us  ",
    ),
    5: (
        r"^launch conv2d_relu_max_pool2d: image float32\[2, 9, 7, 3\], .*float32\[3, 3, 3, 5\].* -> ",
        r"^    gave classes/softmax float32\[2, 3\]$",
    ),
}
"""Level -> what it prints and no lower one does."""


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """The folder of a dump, the names of the last network's kernels, and what was printed at level 5.

    On one backend, since whichever runs, all kernels are compiled to tell what they take.
    """
    folder = tmp_path_factory.mktemp("dump") / "of" / "triton"
    names, said = run("triton", CONVLOOM_DEBUG="5", CONVLOOM_DUMP=str(folder))
    compiling = [thread for thread in threading.enumerate() if thread.name == "CONVLOOM_DUMP"]
    assert not any(thread.daemon for thread in compiling)  # a process that ends waits for them
    for thread in compiling:
        thread.join()
    return folder, names, said


@pytest.fixture(scope="module", params=["aten", "triton"])
def said(request: pytest.FixtureRequest) -> str:
    """What a backend printed at level 5."""
    if request.param == "aten":
        return run("aten", CONVLOOM_DEBUG="5")[1]
    return str(request.getfixturevalue("dumped")[2])


@pytest.mark.parametrize("level", SAID)
def test_each_level_says_what_it_promises(level: int, said: str) -> None:
    for pattern in SAID[level]:
        assert re.search(pattern, said, re.MULTILINE), pattern


@pytest.mark.parametrize("level", range(6))
def test_a_level_says_no_more_than_it_promises(
    level: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(settings.__dict__, "debug", level)
    model = cl.Sequential([cl.Input((6, 5, 1)), L.Conv2D(2, 3), L.Flatten(), L.Dense(2)])
    cl.compile(model, device="cpu", backend="triton")(torch.zeros(1, 6, 5, 1))
    said = capsys.readouterr().err
    signs = ("planning ", "kernel ", "source of ", "schedule ", "launch ")
    for rung, sign in enumerate(signs, start=1):
        assert bool(re.search(f"^{sign}", said, re.MULTILINE)) == (level >= rung)


# -- the dump ------------------------------------------------------------------------------------------------
def test_every_planning_has_a_folder_of_its_own(dumped: tuple[Path, list[str], str]) -> None:
    """Networks of one name, in several modes, whose name leads out of the folder."""
    assert sorted(path.name for path in dumped[0].iterdir()) == [
        "ti-ny-inference",
        "ti-ny-inference-2",
        "ti-ny-training-with-gradients",
    ]


def test_graphs_are_kept_before_and_after_every_pass(dumped: tuple[Path, list[str], str]) -> None:
    names = [f"{number:02}-{name}" for number, name in enumerate(PASSES, start=1)]
    for folder, classes in (("ti-ny-inference", 4), ("ti-ny-inference-2", 3)):
        passes = dumped[0] / folder / "passes"
        moments = ("after", "before")
        assert sorted(p.name for p in passes.iterdir()) == [f"{n}.{m}.txt" for n in names for m in moments]
        texts = [[(passes / f"{n}.{m}.txt").read_text() for m in ("before", "after")] for n in names]
        assert [after for _, after in texts[:-1]] == [before for before, _ in texts[1:]]
        assert "batch_norm(" in texts[4][0]
        assert "batch_norm(" not in texts[4][1]
        assert f"float32[N,{classes}]" in texts[-1][1]
    training = {p.name[3:] for p in (dumped[0] / "ti-ny-training-with-gradients" / "passes").iterdir()}
    assert {"gradients-after-pooling.before.txt", "batch-norm-over-the-batch.after.txt"} <= training


def test_the_program_is_kept(dumped: tuple[Path, list[str], str]) -> None:
    folder = dumped[0] / "ti-ny-inference-2"
    steps = json.loads((folder / "program.json").read_text())["steps"]
    assert [step["region"] for step in steps if step["region"] != "reshape"] == dumped[1]
    text = (folder / "program.txt").read_text()
    assert all(step["region"] in text for step in steps)
    assert "applied at norm: now conv" in (folder / "explain.txt").read_text()


def test_kernels_and_their_resources_are_kept(dumped: tuple[Path, list[str], str]) -> None:
    folder, names, said = dumped
    for of in ("ti-ny-inference", "ti-ny-inference-2", "ti-ny-training-with-gradients"):
        files = {path.stem: path.read_text() for path in (folder / of / "kernels").iterdir()}
        assert all("@triton.jit" in source for source in files.values())
        lines = (folder / of / "resources.txt").read_text().splitlines()
        assert {line.partition(":")[0] for line in lines} == files.keys()
        assert all(
            re.search(r": \d+ registers, \d+ bytes spilled, [\d.]+ KiB shared", line) for line in lines
        )
        assert f"CONVLOOM_DUMP: compiling {len(lines)} kernels for sm_90, to write" in said
        assert (of == "ti-ny-inference-2") <= (sorted(files) == sorted(names))


def test_a_second_process_writes_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.__dict__, "dump", tmp_path)
    model = cl.Sequential([cl.Input((3,)), L.ReLU()], name="n")
    before = tmp_path / "n-inference" / "program.txt"
    for number in range(2):
        cl.compile(model, device="cpu", dtype="float64").explain()
        if not number:
            before.write_text("mine")
    assert before.read_text() == "mine"
    assert "program n {" in (tmp_path / "n-inference-2" / "program.txt").read_text()
    assert "no kernel" in (tmp_path / "n-inference-2" / "resources.txt").read_text()


def test_a_dump_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setitem(settings.__dict__, "dump", tmp_path / "file")
    net = cl.compile(cl.Sequential([cl.Input((3,)), L.ReLU()], name="n"), device="cpu")
    with pytest.raises(cl.ConvLoomError, match=r"CONVLOOM_DUMP: cannot make .*n-inference: Not a directory"):
        net(torch.zeros(1, 3))
