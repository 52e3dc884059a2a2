"""Images at another size: keras.ops.image."""

from __future__ import annotations

from typing import Any

from ...graph.ops.source import METHODS
from .. import fields as f
from ..layers import Resizing
from ..lowering import Builder
from .base import Operation


class Resize(Operation):
    """Images (N, height, width, channels) at the height and width `size`, as the layer Resizing has them."""

    module = "keras.src.ops.image"
    operands = ("images",)

    size: f.PairLike = f.option(f.pair)
    interpolation: str = f.option(f.choice(*METHODS), default="bilinear")
    antialias: bool = f.option(f.flag, default=False)
    crop_to_aspect_ratio: bool = f.option(f.flag, default=False)
    pad_to_aspect_ratio: bool = f.option(f.flag, default=False)
    fill_mode: str = f.option(f.choice("constant"), default="constant")
    fill_value: float = f.option(f.number, default=0.0)
    data_format: str | None = f.option(f.data_format, default=None)

    def compute(self, b: Builder, *given: Any) -> str:
        height, width = f.pair(self.size)
        layer = Resizing(
            height,
            width,
            self.interpolation,
            self.crop_to_aspect_ratio,
            self.pad_to_aspect_ratio,
            self.fill_mode,
            self.fill_value,
            self.antialias,
            self.data_format,
            name=self.name,
        )
        return self.as_layer(layer, b, self.tensor(given[0]))
