"""Files of results: which machine and which versions, and one case after another, each with its own date."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Report = dict[str, Any]

PACKAGES = ("torch", "triton", "numpy", "onnxruntime", "openvino")


def environment(device: str, dtype: str, threads: int, method: str) -> Report:
    """What must be the same for all cases of a file."""
    on_gpu = device.startswith("cuda")
    return {
        "machine": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "dtype": dtype,
        "method": method,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """As Linux names it, with the number of cores."""
    names = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def read(path: Path) -> Report:
    report: Report = json.loads(path.read_text(encoding="utf-8"))
    return report


def opened(path: Path | None, around: Report) -> Report:
    """The report in this file, to be continued; a new one where there is none.

    Raises SystemExit where the file holds what another machine or other versions gave.
    """
    if path is None or not path.exists():
        return {"environment": around, "cases": []}
    report = read(path)
    other = {key for key, value in around.items() if report["environment"].get(key) != value}
    if other:
        raise SystemExit(
            f"{path} was measured with another {', '.join(sorted(other))}; name another --output"
        )
    return report


def put(report: Report, case: Report) -> None:
    """Add a case in place of the same one measured before."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    key = _key(case)
    report["cases"] = [old for old in report["cases"] if _key(old) != key]
    report["cases"].append({**case, "date": now, "commit": _commit()})


def _key(case: Report) -> tuple[Any, ...]:
    return case["network"], case["batch"], case["mode"]


def _commit() -> str | None:
    """Of the tree that was measured; with a + where files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def write(path: Path, report: Report) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
