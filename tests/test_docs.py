"""The pages say what is so: blocks are what ConvLoom prints today, and the README's example runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.graph.losses import CLASSES

import convloom as cl
from convloom import layers as L

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "docs/architecture.md", "docs/keras.md", "docs/kernels.md", "docs/gates.md"),
        "benchmarks/results/README.md",
    ],
)
def test_blocks_are_up_to_date(page: str) -> None:
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    assert spec is not None
    assert spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- begin" in text
    assert pages.render(text) == text, f"{page} is out of date: run python docs/make_pages.py"


def test_what_the_page_on_kernels_names_stands_in_the_kernels() -> None:
    """Names in its sentences, which nobody writes anew."""
    text = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    quoted = "".join(re.findall(r"```.*?```", text, re.DOTALL))
    named = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    assert len(named) > 20
    assert [name for name in named if name not in quoted] == []


def test_links_of_the_pages_exist() -> None:
    for page in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_page_on_metrics_and_callbacks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "metrics_and_callbacks.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)  # our own page
    area = scope["area"]
    assert float(area.result()) == 1.0  # type: ignore[attr-defined]
    history = scope["history"].history  # type: ignore[attr-defined]
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "gap"}
    rows = (tmp_path / "run.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "epoch,accuracy,learning_rate,loss,val_accuracy,val_loss"
    assert len(rows) == 5
    assert list(tmp_path.glob("best-0*.keras"))


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"## Twenty lines\n\n```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    x = np.random.default_rng(0).random((64, 28, 28, 1), dtype=np.float32)
    y = np.eye(10, dtype=np.float32)[np.arange(64) % 10]
    scope: dict[str, object] = {"x": x, "y": y}
    exec(code[1], scope)  # our own README
    assert (tmp_path / "kernels").is_dir()
    assert (tmp_path / "profile.html").read_text(encoding="utf-8").startswith("<!")
    assert tuple(scope["probabilities"].shape) == (32, 10)  # type: ignore[attr-defined]


def test_the_page_on_optimizers_runs() -> None:
    text = (ROOT / "docs" / "optimizers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 8
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)  # our own page
    assert np.isfinite(scope["history"].history["loss"]).all()  # type: ignore[attr-defined]
    from convloom.runtime.optimizers import OPTIMIZERS

    assert [name for name in OPTIMIZERS if f'`"{name}"`' not in text] == []


@pytest.mark.filterwarnings("ignore")
def test_the_blocks_on_training_run() -> None:
    """Those of the page's beginning and of its section on data, one after the other."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    parts = text[: text.index("## A model's")], text[text.index("## Data") : text.index("## Losses")]
    blocks = [block for part in parts for block in re.findall(r"```python\n(.*?)```", part, re.DOTALL)]
    assert len(blocks) == 4
    draw = np.random.default_rng(0)
    model = cl.Sequential([cl.Input((6,)), L.Dense(5, activation="relu"), L.Dense(3, activation="softmax")])
    scope: dict[str, Any] = {
        "cl": cl, "L": L, "np": np, "model": model,
        "x": draw.normal(size=(40, 6)).astype(np.float32), "y": draw.integers(0, 3, 40),
        "first": draw.normal(size=(9, 3)).astype(np.float32),
        "second": draw.normal(size=(9, 2)).astype(np.float32),
        "kinds": draw.integers(0, 4, 9), "sizes": draw.normal(size=(9, 1)).astype(np.float32),
        "importance": draw.uniform(size=9).astype(np.float32),
    }  # fmt: skip
    for block in blocks:
        exec(block, scope)  # our own page
    assert scope["probabilities"].shape == (40, 3)
    assert set(scope["two"].history.history) == {"loss", "kind_loss", "size_loss", "kind_accuracy"}


def test_the_blocks_on_losses_run() -> None:
    text = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    a, b = cl.Input((3,)), cl.Input((2,))
    h = L.Dense(8, activation="relu")(L.Concatenate()([a, b]))
    heads = [L.Dense(4, activation="softmax", name="kind")(h), L.Dense(1, name="size")(h)]
    draw = np.random.default_rng(0)
    scope: dict[str, Any] = {
        "cl": cl, "x": draw.normal(size=(40, 6)).astype(np.float32), "y": torch.arange(40) % 3,
        "model": cl.Sequential([cl.Input((6,)), L.Dense(3, activation="softmax")]),
        "two": cl.compile(cl.Model([a, b], heads)),
        "first": draw.normal(size=(9, 3)).astype(np.float32),
        "second": draw.normal(size=(9, 2)).astype(np.float32),
        "kinds": draw.integers(0, 4, 9), "sizes": draw.normal(size=(9, 1)).astype(np.float32),
        "importance": draw.uniform(size=9).astype(np.float32),
    }  # fmt: skip
    for block in blocks:
        exec(block, scope)  # our own page
    torch.testing.assert_close(scope["loss"], scope["alone"])
    assert len(scope["result"].losses) == len(scope["result"].predictions) == 2
    for loss in CLASSES:
        assert f"`{loss.keras_name}`" in text
        assert f"`{loss.__name__}(" in text
