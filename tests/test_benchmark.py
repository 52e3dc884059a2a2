"""The benchmark measures, checks what it measures, continues files of results, and makes tables of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import reports
import tables
import torch
import worker
from rounds import Measured

FOLDER = Path(tables.__file__).parent


def measure(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    fast = ("--quick", "--rounds", "2", "--slice", "0.01", "--patience", "0", "--threads", "1")
    command = [sys.executable, str(FOLDER / "run.py"), *fast, "--device", "cpu", "--output", str(output)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def test_lenet_is_measured_and_a_file_is_continued(tmp_path: Path) -> None:
    output = tmp_path / "measured.json"
    for mode in ("training", "inference"):
        done = measure(output, "--modes", mode, "--batches", "2", "--variants", "convloom")
        assert done.returncode == 0, done.stdout + done.stderr
    report = reports.read(output)
    assert [case["mode"] for case in report["cases"]] == ["training", "inference"]
    for case in report["cases"]:
        eager, own = case["variants"]
        assert (eager["variant"], own["variant"]) == ("eager", "convloom")
        assert eager["error"] == 0
        assert own["error"] <= 1e-4
        for figures in (eager, own):
            assert not figures["skipped"]
            assert len(figures["rounds"]) == 2
            low, high = figures["quartiles"]
            assert 0 < low <= figures["milliseconds"] <= high
            assert figures["peak_megabytes"] > 0
            assert figures["compile_seconds"] > 0
    assert [case["variants"][1]["kernels"] for case in report["cases"]] == [14, 5]
    assert "### LeNet-5 (28x28), batch 2, training" in tables.details(report)

    report["environment"]["machine"] = "another"
    output.write_text(json.dumps(report))
    refused = measure(output)
    assert refused.returncode == 1
    assert f"{output} was measured with another machine; name another --output" in refused.stderr


def figures(variant: str, milliseconds: float | None, skipped: str = "") -> dict[str, Any]:
    measured = asdict(Measured(variant, error=1e-6, compile_seconds=0.5, peak_megabytes=80.0))
    return {**measured, "milliseconds": milliseconds, "skipped": skipped}


def report_of(*cases: dict[str, Any]) -> reports.Report:
    around = reports.environment("cpu", "float32", 2, "by hand")
    report: reports.Report = {"environment": around, "cases": []}
    for case in cases:
        reports.put(report, case)
    return report


def case(network: str, batch: int, *variants: dict[str, Any], mode: str = "inference") -> dict[str, Any]:
    return {"network": network, "batch": batch, "mode": mode, "rounds": 3, "variants": list(variants)}


def test_tables_say_how_many_times_faster_than_eager() -> None:
    eager, own = figures("eager", 46.4), figures("convloom", 23.2)
    missing = figures("openvino", None, "openvino is not installed")
    report = report_of(case("lenet5", 32, eager, own), case("resnet50", 1, eager, missing, own))
    text = tables.summary(report)
    assert "| Inference, images a batch | eager channels_last, ms | ConvLoom |" in text
    assert text.index("| ResNet-50 (224x224), 1 | 46.4 | 2.00x |") < text.index("| LeNet-5 (28x28), 32 |")
    assert "OpenVINO" not in text
    assert "training" not in text
    assert "| OpenVINO | openvino is not installed | " in tables.details(report)


def test_a_case_takes_the_place_of_the_one_measured_before() -> None:
    report = report_of(case("lenet5", 32, figures("eager", 2.0)), case("lenet5", 32, figures("eager", 1.0)))
    (only,) = report["cases"]
    assert only["variants"][0]["milliseconds"] == 1.0


def test_what_differs_from_eager_is_found() -> None:
    exact = {"loss": torch.tensor(2.0), "kernel": torch.ones(4), "beta": torch.full((4,), 1e-9)}
    assert worker.largest_difference(exact, {**exact, "beta": torch.zeros(4)}) < 1e-5  # as good as 0
    assert worker.largest_difference(exact, {**exact, "kernel": torch.full((4,), 1.1)}) > 0.09
    assert not worker.largest_difference(exact, {**exact, "kernel": torch.full((4,), torch.nan)}) <= 1
    with pytest.raises(RuntimeError, match=r"values differ by name: \['beta'\]"):
        worker.largest_difference(exact, {"loss": exact["loss"], "kernel": exact["kernel"]})
