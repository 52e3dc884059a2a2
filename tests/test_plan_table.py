"""Kernels and bytes of whole networks' plans may only fall."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import plan_table
import pytest

TABLE = json.loads(plan_table.TABLE.read_text())


def test_the_table_holds_every_network() -> None:
    assert list(TABLE) == list(plan_table.NETWORKS)


@pytest.mark.parametrize("name", plan_table.NETWORKS)
def test_plans_cost_no_more_than_the_table_says(name: str) -> None:
    rose, fell = plan_table.compare(TABLE[name], plan_table.rows(name))
    if fell:
        warnings.warn(f"{name}: fell, so run `make plan-table`: " + "; ".join(fell), stacklevel=1)
    assert not rose, "\n".join(rose)


def test_what_rose_and_what_fell_is_named() -> None:
    old = {"inference bfloat16": {"kernels": 57, "bytes": 58_410_801}}
    new = {"inference bfloat16": {"kernels": 58, "bytes": 58_000_000}}
    assert plan_table.compare(old, new) == (
        ["inference bfloat16: kernels 57 -> 58"],
        ["inference bfloat16: bytes 58,410,801 -> 58,000,000"],
    )
    assert plan_table.compare(new, new) == ([], [])


def test_the_table_refuses_what_rose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "table.json"
    monkeypatch.setattr(plan_table, "TABLE", file)
    monkeypatch.setattr(plan_table, "NETWORKS", {"VGG-16": None})
    low, high = ({"inference float32": {"kernels": k, "bytes": 1}} for k in (16, 17))
    for new, arguments, refused, written in (
        (high, (), 0, high),
        (low, (), 0, low),
        (high, (), 1, low),
        (high, ("--rises",), 0, high),
    ):
        monkeypatch.setattr(plan_table, "rows", lambda name, new=new: new)
        assert plan_table.main(arguments) == refused
        assert json.loads(file.read_text()) == {"VGG-16": written}
