"""Write what ConvLoom prints today into README.md and the pages here: `python docs/make_pages.py`.

The pages hold blocks between `<!-- begin NAME -->` and `<!-- end -->`; each is made anew by the function of
that name below. A test checks that the pages are up to date.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from pathlib import Path

from convloom.codegen import Kernel
from convloom.frontends.activations import ACTIVATIONS
from convloom.frontends.keras.functions import FUNCTIONS
from convloom.frontends.layers import DECLARATIONS, Layer
from convloom.frontends.operations import OPERATIONS, Operation

import convloom as cl
from convloom import layers as L

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / folder) for folder in ("benchmarks", "docs", "tests")]
import compiled  # noqa: E402
import reports  # noqa: E402
import tables  # noqa: E402
import walked  # noqa: E402

PAGES = [
    *(ROOT / "README.md", ROOT / "docs" / "architecture.md", ROOT / "docs" / "keras.md"),
    *(ROOT / "docs" / "kernels.md", ROOT / "docs" / "gates.md"),
    ROOT / "benchmarks" / "results" / "README.md",
]
MEASURED = ROOT / "benchmarks" / "results" / "cpu.json"
BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def lenet5() -> cl.Model:
    """The network of the README."""
    image = cl.Input((28, 28, 1), name="image")
    h = L.Conv2D(6, 5, padding="same", activation="relu")(image)
    h = L.MaxPooling2D(2)(h)
    h = L.Conv2D(16, 5, activation="relu")(h)
    h = L.MaxPooling2D(2)(h)
    h = L.Dense(120, activation="relu")(L.Flatten()(h))
    h = L.Dense(84, activation="relu")(h)
    return cl.Model(image, L.Dense(10, activation="softmax")(h), name="lenet5")


def tiny() -> cl.Model:
    """The network of the architecture page."""
    image = cl.Input((28, 28, 1), name="image")
    h = L.Conv2D(6, 5, padding="same", name="conv")(image)
    h = L.BatchNormalization(name="norm")(h)
    h = L.MaxPooling2D(2, name="pool")(L.ReLU(name="relu")(h))
    out = L.Dense(10, activation="softmax", name="classes")(L.Flatten(name="flat")(h))
    return cl.Model(image, out, name="tiny")


def jitted(kernel: Kernel) -> str:
    """The first jitted function of a kernel's file."""
    match = re.search(r"@triton\.jit.*?(?=\n\n\n)", kernel.source, re.DOTALL)
    return match[0] if match else ""


def fenced(text: str, language: str = "") -> str:
    return f"```{language}\n{text.strip()}\n```\n"


def kernel() -> str:
    return fenced(jitted(cl.compile(lenet5()).kernels[0]), "python")


def comparison() -> str:
    """LeNet-5 fused and unfused: what follows from the graph, so that it is the same on every machine."""
    fused = cl.compile(lenet5()).program.regions
    unfused = cl.compile(lenet5(), fuse=False).program.regions
    batch = 32
    lines = [
        "| kernel | ops in it | kernels | MB moved, batch 32 | FLOPs a byte |",
        "|---|---|--:|--:|--:|",
    ]
    for region in fused:
        cost = region.cost(batch)
        ops = " → ".join(node.op.op_name() for node in region.nodes)
        lines.append(f"| `{region.name}` | {ops} | 1 | {cost.bytes / 1e6:.2f} | {cost.intensity:.1f} |")
    moved = [sum(region.cost(batch).bytes for region in side) / 1e6 for side in (fused, unfused)]
    work = [sum(region.cost(batch).flops for region in side) / 1e6 for side in (fused, unfused)]
    lines.append(f"| **fused** | | **{len(fused)}** | **{moved[0]:.2f}** | **{work[0] / moved[0]:.1f}** |")
    total = f"| **{len(unfused)}** | **{moved[1]:.2f}** | **{work[1] / moved[1]:.1f}** |"
    lines.append(f"| **unfused** | one op a kernel {total}")
    return "\n".join(lines) + "\n"


