"""Compile what a GPU session launches, for a card that is not here, into TRITON_CACHE_DIR.

    python3.12 benchmarks/gpu_room.py build/room
    export PYTHONPATH=build/room TRITON_CACHE_DIR=$PWD/gpu_cache TRITON_STORE_BINARY_ONLY=1
    python3.12 benchmarks/gpu_carry.py H200

Run with the Python and the Triton that the card's machine has: Triton's keys hold both. Name the card rather
than its architecture, for schedules are chosen for the card. Carry the folder gpu_cache in the checkout, and
`gpu_session.sh` finds it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping

import gpu_bandwidth
import gpu_networks
import gpu_rivals
import gpu_training
import gpu_values
import torch
from convloom.codegen import Kernel
from convloom.codegen.machine import ahead
from convloom.graph.settings import settings
from convloom.planning.targets import target as find_target
from gpu_telling import TWELVE, Telling, kernels_of
from twins import BY_NAME

import convloom as cl


def kernels(target: str, twelve: Iterable[Telling], moving: Iterable[Callable[[], cl.Model]]) -> None:
    """The telling kernels, and those that move bytes, at the batches of their parts."""
    chip = find_target(target).gpu
    wants: dict[ahead.Wanted, object] = {}
    for batch, count in ((gpu_values.BATCH, 1), (gpu_rivals.BATCH, 2)):
        for one in twelve:
            for kernel in kernels_of(one.region(target), target, batch, count):
                wants |= _wants(kernel, batch, chip)
    for make in moving:
        for kernel in gpu_bandwidth.step_kernels(make, target, gpu_bandwidth.BATCH):
            wants |= _wants(kernel, gpu_bandwidth.BATCH, chip)
    told(ahead.prepare(wants, settings.jobs, chip).failed)


def _wants(kernel: Kernel, batch: int, chip: object) -> dict[ahead.Wanted, object]:
    nodes = (*kernel.inputs, *kernel.outputs)
    made = [torch.empty(n.type.size(batch), dtype=n.type.torch_dtype, device="meta") for n in nodes]
    return ahead.launch_wants(kernel.load(interpreted=False), kernel.functions, made, chip)  # type: ignore[arg-type]


def networks(target: str, inference: Iterable[tuple[str, int]], training: Iterable[tuple[str, int]]) -> None:
    for cases, train in ((inference, False), (training, True)):
        for name, batch in cases:
            start = time.monotonic()
            net = cl.compile(BY_NAME[name].model(), device="cpu", backend="triton", dtype="bfloat16")
            if train:
                net = net.train().with_loss("categorical_crossentropy").compiled
            try:
                net.prepare(batch, target=target)
            except cl.CompileError as error:
                told({name: str(error)})
            mode = "training" if train else "inference"
            print(f"{name} b{batch} {mode}: {time.monotonic() - start:.0f} s", flush=True)


def told(failed: Mapping[str, str]) -> None:
    for name, why in failed.items():
        print(f"{name} does not compile: {why}", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else "H200"
    kernels(wanted, TWELVE, gpu_bandwidth.CASES.values())
    networks(wanted, gpu_networks.CASES, gpu_training.CASES)
