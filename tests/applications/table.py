"""The page docs/applications.md from what the sweep measured: python tests/applications/table.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from networks import APPLICATIONS

ROOT = Path(__file__).resolve().parents[2]

TEXT = """# keras.applications

Networks of keras.applications, built by Keras with random weights (batch-norm statistics too), saved as
JSON and `.weights.h5`, read by ConvLoom without Keras and run in float32 on the aten backend. Made by
`make test-applications`.

- image: height and width, reduced so that a CPU is enough. Only VGG's parameters depend on it.
- layers: calls of layers, those inside nested models once for each model.
- ops: of the graph as read and after the rewrites (folded batch norms and their like), without weights,
  views, and what is computed once from weights alone.
- kernels: with fusion and without.
- difference: largest difference of an output from Keras's, of the largest output; with and without the
  classifier (include_top).
  VGG without it is convolutions and max pooling, which both sides hand to the same PyTorch kernels: 0.
- load: processor seconds for reading JSON and weights (of the form with the classifier).

| network | image | parameters | layers | ops | after rewrites | kernels fused | unfused | difference | \
without top | load, CPU s |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def line(name: str, row: dict[str, Any]) -> str:
    top, bare = row["top"], row["notop"]
    keys = ("layers", "ops", "ops_after", "fused", "unfused")
    counts = (f"{top[key]:,}" if key in top else "" for key in keys)
    return (
        f"| {name} | {row['size']} | {top['parameters']:,} | {' | '.join(counts)} | "
        f"{top['difference']:.1e} | {bare['difference']:.1e} | {top['seconds']:.2f} |"
    )


def page() -> str:
    rows, missing = [], []
    for application in APPLICATIONS:
        measured = ROOT / "build" / "applications" / f"{application.name}.json"
        if measured.exists():
            rows.append(line(application.name, json.loads(measured.read_text())))
        else:
            missing.append(application.name)
    rest = f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""
    return TEXT + "\n".join(rows) + "\n" + rest


if __name__ == "__main__":
    (ROOT / "docs" / "applications.md").write_text(page())
    print(page())
