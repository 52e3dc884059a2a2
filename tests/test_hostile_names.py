"""Names from files in everything ConvLoom shows or writes: shown as they are, never obeyed."""

from __future__ import annotations

import ast
import html
import io
import json
import tokenize
from pathlib import Path

import pytest
from convloom.graph.errors import ConvLoomError
from keras_files import Json, called, entry, functional, layer, write_json

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
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(written)
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


@pytest.mark.parametrize("name", UNPRINTABLE)
@pytest.mark.parametrize("where", ["layer", "model", "nested", "class", "module", "activation", "key"])
def test_control_characters_are_refused_and_not_repeated(
    name: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = layer("ReLU", "r", called("x"))
    inner = functional(entry(3), layer("ReLU", "q", called("x"))) | {
        "name": "m",
        "inbound_nodes": [called("x")],
    }
    data = {
        "layer": lambda: functional(entry(3), layer("ReLU", name, called("x"))),
        "model": lambda: functional(entry(3), bad, name=name),
        "nested": lambda: functional(entry(3), inner | {"name": name}),
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
