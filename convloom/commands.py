"""What each command of the command line does. Every function takes the parsed arguments and prints."""

from __future__ import annotations

import json
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from . import __version__
from .arguments import input_shape
from .checking import check
from .codegen.machine.installed import triton_version
from .frontends import Model
from .frontends.keras import load
from .graph.errors import ConvLoomError
from .graph.serial import to_json
from .graph.settings import settings
from .planning.modes import Mode
from .planning.program import plan
from .planning.targets import DEVICES, TARGETS
from .reading import read_batch, read_training_data
from .runtime.backends import BACKENDS
from .runtime.callbacks import EarlyStopping
from .runtime.checkpoints.settings import Checkpoints
from .runtime.compile import DTYPE_NAMES, compile
from .runtime.distributed import processes, take_gpu
from .runtime.emit import kernel_texts
from .runtime.fit import fit
from .runtime.folder import write_files
from .runtime.history import History
from .runtime.memory import status as memory_status
from .runtime.names import Names
from .runtime.network import CompiledNetwork
from .runtime.profile import machine
from .runtime.profile import profile as profile_model

WEIGHTS = (".keras", ".weights.h5", ".npz")
"""Endings of files that hold weights."""
CONVERTED = (".json", ".txt", *WEIGHTS)
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
        "keeps memory": memory_status(),
    }
    if arguments.json:
        _print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name:<12} {', '.join(value) if isinstance(value, list) else value}")


def summary(arguments: Namespace) -> None:
    """The layers, with shapes and parameters."""
    model = _architecture(arguments)
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
    net = _compiled(_weighted(arguments, "what it computes"), arguments)
    names = list(net.source.outputs)
    if arguments.output and arguments.output.suffix == ".npy" and len(names) != 1:
        raise ConvLoomError(f"the network has {len(names)} outputs ({', '.join(names)}); save them as .npz")
    given = read_batch(arguments.input, net.input_nodes, arguments.resize, arguments.scale)
    _note(given.notes)
    start = time.perf_counter()
    with torch.no_grad():
        result = net(given.arrays)
    outputs = result if isinstance(result, tuple) else (result,)
    arrays = {name: y.float().cpu().numpy() for name, y in zip(names, outputs, strict=True)}
    seconds = time.perf_counter() - start
    if arguments.output:
        _save_arrays(arguments.output, arrays)
    if arguments.json:
        shapes = {name: list(y.shape) for name, y in arrays.items()}
        _print_json({"outputs": shapes, "seconds": seconds, "file": _text(arguments.output)})
        return
    for name, y in arrays.items():
        print(f"{name}: shape {tuple(y.shape)}, mean {y.mean():.6g}, from {y.min():.6g} to {y.max():.6g}")
    if arguments.output:
        count = len(next(iter(arrays.values())))
        _wrote(arguments.output, f"{', '.join(names)} of {count} example{'s' if count != 1 else ''}")


def train(arguments: Namespace) -> None:
    """Training on arrays from a file."""
    if arguments.checkpoint_steps and not arguments.checkpoint:
        raise ConvLoomError("--checkpoint-steps goes with --checkpoint DIR")
    take_gpu()
    if arguments.seed is not None:
        torch.manual_seed(arguments.seed)
    model = _model(arguments)
    if arguments.save and arguments.save.suffix == ".keras":
        model.to_json()  # before the training, not after it: says what Keras has no words for
    net = _compiled(model, arguments)
    data, validation, notes = read_training_data(
        arguments.data, net.input_nodes, Names.of(net).outputs, arguments.scale
    )
    if validation is not None and arguments.validation_split:
        raise ConvLoomError(
            f"{arguments.data} has arrays to validate on (y_val); leave --validation-split out"
        )
    _note(notes)
    callbacks = []
    if arguments.patience is not None:
        callbacks.append(EarlyStopping(patience=arguments.patience, restore_best_weights=True))
    history = fit(
        net,
        data,
        loss=arguments.loss,
        optimizer=arguments.optimizer,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        validation_data=validation,
        validation_split=arguments.validation_split,
        callbacks=callbacks,
        seed=arguments.seed,
        verbose=not arguments.json,
        checkpoint=arguments.checkpoint
        and Checkpoints(arguments.checkpoint, steps=arguments.checkpoint_steps),
        debug_nan=arguments.debug_nan,
        sync_batch_norm=arguments.sync_batch_norm,
    )
    if processes(net.options.device).is_first:
        _report(arguments, model, history)
    if history.interrupted:
        goes_on = f"; the same command goes on from {arguments.checkpoint}" if arguments.checkpoint else ""
        _note([f"{history.interrupted} ended the training after a step{goes_on}"])
        raise KeyboardInterrupt


def _report(arguments: Namespace, model: Model, history: History) -> None:
    """Save and say what a training came to."""
    if arguments.save:
        _save(arguments.save, model)
    if arguments.json:
        _print_json({"epoch": history.epoch, "history": history.history, "weights": _text(arguments.save)})
    elif arguments.save:
        _wrote(arguments.save, _contents(arguments.save, model))
    if not arguments.save and not arguments.checkpoint:
        _note(["the new weights were not kept; --save W does that"])