def graph() -> str:
    return fenced(str(tiny().to_graph()))


def folded() -> str:
    return fenced(str(cl.compile(tiny()).graph))


def explained() -> str:
    text = cl.compile(tiny()).explain()
    return fenced(text[text.index("fusion:") :])


def program() -> str:
    return fenced(str(cl.compile(tiny()).program))


def training() -> str:
    net = cl.compile(tiny()).train()
    regions = net.with_loss("categorical_crossentropy").program.regions
    width = max(len(region.phase) for region in regions)
    return fenced(
        "\n".join(
            f"{region.phase:{width}}  {' -> '.join(n.op.op_name() for n in region.nodes)}"
            for region in regions
        )
    )


def emitted() -> str:
    return fenced(jitted(cl.compile(tiny()).kernels[0]), "python")


# -- what is read of Keras -----------------------------------------------------------------------------------
def limits() -> str:
    """The bounds of `Limits` with their defaults, and what its docstring says of them."""
    lines = ["| limit | default |", "|---|--:|"]
    lines += [f"| `{field.name}` | {field.default:,} |" for field in fields(cl.Limits)]
    text = textwrap.dedent("    " + (cl.Limits.__doc__ or "").split("\n\n", 1)[1].strip())
    return "\n".join(lines) + "\n\n" + fenced(text, "text")


def signature(declaration: type[Layer]) -> str:
    """The arguments of a layer, with their defaults."""
    own = [field for field in fields(declaration) if not field.kw_only]
    shown = [f.name if f.default is MISSING else f"{f.name}={f.default!r}" for f in own]
    return f"`{', '.join(shown)}`" if shown else ""


def ours(found: Iterable[tuple[str, type[Layer]]]) -> list[tuple[str, type[Layer]]]:
    """Without those that somebody declared beside ConvLoom's own."""
    return sorted(pair for pair in found if pair[1].__module__.startswith("convloom."))


def first_line(declaration: type[Layer]) -> str:
    return (declaration.__doc__ or "").split("\n")[0].replace("|", "\\|")


def layer_table() -> str:
    lines = ["| layer | arguments | |", "|---|---|---|"]
    for name, declaration in ours(DECLARATIONS.items()):
        lines.append(f"| `{name}` | {signature(declaration)} | {first_line(declaration)} |")
    return "\n".join(lines) + "\n"


def operation_table() -> str:
    lines = ["| operation | of a call | arguments | |", "|---|---|---|---|"]
    for name, declaration in ours(OPERATIONS.items()):
        assert issubclass(declaration, Operation)
        called = ", ".join(operand.replace("?", "=None") for operand in declaration.operands)
        lines.append(f"| `{name}` | `{called}` | {signature(declaration)} | {first_line(declaration)} |")
    return "\n".join(lines) + "\n"


def listed(found: Iterable[str]) -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in sorted(found)), 110) + "\n"


def activation_names() -> str:
    return listed(ACTIVATIONS)


def function_names() -> str:
    return listed(FUNCTIONS)


# -- what was measured ---------------------------------------------------------------------------------------
def measured() -> str:
    return tables.summary(reports.read(MEASURED))


def measurements() -> str:
    return tables.details(reports.read(MEASURED))


def method() -> str:
    return textwrap.fill(f"{reports.read(MEASURED)['environment']['method']}.", 110) + "\n"


MAKERS: dict[str, Callable[[], str]] = {
    maker.__name__: maker
    for maker in (
        *(kernel, comparison, graph, folded, explained, program, training, emitted),
        *(limits, layer_table, operation_table, activation_names, function_names),
        *(measured, measurements, method),
        *walked.BLOCKS,
        *compiled.BLOCKS,
    )
}


def render(text: str) -> str:
    """The page with every block made anew."""
    return BLOCK.sub(lambda match: match[1] + MAKERS[match[2]]() + match[3], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
