"""Stored inputs and outputs replayed: `cl.check`, `cl.load(..., check=)` and `convloom convert --check`."""

from __future__ import annotations

import io
import zipfile
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convloom as cl
from convloom import ConvLoomError, Input, Model, ModelFormatError, layers
from convloom.cli import main

LENET5 = Path(__file__).parents[1] / "examples" / "keras_lenet5"
LENET = LENET5 / "lenet5.json"
WEIGHTS = LENET5 / "lenet5.weights.h5"
IO = LENET5 / "lenet5_io.npz"


def network() -> Model:
    """Two inputs, two outputs: a + b, and 2 a."""
    a, b = Input((3,), name="a"), Input((3,), name="b")
    total = layers.Add(name="total")([a, b])
    return Model([a, b], [total, layers.Rescaling(2.0, name="twice")(a)], name="net")


def arrays(**changes: Any) -> dict[str, Any]:
    x0, x1 = (np.random.default_rng(7).normal(size=(2, 5, 3)) * 4).astype(np.float32)
    return {"x0": x0, "x1": x1, "y0": x0 + x1, "y1": 2 * x0} | changes


def stored(path: Path, **changes: Any) -> Path:
    """The file for `network`; a change to None leaves an array out."""
    np.savez(path / "io.npz", **{k: v for k, v in arrays(**changes).items() if v is not None})
    return path / "io.npz"


# -- what is reported ----------------------------------------------------------------------------------------
def test_load_keeps_the_report() -> None:
    model = cl.load(LENET, WEIGHTS, check=IO)
    report = model.check_report
    assert isinstance(report, cl.CheckReport)
    assert [(output.name, output.shape) for output in report.outputs] == [("output", (8, 10))]
    # The longest sum has 400 terms; softmax keeps what comes out below 1.
    assert report.absolute < 400 * 2.0**-24
    assert report.relative < 400 * 2.0**-22
    assert cl.load(LENET, WEIGHTS).check_report is None


def test_initial_weights_do_not_pass() -> None:
    with pytest.raises(ConvLoomError) as caught:
        cl.load(LENET, check=IO)
    text = str(caught.value)
    assert text.startswith(
        "Sequential 'lenet5' does not compute what lenet5_io.npz holds: output (8, 10): largest"
    )
    assert "the tolerance is 0.0001. Were its weights loaded" in text


def test_several_inputs_and_outputs_in_order(tmp_path: Path) -> None:
    report = cl.check(network(), stored(tmp_path))
    assert [output.name for output in report.outputs] == ["total", "twice"]
    assert report.relative < 1e-6
    assert str(report).endswith("within the tolerance of 0.0001")


def test_the_largest_difference_is_found_and_measured_against_its_output(tmp_path: Path) -> None:
    y1 = 2 * arrays()["x0"]
    y1[3, 1] += 0.5
    path = stored(tmp_path, y1=y1)
    report = cl.check(network(), path, tolerance=inf)
    assert report.outputs[0].relative < 1e-6
    assert report.outputs[1].absolute == pytest.approx(0.5, abs=1e-6)
    assert report.relative == pytest.approx(0.5 / np.abs(y1).max(), rel=1e-6)
    assert cl.check(network(), path, tolerance=report.relative * 1.001)
    with pytest.raises(
        ConvLoomError, match=r"holds: twice \(5, 3\): largest difference 0\.5, relative 0\.0\d+;"
    ):
        cl.check(network(), path, tolerance=report.relative * 0.999)


@pytest.mark.parametrize(("value", "difference"), [(np.nan, inf), (np.inf, inf), (0.0, 1.0)])
def test_values_that_are_not_finite_or_all_zero(tmp_path: Path, value: float, difference: float) -> None:
    """Against an output of zeros no difference is small; NaN is no number at all."""
    ones = np.ones((1, 3), np.float32)
    y0 = np.full((1, 3), value, np.float32)
    path = stored(tmp_path, x0=ones, x1=0 * ones, y0=y0, y1=2 * ones)
    report = cl.check(network(), path, tolerance=inf)
    assert report.outputs[0].absolute == difference
    assert report.outputs[0].relative == inf
    with pytest.raises(ConvLoomError, match="does not compute"):
        cl.check(network(), path, tolerance=1e30)


# -- files that do not fit -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"x1": None}, "the model has 2 inputs, stored as x or x0, x1, ...; the file holds x0"),
        ({"y1": None, "y0": None}, "2 outputs, stored as y or y0, y1, ...; the file holds none of these"),
        ({"x2": np.zeros((5, 3))}, "the file holds x0, x1, x2"),
        ({"x1": np.zeros((4, 3), "f4")}, "input 'b' of Model 'net' has shape (5, 3), the stored one (4, 3)"),
        ({"y0": np.zeros((5, 4))}, "output 'total' of Model 'net' has shape (5, 3), the stored one (5, 4)"),
        ({"x0": np.zeros((0, 3))}, "the stored inputs hold no sample; their shape is (0, 3)"),
        ({"x0": np.float32(1)}, "the stored inputs hold no sample; their shape is ()"),
        ({"y0": np.zeros((5, 3), "c8")}, "'y0.npy' is an array of complex64"),
        ({"y0": np.array([["a"] * 3] * 5)}, "'y0.npy' is an array of <U1"),
        ({"y0": np.array([[None] * 3] * 5)}, "'y0.npy' is an array of object"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        cl.check(network(), stored(tmp_path, **changes))
    assert str(caught.value).startswith("io.npz: ")
    assert text in str(caught.value)


def test_a_header_that_promises_more_than_the_file_has(tmp_path: Path) -> None:
    """It is refused before numpy takes the memory."""
    path = tmp_path / "io.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 3)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x0", "x1", "y0", "y1"):
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(60))
    with pytest.raises(
        ModelFormatError, match=r"'x0\.npy' is an array of float32, shape \(1099511627776, 3\)"
    ):
        cl.check(network(), path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(40)])
def test_files_that_are_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "io.npz").write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"io\.npz: is no \.npz file of plain arrays"):
        cl.check(network(), tmp_path / "io.npz")
    with pytest.raises(ModelFormatError, match=r"missing\.npz: there is no such file"):
        cl.check(network(), tmp_path / "missing.npz")


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), "1e-4", None, True])
def test_tolerances_that_are_none(tmp_path: Path, tolerance: Any) -> None:
    with pytest.raises(ConvLoomError, match="the tolerance must be a number from 0 on"):
        cl.check(network(), stored(tmp_path), tolerance)


# -- command line --------------------------------------------------------------------------------------------
def test_convert_prints_the_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["convert", str(LENET), "--weights", str(WEIGHTS), "--check", str(IO)]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("output (8, 10): largest difference ")
    assert lines[1] == "within the tolerance of 0.0001"
    assert main([*arguments, "-o", str(tmp_path / "graph.txt")]) == 0
    assert (tmp_path / "graph.txt").read_text().startswith("graph lenet5 {")


def test_convert_fails_where_the_check_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    random = ("convert", str(LENET), "--random-weights", "--check", str(IO))
    assert main([*random, "-o", str(graph)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("convloom: error: Sequential 'lenet5' does not compute what lenet5_io.npz")
    assert not graph.exists()
    assert main([*random, "--tolerance", "100"]) == 0
