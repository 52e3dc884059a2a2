"""The main job of ConvLoom in five chapters; `make demo` runs it. No GPU needed, about a minute on two cores.

    python examples/demo.py [folder]        # everything is written there, by default to demo_output/

1. LeNet-5 in Python, trained on real digits.      4. The lectures' filters over photographs.
2. LeNet-5 from a file that Keras saved.           5. Fused against unfused, and the kernels as files.
3. The same network as Triton kernels.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from digits import digits, shifted
from filters import apply_filters, filter_layer
from gallery import FILTERS, GREY, draw, sample_photographs
from lenet5 import lenet5
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from terminal import chapter, check, code, console, say, shown, small_images

import convloom as cl

HERE = Path(__file__).resolve().parent
KERAS = HERE / "keras_lenet5"

GOAL = 0.985
"""Share of the held-out digits that the trained network has to read."""

AGREEMENT = 1e-5
"""Of probabilities computed in float32 by different programs: sums of at most 400 terms, five layers deep."""


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo_output"))
    folder = parser.parse_args().folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a file of that name, no right to write there
        parser.error(str(error))
    torch.set_num_threads(1)  # so small a network gains nothing from a second, and loses on a busy machine
    start = time.perf_counter()
    model = train()
    imported, images = import_from_keras()
    agree(imported, images)
    filter_photographs(folder)
    kernel = compare_and_emit(model, folder)
    next_steps(folder, kernel, time.perf_counter() - start)


# -- 1 -------------------------------------------------------------------------------------------------------
def train() -> cl.Model:
    """Define LeNet-5, train it, and read digits it has never seen."""
    chapter(1, "A network in Python, trained on real digits")
    source = (HERE / "lenet5.py").read_text()
    code(source[source.index("def lenet5") : source.index("\n\n\nif __name__")])
    say("")
    torch.manual_seed(0)  # for the initial weights
    model = lenet5()
    model.summary(print_fn=lambda text: console.print(text, markup=False))
    net = cl.compile(model)
    say(f"\nCompiled for {net.options.device}: {len(net.kernels)} kernels in inference.\n")

    (x, y), (x_held, y_held) = digits()
    say(f"{len(x)} digits to train on, each also moved by two pixels four ways; {len(x_held)} held out.\n")
    start = time.perf_counter()
    for epochs, rate in ((6, 3e-3), (2, 3e-4)):
        cl.fit(
            net, shifted(x, y), "sparse_categorical_crossentropy", "adam",
            epochs=epochs, learning_rate=rate, batch_size=64, seed=0,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    right = int((net(x_held).argmax(dim=1).cpu().numpy() == y_held).sum())
    say("")
    check(
        right / len(x_held) >= GOAL,
        f"Read {right} of {len(x_held)} held-out digits: [bold]{right / len(x_held):.2%}[/] "
        f"(goal {GOAL:.1%}), after {seconds:.0f} s of training.",
    )
    return model


# -- 2 -------------------------------------------------------------------------------------------------------
def import_from_keras() -> tuple[cl.Model, np.ndarray]:
    """Load a LeNet-5 that Keras trained and saved, and compare with what Keras itself computed."""
    chapter(2, "A network from a Keras file")
    call = 'cl.load("lenet5.json", weights="lenet5.weights.h5")'
    say(f"Keras is not installed here; [bold]{call}[/] reads its files.\n")
    model = cl.load(KERAS / "lenet5.json", weights=KERAS / "lenet5.weights.h5")
    stored = np.load(KERAS / "lenet5_io.npz")
    y = cl.compile(model)(stored["x"]).cpu().numpy()
    small_images(stored["x"][..., 0], [f"{p.argmax()}  ({p.max():.0%})" for p in y])
    say("")
    gap = float(np.abs(y - stored["y"]).max())
    check(gap < AGREEMENT, f"Equal to Keras's own outputs within [bold]{gap:.1e}[/].")
    return model, stored["x"]


# -- 3 -------------------------------------------------------------------------------------------------------
def agree(model: cl.Model, images: np.ndarray) -> None:
    """Run the emitted Triton kernels on the CPU, and the same graph through PyTorch's operators."""
    chapter(3, "The same batch through the emitted Triton kernels")
    device = "cpu"  # also where there is a GPU: anybody can repeat this
    triton = cl.compile(model, backend="triton", device=device)
    aten = cl.compile(model, backend="aten", device=device)
    start = time.perf_counter()
    y = triton(images)
    seconds = time.perf_counter() - start
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for title in ("kernel", "computes", "from the layers"):
        table.add_column(title)
    for index, kernel in enumerate(triton.kernels, 1):
        table.add_row(str(index), " → ".join(kernel.ops), ", ".join(kernel.layers))
    console.print(table)
    gap = float((y - aten(images)).abs().max())
    say(f"\nRun in Triton's interpreter, which checks values and not speed: {seconds:.1f} s.")
    check(gap < AGREEMENT, f"Triton and PyTorch's operators (aten) agree within [bold]{gap:.1e}[/].")


