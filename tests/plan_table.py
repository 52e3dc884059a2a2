"""What the plans of whole networks cost: kernels, and bytes moved an image.

    PYTHONPATH=benchmarks python tests/plan_table.py [--rises] [NETWORK ...]      # make plan-table: all

The table lies in data/plan_table.json; its figures may only fall. --rises lets one rise that must.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import large
from convloom.graph.ir import Graph
from convloom.graph.losses import add_loss
from convloom.graph.passes.precision import with_dtype
from convloom.planning.modes import Mode
from convloom.planning.program import plan

import convloom as cl

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "data" / "plan_table.json"
BATCH = 32
MODES = ("inference", "training")
DTYPES = ("bfloat16", "float32")

Row = dict[str, int]


def application(name: str, size: int = 224) -> cl.Model:
    """A network of keras.applications at full size, from the small one's description."""
    packed = (ROOT / "tests" / "applications" / f"{name}.json.gz").read_bytes()
    description = json.loads(gzip.decompress(packed))
    head = [layer for layer in description["config"]["layers"] if layer["class_name"] == "Dense"][-1]
    head["config"] |= {"units": 1000, "activation": "softmax"}
    return cl.loads(description, input_shape=(size, size, 3))


NETWORKS: dict[str, Callable[[], cl.Model]] = {
    "ResNet-50": large.resnet50,
    "VGG-16": large.vgg16,
    "MobileNetV2": large.mobilenet_v2,
    "U-Net": partial(large.unet, 256, 64),
    "InceptionV3": partial(application, "InceptionV3", 299),
    **{n: partial(application, n) for n in ("DenseNet121", "EfficientNetB0", "ConvNeXtTiny", "NASNetMobile")},
}


def planned(graph: Graph, mode: str, dtype: str) -> Row:
    """Kernels of one call, and bytes they move an image, at a batch of 32."""
    graph = graph if dtype == "float32" else with_dtype(graph, dtype)
    loss = None
    if mode == "training":
        graph = graph.copy()
        loss = ["loss"]
        graph.outputs["loss"] = add_loss(graph, "categorical_crossentropy")
    kernels = plan(graph, Mode(training=bool(loss), backward=bool(loss)), loss=loss).regions
    return {"kernels": len(kernels), "bytes": sum(k.cost(BATCH).bytes for k in kernels) // BATCH}


def rows(name: str) -> dict[str, Row]:
    """The figures of a network in every mode and dtype."""
    graph = NETWORKS[name]().to_graph()
    return {f"{mode} {dtype}": planned(graph, mode, dtype) for mode in MODES for dtype in DTYPES}


def compare(old: dict[str, Row], new: dict[str, Row]) -> tuple[list[str], list[str]]:
    """What rose and what fell, as sentences."""
    rose: list[str] = []
    fell: list[str] = []
    for case, row in new.items():
        for figure, value in row.items():
            before = old[case][figure]
            if value != before:
                (rose if value > before else fell).append(f"{case}: {figure} {before:,} -> {value:,}")
    return rose, fell


def main(arguments: Sequence[str]) -> int:
    names = [name for name in arguments if name != "--rises"] or list(NETWORKS)
    table: dict[str, dict[str, Row]] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    refused = False
    for name in names:
        new = rows(name)
        rose, fell = compare(table.get(name, new), new)
        for sentence in (*rose, *fell):
            print(f"{name}, {sentence}")
        if rose and "--rises" not in arguments:
            refused = True
            print(f"{name} is left as it was; --rises writes it all the same")
        else:
            table[name] = new
    TABLE.write_text(json.dumps({name: table[name] for name in NETWORKS if name in table}, indent=1) + "\n")
    return int(refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
