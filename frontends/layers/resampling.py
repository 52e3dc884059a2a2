"""Images at another size: repeated rows and columns, and the middle of an image."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import ops
from ...graph.types import TensorType
from .. import fields as f
from ..lowering import Builder
from .base import Layer
from .parts import in_layout


class UpSampling2D(Layer):
    """Every pixel repeated size[0] times down and size[1] times across. interpolation: "nearest" only."""

    rank = 4

    size: f.PairLike = f.option(f.pair, default=(2, 2))
    data_format: str | None = f.option(f.data_format, default=None)
    interpolation: str = f.option(f.choice("nearest"), default="nearest")

    def build(self, b: Builder, *inputs: str) -> str:
        return in_layout(b, inputs[0], self.data_format, lambda x: self._repeat(b, x))

    def _repeat(self, b: Builder, x: str) -> str:
        """A row is one run of numbers, so rows repeat as copies side by side; then the same with pixels."""
        rows, columns = f.pair(self.size)
        height, width, taken = b.type(x).size()[1:]
        x = _copies(b, x, height, width * taken, rows, "rows")
        x = _copies(b, x, height * rows * width, taken, columns, "columns")
        return b.add(ops.Reshape((height * rows, width * columns, taken)), x, suffix="image")


def _copies(b: Builder, x: str, runs: int, size: int, times: int, what: str) -> str:
    """Each of `runs` runs of `size` numbers `times` times in a row."""
    x = b.add(ops.Reshape((runs, size)), x, suffix=f"{what}_apart")
    return b.add(ops.Concat(2), *(x,) * times, suffix=f"{what}_repeated") if times > 1 else x


class RepeatVector(Layer):
    """(N, features) n times: (N, n, features)."""

    rank = 2

    n: int = f.option(f.count)

    def build(self, b: Builder, *inputs: str) -> str:
        row = b.add(ops.Reshape((1, b.type(inputs[0]).channels)), inputs[0], suffix="row")
        return b.add(ops.Concat(1), *(row,) * self.n)


class CenterCrop(Layer):
    """The middle height x width of an image at least that large."""

    rank = 4
    steady = True

    height: int = f.option(f.count)
    width: int = f.option(f.count)
    data_format: str | None = f.option(f.data_format, default=None)

    def check(self, inputs: Sequence[TensorType]) -> None:
        first = 2 if self.data_format == "channels_first" else 1
        size = inputs[0].shape[first : first + 2]
        if self.height > int(size[0]) or self.width > int(size[1]):
            raise self.fail(
                f"{self.height}x{self.width} is larger than {inputs[0]}; resizing is not supported"
            )

    def build(self, b: Builder, *inputs: str) -> str:
        return in_layout(b, inputs[0], self.data_format, lambda x: self._crop(b, x))

    def _crop(self, b: Builder, x: str) -> str:
        height, width, taken = b.type(x).size()[1:]
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return b.add(
            ops.Slice((top, left, 0), (top + self.height, left + self.width, taken)), x, suffix="middle"
        )
