"""One variant of one case in a process of its own, which times slices of calls when it is told to.

`rounds` talks to it over a connection: how long a slice should be goes in, what was measured comes out, and 0
ends it. What comes first says that it is ready, or why it is not.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which an optimizer's first step imports, and which takes a second
from torch import nn
from twins import BY_NAME as NETWORKS
from variants import BASELINE, BFLOAT16, Runner, Setting, Variant, write_onnx
from variants import BY_NAME as VARIANTS

TOLERANCE = {"float32": 2e-4, "bfloat16": 6e-2, "float16": 1e-2}
"""Norm of the difference over the norm of the value, allowed after some fifty layers."""

GRADIENT_TOLERANCE = {"float32": 0.1, "bfloat16": math.inf, "float16": math.inf}
"""The same for all gradients together. Rounding moves values near zero across a ReLU's corner, and each that
crosses adds or drops a whole term: 3e-2 in MobileNetV2 on maps of 3x3. In half precision eager's gradients
lie 0.4 to 1.1 from those in float32, which is no bound on anything: the error is shown beside eager's.
"""


def keep_memory() -> None:
    """Have glibc give no memory back between calls, so that no page is fresh."""
    libc = ctypes.CDLL(None)
    for parameter, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):  # mmap, trim, top pad
        libc.mallopt(parameter, value)


def serve(asked: Mapping[str, Any], connection: Connection) -> None:
    """The life of the process. asked: for `Setting`, and the variant's name, or "onnx" for a file."""
    for standard in (1, 2):  # what libraries print; `rounds` shows its end where the process dies
        os.dup2(os.open(f"{asked['folder']}/{asked['variant']}.txt", os.O_CREAT | os.O_WRONLY), standard)
    variant = VARIANTS.get(asked["variant"])
    if variant is not None and variant.keeps_memory:
        keep_memory()
    torch.set_num_threads(asked["threads"])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
    setting = Setting(
        *(NETWORKS[asked["network"]], asked["batch"], asked["mode"], torch.device(asked["device"])),
        *((variant and variant.dtype) or asked["dtype"], asked["threads"], Path(asked["folder"])),
    )
    if variant is None:
        write_onnx(setting)
        connection.send({})
    else:
        _measure(variant, setting, connection)


def _measure(variant: Variant, setting: Setting, connection: Connection) -> None:
    refused = _refusal(variant, setting)
    if refused:
        return connection.send({"skipped": refused})
    _load_libraries(setting)
    before = _resident("VmRSS")
    if not variant.needs:
        setting.twins  # noqa: B018  # so that drawing weights is not timed
    start = time.perf_counter()
    runner = variant.make[setting.mode](setting)
    runner.call()
    _synchronize(setting)
    ready: dict[str, Any] = {"compile_seconds": time.perf_counter() - start, "kernels": runner.kernels}
    ready["error"] = _error(runner, variant, setting)
    allowed = (TOLERANCE if setting.mode == "inference" else GRADIENT_TOLERANCE)[setting.dtype]
    if not ready["error"] <= allowed:
        ready["skipped"] = f"differs from eager by {ready['error']:.2g}"
    setting.forget_twins()
    gc.collect()
    _forget_peak()
    each = _seconds(runner, 1, setting)
    connection.send(ready)
    while seconds := connection.recv():
        calls = max(1, round(seconds / each))
        each = _seconds(runner, calls, setting)
        connection.send({"milliseconds": 1e3 * each, "peak_megabytes": _peak(before, setting)})
    return None


def _refusal(variant: Variant, setting: Setting) -> str:
    if variant.needs:
        try:
            importlib.import_module(variant.needs)
        except ImportError:
            return f"{variant.needs} is not installed"
        if setting.device.type != "cpu" or setting.dtype != "float32":
            return "measured on the CPU in float32 alone"
    cpu = setting.device.type == "cpu"
    if cpu and setting.dtype == BFLOAT16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bfloat16"
    return ""


def _load_libraries(setting: Setting) -> None:
    """What PyTorch sets up for a first training step is no network's memory or time."""
    tiny = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    tiny.to(setting.device)(torch.rand(2, 3, 3, 3, device=setting.device)).sum().backward()
    torch.optim.SGD(tiny.parameters(), momentum=0.9).step()


# -- agreement ----------
def _error(runner: Runner, variant: Variant, setting: Setting) -> float:
    found = {name: value.float().cpu().contiguous() for name, value in runner.check().items()}
    path = setting.folder / "exact.pt"
    if variant.name == BASELINE:
        torch.save(found, path)
    return largest_difference(torch.load(path), found)


def largest_difference(exact: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    """Of the output or the loss, and of all gradients together: norm of the difference over the value's.

    Together, since single gradients may be 0 but for rounding, as that of a batch norm's beta before another.
    """
    if exact.keys() != found.keys():
        raise RuntimeError(f"values differ by name: {sorted(exact.keys() ^ found.keys())[:4]}")
    alone = [name for name in exact if name in ("output", "loss")]
    groups = [[name] for name in alone] + [[name for name in exact if name not in alone]]
    errors = []
    for group in groups:
        size = sum(float(exact[name].norm()) ** 2 for name in group)
        off = sum(float((found[n].reshape(exact[n].shape) - exact[n]).norm()) ** 2 for n in group)
        errors.append(math.sqrt(off / max(size, 1e-24)))
    return math.nan if any(math.isnan(error) for error in errors) else max(errors)


# -- time and memory ----------
def _seconds(runner: Runner, calls: int, setting: Setting) -> float:
    runner.call()  # the caches belong to the variant before: one call to settle
    _synchronize(setting)
    start = time.perf_counter()
    for _ in range(calls):
        runner.call()
    _synchronize(setting)
    return (time.perf_counter() - start) / calls


def _synchronize(setting: Setting) -> None:
    if setting.device.type == "cuda":
        torch.cuda.synchronize()


def _resident(which: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return 1024 * int(line.split()[1])
    return 0


def _forget_peak() -> None:
    """What was needed to build the network counts no more."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak(before: int, setting: Setting) -> float:
    """Megabytes that the network's weights and its calls take, libraries not counted."""
    if setting.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return (_resident("VmHWM") - before) / 1e6
