"""The benchmark's table of networks, and one set of weights for both twins of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import large
import networks
import torch
from torch import nn

import convloom


@dataclass(frozen=True)
class Network:
    """One network of the benchmark. title: as people know it. image: height, width, channels.
    inference, training: the batch sizes it is timed at in each mode.
    """

    name: str
    title: str
    model: Callable[[], convloom.Model]
    module: Callable[[], nn.Module]
    image: tuple[int, int, int]
    inference: tuple[int, ...] = ()
    training: tuple[int, ...] = ()

    def batches(self, mode: str) -> tuple[int, ...]:
        return self.inference if mode == "inference" else self.training


NETWORKS: tuple[Network, ...] = (
    Network("resnet50", "ResNet-50", large.resnet50, large.ResNet50, (224, 224, 3), (1, 32)),
    Network("mobilenet_v2", "MobileNetV2", large.mobilenet_v2, large.MobileNetV2, (224, 224, 3), (1, 32)),
    Network("vgg16", "VGG-16", large.vgg16, large.VGG16, (224, 224, 3), (1,)),
    Network("unet", "U-Net", large.unet, large.UNet, (256, 256, 3), (1, 8)),
    Network("lenet5", "LeNet-5", networks.lenet5, networks.LeNet5, (28, 28, 1), (1, 32), (32,)),
    Network("resnet18", "ResNet-18", networks.resnet18, networks.ResNet18, (32, 32, 3), (), (32,)),
    Network("vgg_blocks", "VGG blocks", networks.vgg_blocks, networks.VGGBlocks, (32, 32, 3), (), (32,)),
    Network(
        *("mobile_blocks", "MobileNet blocks", networks.mobile_blocks, networks.MobileBlocks),
        *((32, 32, 3), (), (32,)),
    ),
    Network(
        *("mobilenet_v2_96", "MobileNetV2", partial(large.mobilenet_v2, 96), large.MobileNetV2),
        *((96, 96, 3), (), (8,)),
    ),
    Network("unet_128", "U-Net", partial(large.unet, 128), large.UNet, (128, 128, 3), (), (4,)),
)
BY_NAME = {network.name: network for network in NETWORKS}


def twins(network: Network, seed: int = 0) -> tuple[convloom.Model, nn.Module]:
    """Model and module with the same weights, drawn at random, the statistics of batch norms too.

    Activations keep their size on the way through, and the last kernel is scaled so that logits lie about 1:
    probabilities then tell of every layer.
    """
    torch.manual_seed(seed)
    model = network.model()
    with torch.device("meta"):  # whose weights are not worth drawing
        module = network.module()
    module.to_empty(device="cpu")
    weights = model.parameters
    with torch.no_grad():
        for name, value in weights.items():
            if name.endswith(("moving_variance", "gamma")):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("moving_mean", "beta", "bias")):
                value.uniform_(-0.2, 0.2)
            else:
                bound = math.sqrt(6 * value.shape[-1] / value.numel())
                value.uniform_(-bound, bound)
        for name, view in weight_views(module):
            view.copy_(weights[name].reshape(view.shape))
        image = torch.randn(2, network.image[-1], *network.image[:2])
        spread = float(module.eval()(image).std())
        name, view = [pair for pair in weight_views(module) if pair[0].endswith("kernel")][-1]
        for last in (weights[name], view):
            last.mul_(2.0 ** -round(math.log2(spread)))  # a power of two, so that all processes agree
    return model, module.train()


def gradients_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's gradients by ConvLoom's names, in ConvLoom's layouts up to a reshape."""
    return dict(weight_views(module, gradients=True))


def weight_views(module: nn.Module, gradients: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Views of a module's weights (or gradients) with the axes in ConvLoom's order, by ConvLoom's names."""

    def value(parameter: torch.Tensor) -> torch.Tensor:
        if not gradients:
            return parameter
        if parameter.grad is None:
            raise RuntimeError("the module has no gradients yet; run backward() first")
        return parameter.grad

    for path, part in module.named_modules():
        name = path.replace(".", "_")
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            yield f"{name}/kernel", value(part.weight).permute(2, 3, 1, 0)
        elif isinstance(part, nn.Linear):
            yield f"{name}/kernel", _unflattened(module, path, value(part.weight))
        elif isinstance(part, nn.BatchNorm2d):
            yield f"{name}/gamma", value(part.weight)
            yield f"{name}/beta", value(part.bias)
            if not gradients and part.running_mean is not None and part.running_var is not None:
                yield f"{name}/moving_mean", part.running_mean
                yield f"{name}/moving_variance", part.running_var
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and part.bias is not None:
            yield f"{name}/bias", value(part.bias)


FLATTENED: Mapping[str, tuple[int, int, int]] = {
    "LeNet5": (16, 5, 5),
    "VGGBlocks": (256, 4, 4),
    "VGG16": (512, 7, 7),
}
"""Channels, height, width of the map that each module's fc1 reads flattened, channels first."""


def _unflattened(module: nn.Module, path: str, weight: torch.Tensor) -> torch.Tensor:
    """A matrix (out, in) as (in, out), the rows in the order of height, width, channels."""
    shape = FLATTENED.get(type(module).__name__)
    if path != "fc1" or shape is None:
        return weight.t()
    return weight.view(-1, *shape).permute(2, 3, 1, 0)
