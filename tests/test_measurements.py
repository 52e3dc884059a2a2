"""The store of measurements: what is written is read, by anyone, and what is damaged costs only itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from convloom.graph.errors import ConvLoomError
from convloom.graph.settings import settings
from convloom.planning.measurements import FOLDER, Measured, Measurements, MeasurementWarning
from convloom.planning.schedules import Schedule

ONE = Measured(
    "0" * 32, "convolution", Schedule(64, 32, 16, stages=3), "bfloat16", "ieee", 32, "NVIDIA H200", "3.6.0"
)
TWO = replace(ONE, schedule=Schedule(128, 64, 32, chunk=64, programs=264))


def test_what_is_added_is_read_back_by_another(tmp_path: Path) -> None:
    store = Measurements(tmp_path)
    assert len(store) == 0
    assert store.get(ONE) is None
    store.add(ONE, 2e-6)
    store.update({TWO: 1e-6, ONE: 3e-6})  # slower than before: no news
    for seen in (store, Measurements(tmp_path)):
        assert {what: seen[what] for what in seen} == {ONE: 2e-6, TWO: 1e-6}
        assert seen.best([ONE, TWO, replace(ONE, batch=1)]) == TWO
    assert store.best([replace(ONE, batch=1)]) is None
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 2


@pytest.mark.parametrize(
    "field", ["key", "form", "dtype", "precision", "device", "triton", "batch", "schedule"]
)
def test_each_part_of_the_key_counts(tmp_path: Path, field: str) -> None:
    store = Measurements(tmp_path)
    store.add(ONE, 1e-6)
    other: object = {"batch": 1, "schedule": Schedule(16, 16)}.get(field, "other")
    changed = replace(ONE, **{field: other})  # type: ignore[arg-type]
    assert changed not in Measurements(tmp_path)
    assert ONE in Measurements(tmp_path)


def test_it_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLOOM_CACHE", str(tmp_path / "cache"))
    settings.reset()
    try:
        Measurements().add(ONE, 1e-6)
        (file,) = (tmp_path / "cache" / FOLDER).iterdir()
        assert json.loads(file.read_text())["form"] == "convolution"
    finally:
        monkeypatch.undo()
        settings.reset()


def test_what_others_add_is_seen_after_refresh(tmp_path: Path) -> None:
    mine, theirs = Measurements(tmp_path), Measurements(tmp_path)
    assert ONE not in mine
    theirs.add(ONE, 1e-6)
    assert ONE not in mine
    mine.refresh()
    assert mine[ONE] == 1e-6


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_measurements import ONE, Measurements
store = Measurements(Path(sys.argv[2]))
for batch in range(1, 101):
    store.add(replace(ONE, batch=batch), int(sys.argv[3]) * 1e-6 + batch * 1e-9)
"""


def test_many_writers_at_once(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(tmp_path)]
    writers = [subprocess.Popen([*arguments, str(number)]) for number in (3, 1, 2)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = Measurements(tmp_path)
        assert {what.batch: store[what] for what in store} == {
            batch: 1e-6 + batch * 1e-9 for batch in range(1, 101)
        }


# -- damage ----------
def good_line(tmp_path: Path) -> str:
    Measurements(tmp_path / "other").add(ONE, 1e-6)
    return next((tmp_path / "other").iterdir()).read_text()


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"format": 1}',
        b'{"format": 1, "seconds": 1e-6}',
        "cut",
        {"seconds": 0},
        {"seconds": -1e-6},
        {"seconds": float("nan")},
        {"seconds": "1e-6"},
        {"seconds": True},
        {"seconds": 10**400},
        {"key": 7},
        {"batch": "32"},
        {"schedule": {"block_m": 3, "block_n": 16}},
        {"schedule": {"block_m": 16, "block_n": 16, "os": 1}},
        {"schedule": None},
    ],
    ids=lambda bad: repr(bad)[:50],
)
def test_a_damaged_line_is_passed_over_with_one_warning(tmp_path: Path, bad: object) -> None:
    line = good_line(tmp_path)
    if bad == "cut":
        bad = line[: len(line) // 2].encode()
    text = bad if isinstance(bad, bytes) else json.dumps({**json.loads(line), **dict(bad)}).encode()  # type: ignore[call-overload]
    (tmp_path / "damaged.jsonl").write_bytes(text + b"\n" + text + b"\n" + line.encode())
    store = Measurements(tmp_path)
    with pytest.warns(MeasurementWarning, match=r"damaged\.jsonl: 2 of 3 lines hold no measurement") as found:
        assert dict(zip(store, map(store.__getitem__, store), strict=True)) == {ONE: 1e-6}
    assert len(found) == 1


def test_lines_of_another_format_are_not_read_and_not_complained_about(tmp_path: Path) -> None:
    line = {**json.loads(good_line(tmp_path)), "format": 2}
    (tmp_path / "later.jsonl").write_text(json.dumps(line) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Measurements(tmp_path)) == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Measurements(tmp_path / "file" / "below")
    with pytest.warns(MeasurementWarning, match="are kept for this process only"):
        store.add(ONE, 1e-6)
    assert store[ONE] == 1e-6
    with pytest.raises(ConvLoomError, match="cannot be written"):
        store.write(tmp_path / "file" / "all.jsonl")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    Measurements(tmp_path).add(ONE, 1e-6)
    next(tmp_path.iterdir()).chmod(0)
    with pytest.warns(MeasurementWarning, match="cannot be read"):
        assert len(Measurements(tmp_path)) == 0


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan"), True])
def test_what_is_no_time_is_refused(tmp_path: Path, seconds: float) -> None:
    store = Measurements(tmp_path)
    with pytest.raises(ConvLoomError, match="is no time in seconds"):
        store.update({TWO: 1e-6, ONE: seconds})
    assert len(store) == 0


# -- shipped files ----------
def test_shipped_measurements_are_merged_and_never_written_to(tmp_path: Path) -> None:
    shipped = tmp_path / "h200.jsonl"
    source = Measurements(tmp_path / "source")
    source.update({TWO: 5e-6, ONE: 4e-6})
    source.write(shipped)
    assert len(shipped.read_text().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["h200.jsonl"]
    text = shipped.read_text()
    store = Measurements(tmp_path / "own", [shipped, tmp_path / "gone.jsonl"])
    with pytest.warns(MeasurementWarning, match=r"gone\.jsonl: cannot be read"):
        store.add(TWO, 3e-6)
    assert [store[ONE], store[TWO]] == [4e-6, 3e-6]
    assert shipped.read_text() == text


def test_a_written_file_does_not_depend_on_the_order_of_measuring(tmp_path: Path) -> None:
    for name, order in (("a", (ONE, TWO)), ("b", (TWO, ONE))):
        store = Measurements(tmp_path / name)
        for what in order:
            store.add(what, 1e-6)
        store.write(tmp_path / f"{name}.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