# -- 4 -------------------------------------------------------------------------------------------------------
def filter_photographs(folder: Path) -> None:
    """Seven filters as the channels of one convolution, over two photographs."""
    chapter(4, "The lectures' filters as one convolution layer")
    photos = sample_photographs()
    code(inspect.getsource(filter_layer))
    say(f"\nThe filters: {'; '.join(f.name for f in FILTERS)}.\n")
    responses = [apply_filters(photo) for photo in photos]
    blur = [shown.name for shown in FILTERS].index("Blur")
    mean = np.lib.stride_tricks.sliding_window_view(photos[0] @ GREY, (3, 3)).mean((2, 3))
    gap = float(np.abs(responses[0][..., blur] - mean).max())
    check(gap < 1e-6, f"The blur is the mean of nine pixels, as NumPy has it, within [bold]{gap:.0e}[/].")
    draw(photos, responses, folder / "filters.png")
    say(f"  Drawn: [bold]{shown(folder / 'filters.png')}[/].")


# -- 5 -------------------------------------------------------------------------------------------------------
def compare_and_emit(model: cl.Model, folder: Path) -> Path:
    """What fusion buys, and the kernels as files; returns the one that was run by itself."""
    chapter(5, "Fused against unfused, and the kernels themselves")
    report = cl.profile(model, batch_size=32, target="sm_90", resources=True)
    console.print(report)
    report.save(folder / "profile.html")
    files = cl.emit(model, folder / "kernels", target="sm_90", batch_size=32, overwrite=True)
    kernel = next(k for k in cl.compile(model).kernels if "max_pool2d" in k.ops)
    file = next(path for path in files if path.name == f"{kernel.name}.py")
    say(f"\nThe first, as emitted, from [bold]{shown(file)}[/]\n")
    code(jitted(file.read_text()))
    say(f"\nRun by itself: [bold]python {shown(file)}[/]\n")
    run = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=300)
    console.print(Padding(Text(run.stdout.rstrip()), (0, 0, 0, 2)))
    say("")
    check(run.returncode == 0, f"It agrees with its own reference in PyTorch.{run.stderr}")
    return file


def jitted(source: str) -> str:
    """The lines of the first @triton.jit function."""
    function = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.decorator_list)
    return "\n".join(source.splitlines()[function.decorator_list[0].lineno - 1 : function.end_lineno])


def next_steps(folder: Path, kernel: Path, seconds: float) -> None:
    console.print()
    console.rule(f"[bold]Done in {seconds:.0f} s. What to look at next[/]", align="left", style="cyan")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for path, what in (
        (folder / "filters.png", "what each filter finds in the photographs"),
        (kernel, "convolution, bias, ReLU and pooling as one Triton kernel: read it, change it, run it"),
        (folder / "kernels" / "README.md", "all kernels of LeNet-5, with their FLOPs and bytes"),
        (folder / "profile.html", "fused against unfused, kernel by kernel, in a browser"),
        (HERE / "lenet5.py", "the network; change a layer and run the demo again"),
        (HERE / "README.md", "more examples: torch's own training loop, your own photographs"),
    ):
        table.add_row(f"[bold]{shown(path)}[/]", what)
    console.print(table)


if __name__ == "__main__":
    main()
