"""What else takes a model or a compiled network: right and wrong calls of emit, profile, compile."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import torch
from convloom.graph.errors import CompileError, ConvLoomError
from small_training import model, network

import convloom as cl
from convloom import layers as L


def test_emit_profile_and_summary_take_a_network(tmp_path: Any) -> None:
    own = model()
    net = cl.compile(own, device="cpu", dtype="bfloat16")
    texts = {
        name: {p.name: p.read_text() for p in cl.emit(given, tmp_path / name, target=target, dtype=dtype)}
        for name, given, target, dtype in (
            ("model", own, "H100", "bfloat16"),
            ("net", net, "H100", None),
            ("lower", net, "h100", "bfloat16"),
        )
    }  # fmt: skip
    assert texts["model"] == texts["net"] == texts["lower"]
    assert "bfloat16" in texts["net"]["README.md"]
    report = cl.profile(net, batch_size=2, repeats=1)
    assert str(report).count("bfloat16") >= 1
    lines: list[str] = []
    net.summary(lines.append)
    assert f"Total parameters: {own.count_params():,}" in lines[0]
    assert "(batch, 4, 3, 3)" in lines[0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda net, path: cl.emit(net, path, dtype="float16"),
            "compiled for dtype 'float32'; leave dtype out",
        ),
        (lambda net, path: cl.emit("net.keras", path), "found str; read the file first, with cl.load"),  # type: ignore[arg-type]
        (lambda net, path: cl.emit(net, path, target="sm90"), "did you mean 'sm_90'?"),
        (lambda net, path: cl.emit(net, path, target=90), "target is 90, a int; give a name: A100"),  # type: ignore[arg-type]
        (lambda net, path: cl.emit(net, None), "folder is a NoneType; give the path of a folder"),  # type: ignore[arg-type]
        (lambda net, path: cl.emit(net, path, batch_size="1"), "batch_size is '1', a str"),  # type: ignore[arg-type]
        (lambda net, path: cl.profile(net, repeats="3"), "repeats is '3', a str"),  # type: ignore[arg-type]
        (lambda net, path: cl.profile(net, target=3), "target is 3, a int"),  # type: ignore[arg-type]
        (lambda net, path: cl.profile(net, target="H20"), "did you mean 'H200'?"),
        (lambda net, path: cl.compile(model(), dtype="flaot16"), "did you mean 'float16'?"),
        (
            lambda net, path: cl.compile(model(), dtype=torch.float16),  # type: ignore[arg-type]
            "dtype is torch.float16, a dtype; give a",
        ),
        (lambda net, path: cl.compile(model(), backend="atne"), "did you mean 'aten'?"),
        (lambda net, path: cl.compile(keras.Sequential()), "save Keras's model and read the file"),
    ],
)
def test_wrong_calls_of_the_others(call: Any, text: str, tmp_path: Any) -> None:
    with pytest.raises((CompileError, ConvLoomError)) as raised:
        call(network(), tmp_path)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"block_m": 100}, "block_m is 100; tiles and warps are powers of two"),
        ({"warps": 3}, "warps is 3; tiles and warps are powers of two"),
        ({"warps": 64}, "warps is 64; a block has at most 32"),
        ({"stages": 0}, "stages is 0; it must be whole and at least 1"),
        ({"block_n": 0}, "block_n is 0"),
        ({"block_k": 16.0}, "block_k is 16.0"),
        ({"chunk": -1}, "chunk is -1"),
    ],
)
def test_schedules_no_kernel_can_have(sizes: dict[str, Any], text: str) -> None:
    from convloom.codegen import Schedule

    with pytest.raises(CompileError, match=text):
        Schedule(**{"block_m": 64, "block_n": 64, **sizes})


def test_moving_to_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(CompileError, match="cannot be moved there: "):
        network().to("cuda")
    with pytest.raises(CompileError, match="found CompiledNetwork, which is compiled already"):
        cl.compile(network())  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_outputs_share_no_memory_with_inputs_or_one_another(backend: str) -> None:
    image = cl.Input((4, 4, 1))
    h = L.Conv2D(2, 1)(image)
    model = cl.Model(image, [L.Reshape((16,))(image), h, L.Flatten()(h), L.Reshape((8, 4))(h)])
    net = cl.compile(model, backend=backend, device="cpu").eval()
    x = torch.randn(2, 4, 4, 1)
    with torch.no_grad():
        results = net(x)
    before = [y.clone() for y in results]
    given = x.clone()
    for place, y in enumerate(results):
        y.zero_()
        assert torch.equal(x, given)
        assert all(torch.equal(a, b) for a, b in zip(results[place + 1 :], before[place + 1 :], strict=True))
