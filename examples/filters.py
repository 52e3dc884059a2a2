"""The lectures' image filters as one convolution layer over a photograph.

python examples/filters.py                      # scikit-learn's two photographs
python examples/filters.py mine.jpg -o mine.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from gallery import FILTERS, GREY, draw, photograph, sample_photographs

import convloom as cl
from convloom import layers as L


def filter_layer(height: int, width: int) -> cl.Model:
    """(height, width, 1) -> (height - 2, width - 2, filters): a filter is an output channel of one layer."""
    image = cl.Input((height, width, 1), name="photograph")
    responses = L.Conv2D(len(FILTERS), 3, use_bias=False, name="filters")(image)
    model = cl.Model(image, responses, name="image_filters")
    model.set_weights([np.stack([f.kernel for f in FILTERS], axis=-1)[:, :, None, :]])
    return model


def apply_filters(photo: np.ndarray) -> np.ndarray:
    """(height, width, 3) colours in [0, 1] -> (height - 2, width - 2, filters) responses."""
    grey = (photo @ GREY).astype(np.float32)
    net = cl.compile(filter_layer(*grey.shape))
    return net(grey[None, :, :, None])[0].cpu().numpy()


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("photographs", nargs="*", type=Path, help="at most two; default scikit-learn's")
    parser.add_argument("-o", "--output", type=Path, default=Path("filters.png"))
    options = parser.parse_args()
    try:
        photos = [photograph(path) for path in options.photographs[:2]] or sample_photographs()
        draw(photos, [apply_filters(photo) for photo in photos], options.output)
    except OSError as error:  # no such file, no picture, no place to write to
        parser.error(str(error))
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
