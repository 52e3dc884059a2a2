"""The page on checkpoints says what is so: its blocks run, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import data, model

import convloom as cl

PAGE = Path(__file__).resolve().parent.parent / "docs" / "checkpoints.md"


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = model()
    x, y = data()
    scope: dict[str, Any] = {"cl": cl, "model": made, "net": cl.compile(made, device="cpu"), "x": x, "y": y}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, scope)  # our own page
    assert scope["found"].epoch == 4
    assert scope["history"].epoch == [0, 1, 2, 3]
    names = sorted(path.name for path in next((tmp_path / "run").glob("checkpoint-*")).iterdir())
    said = re.findall(r"^\| `([a-z.]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(said) == names
    assert np.isfinite(scope["found"].history["loss"]).all()
