"""The handwritten digits that ship inside scikit-learn: 1797 real images, and a fifth of them held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

SEED = 0
MOST_INK = 16.0


def interpolation(size: int, result: int) -> NDArray[np.float64]:
    """The (result, size) matrix of linear interpolation with half-pixel centres, clamped at the edges."""
    centre = np.clip((np.arange(result) + 0.5) * size / result - 0.5, 0, size - 1)
    left = np.minimum(centre.astype(int), size - 2)
    weight = centre - left
    matrix = np.zeros((result, size))
    rows = np.arange(result)
    matrix[rows, left] = 1 - weight
    matrix[rows, left + 1] = weight
    return matrix


def digits(size: int = 28, seed: int = SEED) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """((x, y) to train on, (x, y) held out): images (n, size, size, 1) in [0, 1], and the digits they show.

    The held-out fifth has as many of each digit as the rest has, in proportion. seed: of that choice.
    """
    data = load_digits()
    matrix = interpolation(8, size)
    images = (matrix @ (data.images / MOST_INK) @ matrix.T)[..., None].astype(np.float32)
    x, x_held, y, y_held = train_test_split(
        images, data.target, test_size=0.2, stratify=data.target, random_state=seed
    )
    return (x, y), (x_held, y_held)


def shifted(x: Images, y: Labels, by: int = 2) -> tuple[Images, Labels]:
    """Every image five times: as it is, and moved by `by` pixels both ways, to each of the four corners."""
    height, width = x.shape[1:3]
    framed = np.pad(x, ((0, 0), (by, by), (by, by), (0, 0)))
    far = 2 * by
    corners = [(by, by), (0, 0), (0, far), (far, 0), (far, far)]
    return (
        np.concatenate([framed[:, top : top + height, left : left + width] for top, left in corners]),
        np.tile(y, len(corners)),
    )