def emit(arguments: Namespace) -> None:
    """Every kernel as a file."""
    texts = kernel_texts(
        _architecture(arguments),
        target=arguments.target,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        training=arguments.training,
        fuse=not arguments.no_fuse,
    )
    folder = Path(arguments.output)
    written = write_files(folder, texts, arguments.overwrite)
    if arguments.json:
        listed = {name: [str(path) for path in paths] for name, paths in vars(written).items()}
        _print_json({"folder": str(folder), **listed})
        return
    print("\n".join(map(str, written.files)))
    kernels = sum(path.suffix == ".py" for path in written.files)
    _wrote(folder, f"{kernels} kernel{'s' if kernels != 1 else ''}, with an index, README.md, and graph.txt")
    for paths, what in (
        (written.removed, "removed, of an earlier emit"),
        (written.kept, "of an earlier emit, but changed since; left where they are"),
    ):
        if paths:
            print(f"{what}: {', '.join(path.name for path in paths)}")


def profile(arguments: Namespace) -> None:
    """Fused against unfused."""
    model = _model(arguments) if arguments.weights else _architecture(arguments)
    with _working("compiling and measuring"):
        report = profile_model(
            model,
            batch_size=arguments.batch_size,
            training=arguments.training,
            loss=arguments.loss,
            optimizer=arguments.optimizer,
            device=arguments.device,
            backend=arguments.backend,
            dtype=arguments.dtype,
            target=arguments.target,
            repeats=arguments.repeats,
            resources=arguments.resources,
        )
    if arguments.html:
        report.save(arguments.html)
    if arguments.json:
        _print_json(report.to_dict())
        return
    print(report)
    if arguments.html:
        _wrote(arguments.html, "the report")


def convert(arguments: Namespace) -> None:
    """The graph as JSON or text, or Keras 3's files; with a check its report, and these if asked for."""
    path = Path(arguments.output) if arguments.output else None
    if path is not None and not path.name.endswith(CONVERTED):
        raise ConvLoomError(
            f"convert writes {', '.join(CONVERTED[:-1])} or {CONVERTED[-1]}, not {path.name!r}: the graph as "
            f"JSON or as text, the network as Keras 3 saves it, its weights for Keras, its weights by name"
        )
    to_weights = path is not None and path.name.endswith(WEIGHTS)
    if to_weights and (arguments.text or arguments.passes or arguments.training):
        raise ConvLoomError("--text, --passes and --training are about a graph: -o FILE.json or FILE.txt")
    if arguments.text and path is not None and path.suffix != ".txt":
        raise ConvLoomError(f"--text writes .txt, not {path.name!r}; leave it out for JSON")
    if arguments.check or to_weights:
        model = _weighted(arguments, "what is checked" if arguments.check else "what is saved")
    else:
        model = _model(arguments) if arguments.weights else _architecture(arguments)
    if arguments.check:
        print(check(model, arguments.check, arguments.tolerance))
        if not arguments.output:
            return
    if path is not None and to_weights:
        _save(path, model)
        _wrote(path, _contents(path, model))
        return
    graph = model.to_graph()
    if arguments.passes or arguments.training:
        graph = plan(graph, _mode(arguments)).graph
    as_text = arguments.text or (path is not None and path.suffix == ".txt")
    text = (str(graph) if as_text else to_json(graph)) + "\n"
    if path is not None:
        _write(path, text)
        _wrote(path, f"the graph, {len(graph)} nodes, {'as text' if as_text else 'without weights'}")
    else:
        sys.stdout.write(text)


def explain(arguments: Namespace) -> None:
    """The decisions of passes and fusion."""
    net = compile(_architecture(arguments), device="cpu", backend="aten")
    print(net.train(arguments.training).explain())


# -- files -------------------------------------------------------------------------------------------------
def _model(arguments: Namespace) -> Model:
    """The network with its weights, or with initial ones where a .json has none or they are asked for."""
    return load(
        arguments.network,
        weights=arguments.weights,
        input_shape=input_shape(arguments.input_shape),
        architecture_only=arguments.random_weights,
    )


def _weighted(arguments: Namespace, what: str) -> Model:
    """The network with weights that somebody gave it; raises ConvLoomError where they would be random.

    what: would be so too.
    """
    model = _model(arguments)
    if model.parameters.undrawn and not arguments.random_weights:
        raise ConvLoomError(
            f"{arguments.network} has no weights, and {what} would be random; give --weights W, or "
            f"--random-weights if that is what you want"
        )
    return model


def _architecture(arguments: Namespace) -> Model:
    """The network for a purpose that its weights play no part in: they are not read."""
    shape = input_shape(arguments.input_shape)
    return load(arguments.network, input_shape=shape, architecture_only=True)


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    try:
        if path.suffix == ".npy":
            np.save(path, next(iter(arrays.values())))
        else:
            np.savez(path, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise ConvLoomError(f"cannot write {path}: {error.strerror or error}") from None


def _save(path: Path, model: Model) -> None:
    """The network with its weights, or the weights alone."""
    if path.suffix == ".npz":
        _save_arrays(path, {name: value.numpy() for name, value in model.parameters.items()})
    elif path.suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)


def _contents(path: Path, model: Model) -> str:
    """What `_save` writes, in words."""
    what = "the network with its weights" if path.suffix == ".keras" else "the weights"
    return f"{what}, {model.count_params():,} parameters"


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


def _wrote(path: Path, what: str) -> None:
    print(f"wrote {path}: {what}")


def _note(lines: Sequence[str]) -> None:
    """What a person should know beside the result; what stdout holds is for a machine too."""
    for line in lines:
        print(f"convloom: {line}", file=sys.stderr)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _working(text: str) -> AbstractContextManager[Any]:
    """A sign of life on a terminal while something takes long."""
    return Console(stderr=True).status(text)
