"""What each command of the command line does. Every function takes the parsed arguments and prints."""

from __future__ import annotations

import json
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from . import __version__
from .checking import check
from .codegen.installed import triton_version
from .codegen.targets import DEVICES, TARGETS
from .frontends import Model
from .frontends.initializers import check_seed
from .frontends.keras import load
from .graph.errors import ConvLoomError
from .graph.serial import to_json
from .graph.settings import settings
from .runtime.backends import BACKENDS
from .runtime.callbacks import EarlyStopping
from .runtime.compile import DTYPE_NAMES, compile
from .runtime.emit import emit as emit_kernels
from .runtime.fit import fit
from .runtime.network import CompiledNetwork
from .runtime.plan import Mode, prepare
from .runtime.profile import machine
from .runtime.profile import profile as profile_model

CONVERTED = (".json", ".txt", ".keras", ".weights.h5", ".npz")
"""Endings of what `convert` writes."""


def info(arguments: Namespace) -> None:
    """Versions, devices, backends, targets."""
    devices = [machine(torch.device("cpu"))]
    devices += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts = {
        "convloom": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton_version(),
        "numpy": np.__version__,
        "devices": devices,
        "backends": list(BACKENDS),
        "dtypes": list(DTYPE_NAMES),
        "targets": list(TARGETS),
        "rooflines": list(DEVICES),
        "cache": str(settings.cache),
    }
    if arguments.json:
        _print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name:<10} {', '.join(value) if isinstance(value, list) else value}")


def summary(arguments: Namespace) -> None:
    """The layers, with shapes and parameters."""
    model = _load(arguments)
    if not arguments.json:
        model.summary()
        return
    layers = [
        {
            "name": model.name_of(block),
            "type": type(block).__name__,
            "outputs": [list(t.shape) for call in model.network if call.block is block for t in call.outputs],
        }
        for block in dict.fromkeys(call.block for call in model.network)
    ]
    weights = [
        {"name": s.name, "shape": list(s.weight.shape), "trainable": s.trainable} for s in model.slots()
    ]
    _print_json(
        {"name": model.name, "parameters": model.count_params(), "layers": layers, "weights": weights}
    )


