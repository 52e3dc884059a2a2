"""The benchmark's small networks, each twice: as a ConvLoom model and as a plain PyTorch module.

Layers of the one carry the names of the modules of the other, with "_" for ".", so that weights and gradients
can be compared by name.
"""

from __future__ import annotations

import torch
from torch import nn

import convloom
from convloom import layers as L

EPSILON = 1e-3
"""Of batch norm, in both twins."""


# -- the PyTorch twins, which give logits ----------
class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        result: torch.Tensor = self.fc3(torch.relu(self.fc2(x)))
        return result


VGG_STAGES = ((64, 2), (128, 2), (256, 3))


class VGGBlocks(nn.Module):
    """Three stages of VGG-16 (Simonyan & Zisserman 2015) and a small head, for 32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        taken = 3
        for stage, (channels, count) in enumerate(VGG_STAGES):
            for index in range(count):
                self.add_module(f"conv{stage}{index}", nn.Conv2d(taken, channels, 3, padding=1))
                taken = channels
        self.fc1 = nn.Linear(4 * 4 * taken, 256)
        self.fc2 = nn.Linear(256, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage, (_, count) in enumerate(VGG_STAGES):
            for index in range(count):
                x = torch.relu(self.get_submodule(f"conv{stage}{index}")(x))
            x = self.pool(x)
        result: torch.Tensor = self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))
        return result


class BasicBlock(nn.Module):
    """The residual block of ResNet-18 (He et al. 2016)."""

    def __init__(self, taken: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(taken, channels, 3, stride, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = norm(channels)
        self.short = nn.Conv2d(taken, channels, 1, stride, bias=False) if stride > 1 else None
        self.bn3 = norm(channels) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        kept = x if self.short is None or self.bn3 is None else self.bn3(self.short(x))
        return torch.relu(y + kept)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=0.01)


RESNET_STAGES = (64, 128, 256, 512)


class ResNet18(nn.Module):
    """ResNet-18 with the 3x3 stem used for 32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = norm(64)
        taken, blocks = 64, []
        for stage, channels in enumerate(RESNET_STAGES):
            blocks.append(BasicBlock(taken, channels, 2 if stage else 1))
            blocks.append(BasicBlock(channels, channels, 1))
            taken = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(taken, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(torch.relu(self.bn1(self.conv1(x))))
        result: torch.Tensor = self.fc(x.mean((2, 3)))
        return result


MOBILE_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


class MobileBlocks(nn.Module):
    """Depthwise-separable blocks of MobileNet (Howard et al. 2017), for 32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 1, 1, bias=False)
        self.bn1 = norm(32)
        taken = 32
        for index, (channels, stride) in enumerate(MOBILE_BLOCKS):
            depthwise = nn.Conv2d(taken, taken, 3, stride, 1, groups=taken, bias=False)
            self.add_module(f"deep{index}", depthwise)
            self.add_module(f"bna{index}", norm(taken))
            self.add_module(f"point{index}", nn.Conv2d(taken, channels, 1, bias=False))
            self.add_module(f"bnb{index}", norm(channels))
            taken = channels
        self.fc = nn.Linear(taken, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for index in range(len(MOBILE_BLOCKS)):
            x = torch.relu(self.get_submodule(f"bna{index}")(self.get_submodule(f"deep{index}")(x)))
            x = torch.relu(self.get_submodule(f"bnb{index}")(self.get_submodule(f"point{index}")(x)))
        result: torch.Tensor = self.fc(x.mean((2, 3)))
        return result


# -- the ConvLoom models, which give probabilities ----------
def lenet5() -> convloom.Model:
    image = convloom.Input((28, 28, 1), name="image")
    h = L.MaxPooling2D()(L.Conv2D(6, 5, padding="same", activation="relu", name="conv1")(image))
    h = L.MaxPooling2D()(L.Conv2D(16, 5, activation="relu", name="conv2")(h))
    h = L.Dense(120, activation="relu", name="fc1")(L.Flatten()(h))
    h = L.Dense(84, activation="relu", name="fc2")(h)
    return convloom.Model(image, L.Dense(10, activation="softmax", name="fc3")(h), name="lenet5")


def vgg_blocks() -> convloom.Model:
    image = h = convloom.Input((32, 32, 3), name="image")
    for stage, (channels, count) in enumerate(VGG_STAGES):
        for index in range(count):
            name = f"conv{stage}{index}"
            h = L.Conv2D(channels, 3, padding="same", activation="relu", name=name)(h)
        h = L.MaxPooling2D()(h)
    h = L.Dense(256, activation="relu", name="fc1")(L.Flatten()(h))
    return convloom.Model(image, L.Dense(10, activation="softmax", name="fc2")(h), name="vgg_blocks")


def resnet18() -> convloom.Model:
    image = convloom.Input((32, 32, 3), name="image")
    h = conv_norm(image, 64, 3, "conv1", "bn1", relu=True)
    index = 0
    for stage, channels in enumerate(RESNET_STAGES):
        for block in range(2):
            h = _basic_block(h, channels, 2 if stage and not block else 1, f"blocks_{index}")
            index += 1
    h = L.GlobalAveragePooling2D()(h)
    return convloom.Model(image, L.Dense(10, activation="softmax", name="fc")(h), name="resnet18")


def _basic_block(x: object, channels: int, stride: int, name: str) -> object:
    y = conv_norm(x, channels, 3, f"{name}_conv1", f"{name}_bn1", stride, relu=True)
    y = conv_norm(y, channels, 3, f"{name}_conv2", f"{name}_bn2")
    kept = conv_norm(x, channels, 1, f"{name}_short", f"{name}_bn3", stride) if stride > 1 else x
    return L.ReLU()(L.Add()([y, kept]))


def conv_norm(
    x: object,
    channels: int,
    size: int,
    name: str,
    norm_name: str,
    stride: int = 1,
    relu: bool = False,
    groups: int = 1,
) -> object:
    border = (size // 2, size // 2)  # PyTorch's padding; Keras's "same" pads otherwise at stride 2
    padding = (border, border) if size > 1 else "valid"
    y = L.Conv2D(channels, size, stride, padding, groups=groups, use_bias=False, name=name)(x)
    y = L.BatchNormalization(epsilon=EPSILON, name=norm_name)(y)
    return L.ReLU()(y) if relu else y


def mobile_blocks() -> convloom.Model:
    image = convloom.Input((32, 32, 3), name="image")
    h, taken = conv_norm(image, 32, 3, "conv1", "bn1", relu=True), 32
    for index, (channels, stride) in enumerate(MOBILE_BLOCKS):
        h = conv_norm(h, taken, 3, f"deep{index}", f"bna{index}", stride, relu=True, groups=taken)
        h = conv_norm(h, channels, 1, f"point{index}", f"bnb{index}", relu=True)
        taken = channels
    h = L.GlobalAveragePooling2D()(h)
    return convloom.Model(image, L.Dense(10, activation="softmax", name="fc")(h), name="mobile_blocks")
