"""Names from files in everything ConvLoom shows or writes: shown as they are, never obeyed."""

from __future__ import annotations

import ast
import html
import io
import json
import tokenize
from pathlib import Path

import h5py
import numpy as np
import pytest
from convloom.graph.errors import ConvLoomError
from convloom.runtime.folder import MANIFEST
from keras_files import Json, called, entry, functional, layer, write_json, write_weights

import convloom as cl
from convloom.cli import main

PRINTABLE = (
    "[bold red]x[/bold red]",
    "[/bold]",
    "[link=http://localhost]y[/link]",
    "<script>alert(1)</script>",
    "'; import os; os.system('true') #",
    '"""',
    "'''",
    "back\\",
    "../../outside",
    "/etc/passwd",
    "a|b `c` *d* [e](f)",
    "{0} {name} %s $x",
    "def",
    "*/ int main() /*",
)
UNPRINTABLE = ("\x1b[31mred", "a\nb", "a\rb", "\u202egnp", "a\x00b", "\x9b1m", "tab\t", "\u2028")


def network(name: str) -> Json:
    return functional(
        entry(6, 5, 3),
        layer("Conv2D", name, called("x"), filters=2, kernel_size=[3, 3], activation="relu"),
        layer("Flatten", f"{name} f", called(name)),
        layer("Dense", f"{name} d", called(f"{name} f"), units=2),
        name=name,
    )


def without_comments(source: str) -> str:
    """Source text apart from comments and strings: what a name must never reach."""
    kept = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (tokenize.COMMENT, tokenize.STRING)
    ]
    return " ".join(kept)


