"""ResNet-50, MobileNetV2, VGG-16 and U-Net, each as a PyTorch module and as a ConvLoom model.

As in `networks`: layers carry the names of the modules, modules give logits and models probabilities.
"""

from __future__ import annotations

from typing import Any

import torch
from networks import conv_norm, norm
from torch import nn

import convloom
from convloom import layers as L

BOTTLENECKS = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Of ResNet-50: channels inside a block, and blocks."""

INVERTED = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Of MobileNetV2: expansion, channels, blocks, first stride."""

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

UNET_DEPTH = 5


# -- ResNet-50 (He et al. 2016), strides in the 3x3 convolutions, as torchvision and NVIDIA have it ----------
class Bottleneck(nn.Module):
    def __init__(self, taken: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(taken, channels, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = norm(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = norm(4 * channels)
        other = taken != 4 * channels
        self.short = nn.Conv2d(taken, 4 * channels, 1, stride, bias=False) if other else None
        self.bn4 = norm(4 * channels) if other else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        kept = x if self.short is None or self.bn4 is None else self.bn4(self.short(x))
        return torch.relu(self.bn3(self.conv3(y)) + kept)


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = norm(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        taken, blocks = 64, []
        for stage, (channels, count) in enumerate(BOTTLENECKS):
            for block in range(count):
                blocks.append(Bottleneck(taken, channels, 2 if stage and not block else 1))
                taken = 4 * channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(taken, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.pool(torch.relu(self.bn1(self.conv1(x)))))
        result: torch.Tensor = self.fc(x.mean((2, 3)))
        return result


def resnet50() -> convloom.Model:
    image = convloom.Input((224, 224, 3), name="image")
    h = conv_norm(image, 64, 7, "conv1", "bn1", 2, relu=True)
    h, index = L.MaxPooling2D(3, 2, ((1, 1), (1, 1)))(h), 0
    for stage, (channels, count) in enumerate(BOTTLENECKS):
        for block in range(count):
            stride = 2 if stage and not block else 1
            h = _bottleneck(h, channels, stride, not block, f"blocks_{index}")
            index += 1
    h = L.GlobalAveragePooling2D()(h)
    return convloom.Model(image, L.Dense(1000, activation="softmax", name="fc")(h), name="resnet50")


def _bottleneck(x: Any, channels: int, stride: int, other: bool, name: str) -> Any:
    y = conv_norm(x, channels, 1, f"{name}_conv1", f"{name}_bn1", relu=True)
    y = conv_norm(y, channels, 3, f"{name}_conv2", f"{name}_bn2", stride, relu=True)
    y = conv_norm(y, 4 * channels, 1, f"{name}_conv3", f"{name}_bn3")
    kept = conv_norm(x, 4 * channels, 1, f"{name}_short", f"{name}_bn4", stride) if other else x
    return L.ReLU()(L.Add()([y, kept]))


# -- MobileNetV2 (Sandler et al. 2018) ----------
class InvertedResidual(nn.Module):
    def __init__(self, taken: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = taken * expansion
        self.wide = nn.Conv2d(taken, wide, 1, bias=False) if expansion > 1 else None
        self.bn1 = norm(wide) if expansion > 1 else None
        self.deep = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.bn2 = norm(wide)
        self.narrow = nn.Conv2d(wide, channels, 1, bias=False)
        self.bn3 = norm(channels)
        self.adds = stride == 1 and taken == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.wide is None or self.bn1 is None else nn.functional.relu6(self.bn1(self.wide(x)))
        y = self.bn3(self.narrow(nn.functional.relu6(self.bn2(self.deep(y)))))
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.bn1 = norm(32)
        taken, blocks = 32, []
        for expansion, channels, count, first in INVERTED:
            for block in range(count):
                blocks.append(InvertedResidual(taken, channels, expansion, 1 if block else first))
                taken = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(taken, 1280, 1, bias=False)
        self.bn2 = norm(1280)
        self.fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(nn.functional.relu6(self.bn1(self.conv1(x))))
        x = nn.functional.relu6(self.bn2(self.conv2(x)))
        result: torch.Tensor = self.fc(x.mean((2, 3)))
        return result


def mobilenet_v2(size: int = 224) -> convloom.Model:
    image = convloom.Input((size, size, 3), name="image")
    h, taken, index = _six(conv_norm(image, 32, 3, "conv1", "bn1", 2)), 32, 0
    for expansion, channels, count, first in INVERTED:
        for block in range(count):
            h = _inverted(h, taken, channels, expansion, 1 if block else first, f"blocks_{index}")
            taken, index = channels, index + 1
    h = L.GlobalAveragePooling2D()(_six(conv_norm(h, 1280, 1, "conv2", "bn2")))
    return convloom.Model(image, L.Dense(1000, activation="softmax", name="fc")(h), name="mobilenet_v2")


def _inverted(x: Any, taken: int, channels: int, expansion: int, stride: int, name: str) -> Any:
    wide = taken * expansion
    y = _six(conv_norm(x, wide, 1, f"{name}_wide", f"{name}_bn1")) if expansion > 1 else x
    y = _six(conv_norm(y, wide, 3, f"{name}_deep", f"{name}_bn2", stride, groups=wide))
    y = conv_norm(y, channels, 1, f"{name}_narrow", f"{name}_bn3")
    return L.Add()([x, y]) if stride == 1 and taken == channels else y


def _six(x: Any) -> Any:
    return L.ReLU(6.0)(x)


# -- VGG-16 (Simonyan & Zisserman 2015) ----------
class VGG16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        taken = 3
        for stage, (channels, count) in enumerate(VGG16_STAGES):
            for index in range(count):
                self.add_module(f"conv{stage}{index}", nn.Conv2d(taken, channels, 3, padding=1))
                taken = channels
        self.fc1 = nn.Linear(7 * 7 * taken, 4096)
        self.fc2 = nn.Linear(4096, 4096)
        self.fc3 = nn.Linear(4096, 1000)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage, (_, count) in enumerate(VGG16_STAGES):
            for index in range(count):
                x = torch.relu(self.get_submodule(f"conv{stage}{index}")(x))
            x = self.pool(x)
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        result: torch.Tensor = self.fc3(torch.relu(self.fc2(x)))
        return result


def vgg16() -> convloom.Model:
    image = h = convloom.Input((224, 224, 3), name="image")
    for stage, (channels, count) in enumerate(VGG16_STAGES):
        for index in range(count):
            h = _conv_relu(h, channels, f"conv{stage}{index}")
        h = L.MaxPooling2D()(h)
    h = L.Dense(4096, activation="relu", name="fc1")(L.Flatten()(h))
    h = L.Dense(4096, activation="relu", name="fc2")(h)
    return convloom.Model(image, L.Dense(1000, activation="softmax", name="fc3")(h), name="vgg16")


def _conv_relu(x: Any, channels: int, name: str) -> Any:
    return L.Conv2D(channels, 3, padding="same", activation="relu", name=name)(x)


# -- U-Net (Ronneberger et al. 2015), padded so that a map keeps its size; two classes a pixel ----------
class UNet(nn.Module):
    """width: channels at full size; they double with each of the four halvings."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        taken = 3
        for level in range(UNET_DEPTH):
            self.add_module(f"down{level}a", nn.Conv2d(taken, width << level, 3, padding=1))
            self.add_module(f"down{level}b", nn.Conv2d(width << level, width << level, 3, padding=1))
            taken = width << level
        for level in reversed(range(UNET_DEPTH - 1)):
            channels = width << level
            self.add_module(f"wide{level}", nn.ConvTranspose2d(2 * channels, channels, 2, 2))
            self.add_module(f"up{level}a", nn.Conv2d(2 * channels, channels, 3, padding=1))
            self.add_module(f"up{level}b", nn.Conv2d(channels, channels, 3, padding=1))
        self.classes = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in range(UNET_DEPTH):
            x = self._two(x, f"down{level}")
            if level < UNET_DEPTH - 1:
                skips.append(x)
                x = self.pool(x)
        for level in reversed(range(UNET_DEPTH - 1)):
            wide = self.get_submodule(f"wide{level}")(x)
            x = self._two(torch.cat([skips[level], wide], 1), f"up{level}")
        result: torch.Tensor = self.classes(x)
        return result

    def _two(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for part in "ab":
            x = torch.relu(self.get_submodule(name + part)(x))
        return x


def unet(size: int = 256, width: int = 32) -> convloom.Model:
    image = h = convloom.Input((size, size, 3), name="image")
    skips = []
    for level in range(UNET_DEPTH):
        h = _conv_relu(_conv_relu(h, width << level, f"down{level}a"), width << level, f"down{level}b")
        if level < UNET_DEPTH - 1:
            skips.append(h)
            h = L.MaxPooling2D()(h)
    for level in reversed(range(UNET_DEPTH - 1)):
        channels = width << level
        wide = L.Conv2DTranspose(channels, 2, 2, name=f"wide{level}")(h)
        h = L.Concatenate()([skips[level], wide])
        h = _conv_relu(_conv_relu(h, channels, f"up{level}a"), channels, f"up{level}b")
    return convloom.Model(image, L.Conv2D(2, 1, activation="softmax", name="classes")(h), name="unet")
