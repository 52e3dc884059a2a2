"""Read a network that Keras saved, without Keras, and see what becomes of it.

python examples/import_keras.py                                       # the LeNet-5 beside this file
python examples/import_keras.py net.json --weights net.weights.h5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import convloom as cl

LENET5 = Path(__file__).resolve().parent / "keras_lenet5"


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("network", nargs="?", type=Path, default=LENET5 / "lenet5.json")
    parser.add_argument("--weights", type=Path, default=None, help="a .weights.h5")
    options = parser.parse_args()
    own = options.network == LENET5 / "lenet5.json"
    weights = options.weights or (LENET5 / "lenet5.weights.h5" if own else None)

    try:
        model = cl.load(options.network, weights=weights)
    except cl.ConvLoomError as error:
        parser.error(str(error))
    model.summary()
    net = cl.compile(model)
    print(f"\n{len(net.kernels)} kernels; without fusion {len(cl.compile(model, fuse=False).kernels)}:")
    for kernel in net.kernels:
        print(f"  {' -> '.join(kernel.ops):<44} from {', '.join(kernel.layers)}")
    print(f"\nWhy, pass by pass:\n{net.explain()}")

    if own:
        stored = np.load(LENET5 / "lenet5_io.npz")
        gap = np.abs(net(stored["x"]).cpu().numpy() - stored["y"]).max()
        print(f"\nlargest difference from what Keras computed for 8 digits: {gap:.1e}")


if __name__ == "__main__":
    main()