@pytest.mark.parametrize("name", PRINTABLE)
def test_printable_names_are_shown_as_they_are(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_json(tmp_path / "net.json", network(name))
    model = cl.load(path)
    lines: list[str] = []
    model.summary(print_fn=lines.append, width=200)
    assert f"{name} (Conv2D)" in lines[0]
    assert main(["summary", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][1]["name"] == name
    assert main(["explain", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("name", PRINTABLE)
def test_emitted_files_hold_names_in_comments_only(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "kernels"
    written = cl.emit(cl.loads(network(name)), folder, target="sm_90")
    assert all(path.parent == folder and path.name.replace("_", "").isascii() for path in written)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([*written, folder / MANIFEST])
    for path in written:
        text = path.read_text()
        if path.suffix == ".py":
            ast.parse(text)
            assert "os.system" not in without_comments(text)
            assert "outside" not in without_comments(text)
    index = (folder / "README.md").read_text()
    rows = [line for line in index.splitlines() if line.startswith("| [")]
    assert rows
    assert all(row.count("|") == 8 for row in rows)
    assert "<script" not in index
    assert "](f)" not in index


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "[bold red]x[/bold red]", '" onload="x'])
def test_reports_show_names_as_text(name: str, tmp_path: Path) -> None:
    report = cl.profile(cl.loads(network(name)), batch_size=1, device="cpu", repeats=1)
    page = tmp_path / "report.html"
    report.save(page)
    text = page.read_text()
    assert html.escape(name) in text
    assert "<script>alert" not in text
    assert name in " ".join(str(report).replace("│", " ").split())


def nested(name: str) -> Json:
    """Layers, a model and a model inside, all under one name with more after it."""
    inner = functional(
        entry(2, name=f"{name}i"), layer("Dense", f"{name}k", called(f"{name}i"), units=2), name=f"{name}m"
    )
    first = layer("Conv2D", f"{name}c", called(f"{name}x"), filters=2, kernel_size=[3, 3], activation="relu")
    middle = [
        layer("Flatten", f"{name}f", called(f"{name}c")),
        layer("Dense", name, called(f"{name}f"), units=2),
    ]
    inner |= {"name": f"{name}m", "inbound_nodes": [called(name)]}
    return functional(entry(6, 5, 3, name=f"{name}x"), first, *middle, inner, name=f"{name}n")


def plain(text: str) -> bool:
    """Whether a terminal, a page or a comment would show all of it."""
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", UNPRINTABLE)
def test_control_characters_in_names_are_escaped_wherever_they_are_shown(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    path = write_json(tmp_path / "net.json", nested(name))
    model = cl.load(path)
    assert [block.name for block in model.layers] == [escaped + c for c in ("x", "c", "f", "", "m")]
    assert model.name == f"{escaped}n"
    assert model.get_layer(name) is model.get_layer(escaped)
    shown: list[str] = []
    model.summary(print_fn=shown.append, width=300)
    assert f"{escaped}c (Conv2D)" in shown[0]
    net = cl.compile(model, device="cpu", backend="aten")
    shown += [net.explain(), str(model.to_graph()), repr(model), repr(model.inputs[0]), *net.weights()]
    for command in (["explain"], ["summary"], ["summary", "--json"], ["convert"], ["convert", "--text"]):
        assert main([command[0], str(path), *command[1:]]) == 0
        shown.append(capsys.readouterr().out)
    for written in cl.emit(model, tmp_path / "kernels", target="sm_90"):
        shown.append(written.read_text())
        if written.suffix == ".py":
            ast.parse(shown[-1])
    report = cl.profile(model, batch_size=1, device="cpu", repeats=1)
    report.save(tmp_path / "report.html")
    shown += [str(report), (tmp_path / "report.html").read_text()]
    for wrong in (
        lambda: net(np.zeros((1, 7, 5, 3), np.float32)),
        lambda: model.get_layer("none"),
        lambda: model.set_weights([np.zeros(1)] * 6),
        lambda: model.load_weights(write_weights(tmp_path / "w.h5", dense__vars__0=np.zeros(1, "f4"))),
    ):
        with pytest.raises(ConvLoomError) as caught:
            wrong()
        shown.append(str(caught.value))
    assert [text for text in shown if not plain(text)] == []


@pytest.mark.parametrize("name", UNPRINTABLE)
def test_names_with_control_characters_return_to_their_files(name: str, tmp_path: Path) -> None:
    data = nested(name)
    model = cl.loads(data)
    names = [entry["config"]["name"] for entry in json.loads(model.to_json())["config"]["layers"]]
    assert names == [f"{name}{c}" for c in ("x", "c", "f", "", "m")]
    model.save(tmp_path / "net.keras")
    again = cl.load(tmp_path / "net.keras")
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", [name for name in UNPRINTABLE if "\0" not in name])
def test_weights_by_layer_names_with_control_characters(name: str, tmp_path: Path) -> None:
    model = cl.loads(nested(name))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"x"])
        for group, layer_name in ((f"{name}c", f"{name}c"), (name, name), (f"{name}m", f"{name}k")):
            for weight in ("kernel", "bias"):
                value = np.full(
                    next(
                        s.weight.shape
                        for s in model.slots()
                        if s.layer.written
                        and s.layer.written.original(s.layer.name) == layer_name
                        and s.weight.name == weight
                    ),
                    0.5,
                    "f4",
                )
                file[f"{group}/{layer_name}/{weight}:0"] = value
    model.load_weights(tmp_path / "w.h5")
    assert all((value == 0.5).all() for value in model.get_weights())


def test_a_name_of_python_is_escaped_too() -> None:
    model = cl.Sequential([cl.Input((2,)), cl.layers.Dense(1, name="a\nb")], name="n\x1b")
    assert (model.layers[0].name, model.name) == ("a\\nb", "n\\x1b")
    for wrong in ("x" * 257, 7):
        with pytest.raises(ConvLoomError, match="a layer's name is text of 256 characters at most"):
            cl.layers.Dense(1, name=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", UNPRINTABLE)
@pytest.mark.parametrize("where", ["class", "module", "activation", "key"])
def test_control_characters_are_refused_and_not_repeated(
    name: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = layer("ReLU", "r", called("x"))
    data = {
        "class": lambda: functional(entry(3), bad | {"class_name": name}),
        "module": lambda: functional(entry(3), bad | {"module": name}),
        "activation": lambda: functional(entry(3), layer("Activation", "a", called("x"), activation=name)),
        "key": lambda: functional(entry(3), layer("ReLU", "r", called("x"), **{name: 1})),
    }[where]()
    with pytest.raises(ConvLoomError) as caught:
        cl.loads(data)
    assert str(caught.value).isprintable()
    assert main(["summary", str(write_json(tmp_path / "net.json", data))]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("convloom: error: ")
    assert shown.removesuffix("\n").isprintable()