def run(arguments: Namespace) -> None:
    """A batch through the network."""
    net = _compiled(_model(arguments), arguments)
    inputs = list(_arrays(arguments.input).values())
    start = time.perf_counter()
    with torch.no_grad():
        result = net(*inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    names = list(net.source.outputs)
    arrays = {name: y.float().cpu().numpy() for name, y in zip(names, outputs, strict=True)}
    seconds = time.perf_counter() - start
    if arguments.output:
        _save_arrays(Path(arguments.output), arrays)
    if arguments.json:
        shapes = {name: list(y.shape) for name, y in arrays.items()}
        _print_json({"outputs": shapes, "seconds": seconds, "file": arguments.output})
        return
    for name, y in arrays.items():
        print(f"{name}: shape {tuple(y.shape)}, mean {y.mean():.6g}, from {y.min():.6g} to {y.max():.6g}")


def train(arguments: Namespace) -> None:
    """Training on arrays from a file."""
    if arguments.seed is not None:
        torch.manual_seed(check_seed(arguments.seed, "--seed"))
    model = _model(arguments)
    data = _arrays(arguments.data)
    for name in ("x", "y"):
        if name not in data:
            raise ConvLoomError(
                f"{arguments.data} holds {', '.join(data)}; training needs arrays named x and y"
            )
    validation = (data["x_val"], data["y_val"]) if {"x_val", "y_val"} <= data.keys() else None
    if arguments.save:
        _check_weight_file(Path(arguments.save), model)
    callbacks = []
    if arguments.patience is not None:
        callbacks.append(EarlyStopping(patience=arguments.patience, restore_best_weights=True))
    net = _compiled(model, arguments)
    history = fit(
        net,
        (data["x"], data["y"]),
        arguments.loss,
        arguments.optimizer,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        validation_data=validation,
        validation_split=arguments.validation_split,
        callbacks=callbacks,
        seed=arguments.seed,
        verbose=not arguments.json,
    )
    if arguments.save:
        _save(Path(arguments.save), model)
    if arguments.json:
        _print_json({"epoch": history.epoch, "history": history.history, "weights": arguments.save})


def emit(arguments: Namespace) -> None:
    """Every kernel as a file."""
    files = emit_kernels(
        _load(arguments),
        arguments.output,
        target=arguments.target,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        training=arguments.training,
        fuse=not arguments.no_fuse,
    )
    if arguments.json:
        _print_json([str(path) for path in files])
    else:
        print("\n".join(map(str, files)))


def profile(arguments: Namespace) -> None:
    """Fused against unfused."""
    model = _model(arguments)
    with _working("compiling and measuring"):
        report = profile_model(
            model,
            batch_size=arguments.batch_size,
            device=arguments.device,
            backend=arguments.backend,
            dtype=arguments.dtype,
            target=arguments.target,
            repeats=arguments.repeats,
            resources=arguments.resources,
        )
    if arguments.html:
        page = Path(arguments.html)
        report.save(page if page.suffix else page.with_suffix(".html"))
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(report)


def convert(arguments: Namespace) -> None:
    """The graph as JSON or text, or Keras 3's files; with a check its report, and these if asked for."""
    path = Path(arguments.output) if arguments.output else None
    if path is not None and not path.name.endswith(CONVERTED):
        raise ConvLoomError(
            f"convert writes {', '.join(CONVERTED[:-1])} or {CONVERTED[-1]}, not {path.name!r}: the graph as "
            f"JSON or as text, the network as Keras 3 saves it, its weights for Keras, its weights by name"
        )
    model = _model(arguments)
    if arguments.check:
        print(check(model, arguments.check, arguments.tolerance))
        if not arguments.output:
            return
    if path is not None and path.name.endswith((".keras", ".weights.h5", ".npz")):
        _save(path, model)
        return
    graph = model.to_graph()
    if arguments.passes or arguments.training:
        graph, _, _ = prepare(graph, _mode(arguments))
    as_text = arguments.text or (path is not None and path.suffix == ".txt")
    text = (str(graph) if as_text else to_json(graph)) + "\n"
    if path is not None:
        _write(path, text)
    else:
        sys.stdout.write(text)


def explain(arguments: Namespace) -> None:
    """The decisions of passes and fusion."""
    net = compile(_load(arguments), device="cpu", backend="aten")
    print(net.train(arguments.training).explain())


# -- files -------------------------------------------------------------------------------------------------
def _model(arguments: Namespace) -> Model:
    """The network with its weights."""
    return _load(arguments, arguments.weights)


def _load(arguments: Namespace, weights: str | None = None) -> Model:
    return load(arguments.network, weights=weights, input_shape=_input_shape(arguments.input_shape))


def _input_shape(given: list[str] | None) -> Any:
    """--input-shape, once or several times: one shape, a list of them, or shapes by name."""
    if not given:
        return None
    named = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        parts = sizes.replace("x", ",").split(",")
        if not all(part.strip().isdecimal() and len(part) < 12 for part in parts):
            raise ConvLoomError(
                f"--input-shape takes sizes such as 224,224,3, or NAME=224,224,3, got {text!r:.80}"
            )
        named[name] = tuple(map(int, parts))
    if "" not in named:
        return named
    if len(given) > 1:
        raise ConvLoomError("--input-shape is given several times; say which input each is: NAME=224,224,3")
    return named[""]


def _arrays(path: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a .npy or .npz file; raises ConvLoomError where it is no such file."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ConvLoomError(f"cannot read {path}: {error.strerror or error}") from None
    except (
        ValueError,
        EOFError,
        MemoryError,  # a header may claim any size
    ) as error:  # pickled objects, which a stranger's file must not bring, among them
        raise ConvLoomError(f"{path} is no .npy or .npz file of plain arrays: {error}") from None


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    if path.suffix not in (".npy", ".npz"):
        raise ConvLoomError(f"results are saved as .npy or .npz, not as {path.name!r}")
    if path.suffix == ".npy" and len(arrays) != 1:
        raise ConvLoomError(f"the network has {len(arrays)} outputs ({', '.join(arrays)}); save them as .npz")
    try:
        if path.suffix == ".npy":
            np.save(path, next(iter(arrays.values())))
        else:
            np.savez(path, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise ConvLoomError(f"cannot write {path}: {error.strerror or error}") from None


def _check_weight_file(path: Path, model: Model) -> None:
    """Before the training, not after it: raises ConvLoomError where weights cannot be saved so."""
    if not path.name.endswith((".npz", ".weights.h5", ".keras")):
        raise ConvLoomError(f"weights are saved as .npz, .weights.h5 or .keras, not as {path.name!r}")
    if path.suffix == ".keras":
        model.to_json()  # says what Keras has no words for
    if not path.parent.is_dir():
        raise ConvLoomError(f"cannot write {path}: there is no folder {path.parent}")


def _save(path: Path, model: Model) -> None:
    """The network with its weights, or the weights alone."""
    if path.suffix == ".npz":
        _save_arrays(path, {name: value.numpy() for name, value in model.parameters.items()})
    elif path.suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConvLoomError(f"cannot write {path}: {error.strerror}") from None


# -- shared ------------------------------------------------------------------------------------------------
def _compiled(model: Model, arguments: Namespace) -> CompiledNetwork:
    return compile(model, device=arguments.device, backend=arguments.backend, dtype=arguments.dtype)


def _mode(arguments: Namespace) -> Mode:
    return Mode(training=arguments.training, backward=arguments.training)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _working(text: str) -> AbstractContextManager[Any]:
    """A sign of life on a terminal while something takes long."""
    return Console(stderr=True).status(text)
