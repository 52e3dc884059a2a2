"""ONNX Runtime and OpenVINO, which read the PyTorch twin as an ONNX file. `make bench` installs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

Session = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""A batch in, the network's only output out."""


def export(module: nn.Module, images: torch.Tensor, path: Path) -> None:
    """For batches of this size alone, which is what rivals do best."""
    torch.onnx.export(module, (images,), path, input_names=["image"], dynamo=True, verbose=False)


def onnxruntime(path: Path, threads: int) -> Session:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})[0]


def openvino(path: Path, threads: int) -> Session:
    import openvino as ov

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # without it, bfloat16 where the CPU has it
    }
    model = ov.Core().compile_model(str(path), "CPU", options)
    request = model.create_infer_request()
    return lambda images: request.infer({0: images}, share_inputs=True)[0]
