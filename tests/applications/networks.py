"""The networks of keras.applications at a reduced image size, and random weights that both sides draw alike.

Knows neither Keras nor ConvLoom: `make.py` runs it under Keras, the tests beside ConvLoom.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Application:
    """One network. family: its module in keras.applications; size: height and width of the small image."""

    name: str
    family: str
    size: int = 64
    committed: dict[str, Any] | None = None
    """Constructor arguments of the small variant whose description is kept beside the tests."""

    @property
    def backend(self) -> str:
        """Keras refuses to construct the NASNets on torch, though they run there."""
        return "jax" if self.family == "nasnet" else "torch"


def _several(family: str, size: int, *names: str, **committed: Any) -> list[Application]:
    first = Application(names[0], family, size, committed)
    return [first, *(Application(name, family, size) for name in names[1:])]


APPLICATIONS: list[Application] = [
    *_several("vgg16", 32, "VGG16"),
    *_several("vgg19", 32, "VGG19"),
    *_several("resnet", 64, "ResNet50", "ResNet101", "ResNet152"),
    *_several("resnet_v2", 64, "ResNet50V2", "ResNet101V2", "ResNet152V2"),
    *_several("inception_v3", 80, "InceptionV3"),
    *_several("inception_resnet_v2", 80, "InceptionResNetV2"),
    *_several("xception", 72, "Xception"),
    *_several("densenet", 64, "DenseNet121", "DenseNet169", "DenseNet201"),
    *_several("mobilenet", 64, "MobileNet", alpha=0.5),
    *_several("mobilenet_v2", 64, "MobileNetV2", alpha=0.5),
    *_several("mobilenet_v3", 64, "MobileNetV3Small", "MobileNetV3Large"),
    *_several("nasnet", 64, "NASNetMobile", "NASNetLarge"),
    *_several("efficientnet", 64, *(f"EfficientNetB{i}" for i in range(8))),
    *_several(
        "efficientnet_v2", 64, *(f"EfficientNetV2{s}" for s in ("B0", "B1", "B2", "B3", "S", "M", "L"))
    ),
    *_several("convnext", 64, *(f"ConvNeXt{s}" for s in ("Tiny", "Small", "Base", "Large", "XLarge"))),
]

BY_NAME = {application.name: application for application in APPLICATIONS}
FAMILIES = [application for application in APPLICATIONS if application.committed is not None]
CLASSES = 7
"""Classes of the committed variants."""


def generator(text: str) -> np.random.Generator:
    """The stream of a network: the same wherever it is drawn."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))


def keras_2_stream(application: Application) -> str:
    """The text for `generator` of a network that Keras 2 wrote."""
    return f"{application.name} of Keras 2"


def draw(name: str, shape: Sequence[int], random: np.random.Generator) -> Array:
    """One weight. Kernels about He's scale; norm parameters and statistics away from their first values."""
    if name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
        depthwise = name == "depthwise_kernel"
        fan = prod(shape[:2]) if depthwise else prod(shape[:-1])
        return random.standard_normal(tuple(shape), np.float32) * np.float32(sqrt(1.5 / fan))
    if name in ("gamma", "moving_variance", "variance"):
        return random.random(tuple(shape), np.float32) * np.float32(0.8) + np.float32(0.6)
    if name in ("bias", "beta", "moving_mean", "mean"):
        return random.standard_normal(tuple(shape), np.float32) * np.float32(0.1)
    if name == "count":
        return np.zeros(tuple(shape), np.float32)
    raise ValueError(f"no rule for a weight named {name!r}")


def image(application: Application, random: np.random.Generator) -> Array:
    """Two images with the values of pixels, which all of these networks take."""
    return random.random((2, application.size, application.size, 3), np.float32) * np.float32(255)
