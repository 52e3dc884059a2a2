"""The command line: `convloom info | summary | run | train | emit | profile | convert | explain`.

Wrong input ends with one line on stderr and exit status 2; CONVLOOM_DEBUG=1 shows the whole traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from . import __version__, commands
from .arguments import Parser, choice, integer, output, real, report, tolerance
from .checking import TOLERANCE
from .graph.errors import ConvLoomError, unknown
from .graph.settings import settings
from .graph.words import AT_THE_SHELL
from .planning.targets import target as find_target
from .runtime.backends import BACKENDS
from .runtime.compile import DTYPE_NAMES

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 2 wrong input, 130 interrupted."""
    asked_here = AT_THE_SHELL.set(True)
    try:
        arguments = _parsed(sys.argv[1:] if argv is None else list(argv))
        command: Command = arguments.command
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            command(arguments)
        sys.stdout.flush()
    except ConvLoomError as error:
        if _debugging():
            traceback.print_exc()
        print(f"convloom: error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("convloom: interrupted", file=sys.stderr)
        return 130
    finally:
        AT_THE_SHELL.reset(asked_here)
    return 0


def _parsed(argv: list[str]) -> argparse.Namespace:
    if not argv:
        raise ConvLoomError(f"no command is given; there are {', '.join(COMMANDS)}; see convloom --help")
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise ConvLoomError(unknown("command", argv[0], COMMANDS))
    return parser().parse_args(argv)


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    """What is wrong, without the line of source that saw it."""
    print(f"convloom: warning: {_one_line(str(message))}", file=sys.stderr)


def _one_line(text: str) -> str:
    """Without line ends, and without what a terminal would obey rather than show."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def _debugging() -> bool:
    try:
        return settings.debug > 0
    except ConvLoomError:  # CONVLOOM_DEBUG itself is wrong, and is being reported
        return False


COMMANDS = ("info", "summary", "run", "train", "emit", "profile", "convert", "explain")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="convloom", description="Compile convolutional networks to readable, fused Triton kernels."
    )
    top.add_argument("--version", action="version", version=f"convloom {__version__}")
    made = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    info = _add(made, "info", commands.info, "versions, devices, backends and targets", network=False)
    _json(info)

    _json(_add(made, "summary", commands.summary, "the layers of a network, with shapes and parameters"))

    run = _add(made, "run", commands.run, "run a network on a batch")
    _weights(run)
    run.add_argument(
        "--input",
        required=True,
        metavar="X",
        help="the batch: .npy; .npz, with the arrays of several inputs by their names, or x0, x1, ..; or an "
        "image, for which Pillow must be installed",
    )
    run.add_argument("--resize", action="store_true", help="an image to the size that the network takes")
    _scale(run)
    run.add_argument(
        "--output",
        metavar="Y.npy",
        type=output("--output", "results are saved", (".npy", ".npz")),
        help="where the result goes: .npy, or .npz for several outputs",
    )
    _compile_options(run)
    _json(run)

    train = _add(made, "train", commands.train, "train a network on arrays")
    _weights(train)
    train.add_argument(
        "--data",
        required=True,
        metavar="D.npz",
        help="the arrays x and y, and x_val and y_val if there; for several inputs or outputs their names, "
        "or x0, x1, .., and y0, y1, ..",
    )
    _scale(train)
    train.add_argument("--loss", required=True, help="for example sparse_categorical_crossentropy or mse")
    train.add_argument("--optimizer", default="adam", help="adam (default), sgd, or another of Keras's names")
    train.add_argument(
        "--learning-rate",
        type=real("--learning-rate", above=0),
        metavar="R",
        help="instead of the optimizer's default",
    )
    train.add_argument(
        "--epochs",
        type=integer("--epochs", 0),
        default=1,
        metavar="N",
        help="passes over the data (default: 1)",
    )
    _batch_size(train)
    train.add_argument(
        "--validation-split",
        type=real("--validation-split", least=0, below=1),
        default=0.0,
        metavar="F",
        help="last fraction kept to validate on",
    )
    train.add_argument(
        "--patience",
        type=integer("--patience", 0),
        metavar="N",
        help="stop after N epochs without a better val_loss",
    )
    train.add_argument(
        "--seed",
        type=integer("--seed", -(2**63), 2**64 - 1),
        metavar="N",
        help="of initial weights, shuffling and dropout",
    )
    train.add_argument(
        "--save",
        metavar="W",
        type=output("--save", "weights are saved", commands.WEIGHTS),
        help="where the weights go: .keras, .weights.h5 or .npz",
    )
    train.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="a folder that keeps the run: the same command, given again, goes on where it stood",
    )
    train.add_argument(
        "--checkpoint-steps",
        type=integer("--checkpoint-steps", 1),
        metavar="N",
        help="keep it every N steps too, beside every epoch and every 10 minutes",
    )
    train.add_argument(
        "--debug-nan", action="store_true", help="name the layer and the op that make the first NaN"
    )
    train.add_argument(
        "--sync-batch-norm",
        action="store_true",
        help="under torchrun: batch norms over the batches of all processes",
    )
    _compile_options(train)
    _json(train)

    emit = _add(made, "emit", commands.emit, "write every kernel as a file that runs by itself")
    emit.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder")
    emit.add_argument(
        "--target",
        type=_target,
        default="sm_90",
        metavar="GPU",
        help="a card, such as H100, or an architecture, such as sm_80 or gfx942 (default: sm_90)",
    )
    _dtype(emit, DTYPE_NAMES[:-1])
    emit.add_argument(
        "--batch-size",
        type=integer("--batch-size", 1),
        metavar="N",
        help="that the index counts for (default: 1)",
    )
    emit.add_argument(
        "--overwrite", action="store_true", help="also files that were changed, or that something else wrote"
    )
    emit.add_argument("--no-fuse", action="store_true", help="one kernel an op")
    _training(emit)
    _json(emit)

    profile = _add(made, "profile", commands.profile, "measure a network fused and unfused, kernel by kernel")
    _weights(profile)
    _batch_size(profile)
    profile.add_argument(
        "--target",
        type=_target,
        metavar="GPU",
        help="for the roofline: a card, such as H100, or an architecture (default: the GPU at hand)",
    )
    profile.add_argument(
        "--repeats", type=integer("--repeats", 1), metavar="N", help="how often each kernel is timed"
    )
    profile.add_argument(
        "--resources", action="store_true", help="compile for the target: registers, shared memory"
    )
    profile.add_argument("--training", action="store_true", help="a training step rather than inference")
    profile.add_argument("--loss", help="of the training step, such as categorical_crossentropy")
    profile.add_argument("--optimizer", default="adam", help="of the training step (default: adam)")
    profile.add_argument("--html", metavar="FILE", type=report, help="also write the report as a page")
    _compile_options(profile)
    _json(profile)

    convert = _add(made, "convert", commands.convert, "a network in another form, and its self-check")
    convert.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="instead of stdout: .json or .txt for the graph, .keras for the network as Keras 3 saves it, "
        ".weights.h5 or .npz for its weights",
    )
    convert.add_argument("--text", action="store_true", help="text to read rather than JSON")
    convert.add_argument(
        "--passes", action="store_true", help="the graph after the passes rather than before"
    )
    _training(convert)
    _weights(convert)
    convert.add_argument(
        "--check", metavar="IO.npz", help="replay stored inputs x, x0, .. and outputs y, y0, .. and report"
    )
    convert.add_argument(
        "--tolerance",
        type=tolerance,
        default=TOLERANCE,
        metavar="T",
        help="of --check, relative (default: 1e-4)",
    )

    explain = _add(made, "explain", commands.explain, "what each pass matched and refused, and why")
    _training(explain)
    return top


# -- shared options ----------------------------------------------------------------------------------------
def _add(made: Any, name: str, command: Command, text: str, network: bool = True) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = made.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    if network:
        added.add_argument(
            "network",
            metavar="NET",
            help="a saved Keras model: .json, .keras or .h5; or a graph that `convert` wrote",
        )
        added.add_argument(
            "--input-shape",
            action="append",
            metavar="H,W,C",
            help="sizes of an input that NET leaves open, or wants otherwise; NAME=H,W,C for one of several",
        )
    added.set_defaults(command=command)
    return added


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON for a machine to read")


def _weights(command: argparse.ArgumentParser) -> None:
    either = command.add_mutually_exclusive_group()
    either.add_argument(
        "--weights", metavar="W", help="the weights: .weights.h5, .h5, .keras, or .npz as `train` saves them"
    )
    either.add_argument(
        "--random-weights", action="store_true", help="initial weights, whatever NET has of its own"
    )


def _scale(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scale",
        type=real("--scale"),
        metavar="S",
        help="multiply the inputs by S, as float32: 1/255 brings 8-bit images to 0 to 1",
    )


def _batch_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--batch-size", type=integer("--batch-size", 1), default=32, metavar="N", help="(default: 32)"
    )


def _training(command: argparse.ArgumentParser) -> None:
    command.add_argument("--training", action="store_true", help="a training step, backward pass included")


def _dtype(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    command.add_argument(
        "--dtype",
        type=choice("--dtype", names),
        metavar="D",
        help=f"{', '.join(names)} (default: float32, or what the file's mixed policies say)",
    )


def _compile_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="cuda, cpu or auto (default: auto)")
    backends = (*BACKENDS, "auto")
    command.add_argument(
        "--backend",
        default="auto",
        type=choice("--backend", backends),
        metavar="B",
        help=f"{', '.join(backends)} (default: auto)",
    )
    _dtype(command, DTYPE_NAMES)


def _target(text: str) -> str:
    find_target(text)  # raises for an unknown one
    return text
