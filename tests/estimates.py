"""What the cost model says of whole networks, beside their plans' roofline: estimates, never measured.

    PYTHONPATH=benchmarks python tests/estimates.py [NETWORK ...]      # a part of make gates

They lie in data/gates.json, and docs/gates.md shows them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import gates
from convloom.planning.roofline import KernelEstimate, estimate

CARD = "H200"
NETWORKS = ("ResNet-50", "VGG-16", "MobileNetV2", "U-Net")
CASES = (
    *((name, "inference", batch) for name in NETWORKS for batch in (32, 256)),
    ("ResNet-50", "training", 256),
)
WANTED = 1.35
"""Times its roofline that a plan should take at most."""


def estimated(name: str, mode: str, batch: int) -> dict[str, Any]:
    """One network's figures, in microseconds, with the kernels that lie far above their roofline."""
    found = estimate(gates.program_of(name, mode, "bfloat16", CARD), CARD, batch)
    return {
        "us": round(1e6 * found.seconds, 1),
        "roofline us": round(1e6 * found.roofline, 1),
        "kernels": len(found.kernels),
        "far": [_told(kernel) for kernel in found.far()],
    }


def _told(kernel: KernelEstimate) -> dict[str, Any]:
    return {
        "region": kernel.region,
        "layer": kernel.layers[-1] if kernel.layers else "",
        "form": kernel.form,
        "schedule": kernel.schedule,
        "us": round(1e6 * kernel.seconds, 1),
        "roofline us": round(1e6 * kernel.roofline, 1),
        "reason": kernel.reason,
    }


def main(names: Sequence[str]) -> None:
    for name, mode, batch in CASES:
        if not names or name in names:
            found = estimated(name, mode, batch)
            gates.write("estimates", f"{name} {mode} {batch}", found)
            ratio = f"{found['us'] / found['roofline us']:.2f} times its roofline"
            print(f"{name} {mode} {batch}: {ratio}, {len(found['far'])} far", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
