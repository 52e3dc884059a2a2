"""How a window slides along an axis, against the relation itself."""

from __future__ import annotations

from itertools import product

import pytest
from convloom.planning.sliding import Slide


@pytest.mark.parametrize("taps", [1, 2, 3, 5])
def test_every_output_meets_its_taps_in_one_step(taps: int) -> None:
    for stride, dilation, padding, size in product((1, 2, 3, 4), (1, 2, 3, 6), (0, 1, 4), (5, 13)):
        made = (size + 2 * padding - (taps - 1) * dilation - 1) // stride + 1
        if made < 1:
            continue
        pairs = {(o, o * stride - padding + k * dilation, k) for o in range(made) for k in range(taps)}
        inside = {(o, u, k) for o, u, k in pairs if 0 <= u < size}
        forward = Slide(made, size, taps, stride, dilation, padding)
        backward = Slide(size, made, taps, stride, dilation, padding, transposed=True)
        assert _met_forward(forward) == inside
        assert {(o, u, k) for u, o, k in _met_backward(backward)} == inside


def _met_forward(d: Slide) -> set[tuple[int, int, int]]:
    found = [
        (d.first_output(c, i), d.first_source(c, i) + k * d.source_spacing, k)
        for c, i, k in product(range(d.classes), range(d.steps), range(d.taps))
    ]
    kept = [(o, u, k) for o, u, k in found if o < d.outputs and 0 <= u < d.source]
    assert len(set(kept)) == len(kept)
    return set(kept)


def _met_backward(d: Slide) -> set[tuple[int, int, int]]:
    """(output, source, tap); every output is made once, and those that meet no tap are made too."""
    met, made = set(), []
    for c, i, f in product(range(d.classes), range(d.steps), range(d.finished)):
        output = d.first_output(c, i) + f * d.output_spacing
        if not 0 <= output < d.outputs:
            continue
        made.append(output)
        for k in range(f, d.taps, d.unit) if (c + d.padding) % d.common == 0 else ():
            source = d.first_source(c, i - k // d.unit)
            if 0 <= source < d.source:
                met.add((output, source, k))
    assert sorted(made) == list(range(d.outputs))
    return met
