"""What is compared: a call of the network, or a training step, by ConvLoom, by PyTorch and by its rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import rivals
import torch
from torch import nn
from twins import Network, gradients_of, twins

import convloom

BASELINE = "eager"
BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class Setting:
    """What all variants of a case share. folder: where they leave files for each other."""

    network: Network
    batch: int
    mode: str
    device: torch.device
    dtype: str
    threads: int
    folder: Path

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    @cached_property
    def twins(self) -> tuple[convloom.Model, nn.Module]:
        """Drawn the first time; a process is for one variant, which may do with them as it likes."""
        return twins(self.network)

    def forget_twins(self) -> None:
        self.__dict__.pop("twins", None)

    def images(self) -> torch.Tensor:
        """(N, H, W, C)"""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.batch, *self.network.image, generator=generator).to(self.device)

    def targets(self) -> torch.Tensor:
        """One-hot, of the shape of the model's output."""
        height, width, channels = self.network.image
        with torch.device("meta"):
            _, classes, *place = self.network.module()(torch.empty(self.batch, channels, height, width)).shape
        size = (self.batch, *place)
        labels = torch.arange(torch.Size(size).numel()).reshape(size) % classes
        return nn.functional.one_hot(labels, classes).float().to(self.device)


@dataclass(frozen=True)
class Runner:
    """call: one batch, or one training step. check: what must agree with eager's, computed anew."""

    call: Callable[[], Any]
    check: Callable[[], dict[str, torch.Tensor]]
    kernels: int | None = None


@dataclass(frozen=True)
class Variant:
    """name: on the command line. title: in tables. dtype: its own, where it has one. needs: the package
    without which it is left out. usual: whether it runs unasked.
    """

    name: str
    title: str
    make: Mapping[str, Callable[[Setting], Runner]]
    dtype: str | None = None
    keeps_memory: bool = False
    needs: str | None = None
    usual: bool = True


# -- PyTorch ----------
def torch_inference(setting: Setting, form: torch.memory_format, compiled: bool = False) -> Runner:
    module = setting.twins[1].to(setting.device, setting.torch_dtype).eval()
    module.to(memory_format=form)  # type: ignore[call-overload]  # which torch's stubs leave out
    images = setting.images().permute(0, 3, 1, 2).to(setting.torch_dtype).contiguous(memory_format=form)
    run = _compiled(module, setting) if compiled else module

    def call() -> torch.Tensor:
        with torch.no_grad():
            return torch.softmax(run(images), 1)

    return Runner(call, lambda: {"output": _channels_last(call())})


def torch_training(setting: Setting, form: torch.memory_format, compiled: bool = False) -> Runner:
    module = setting.twins[1].to(setting.device).train()
    module.to(memory_format=form)  # type: ignore[call-overload]  # which torch's stubs leave out
    images = setting.images().permute(0, 3, 1, 2).contiguous(memory_format=form)
    targets = setting.targets()
    targets = targets.permute(0, targets.ndim - 1, *range(1, targets.ndim - 1)).contiguous()
    run = _compiled(module, setting) if compiled else module
    optimizer = _optimizer(module)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setting.device.type, setting.torch_dtype, enabled=setting.dtype != "float32"):
            logits = run(images)
        loss = nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        return loss.detach()

    return Runner(lambda: (step(), optimizer.step()), lambda: {"loss": step(), **gradients_of(module)})


def _compiled(module: nn.Module, setting: Setting) -> Callable[[torch.Tensor], torch.Tensor]:
    mode = "reduce-overhead" if setting.device.type == "cuda" else "default"
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(module, mode=mode)
    return compiled


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    # A rate so small that thousands of steps on one batch leave the weights where they are.
    return torch.optim.SGD(module.parameters(), lr=1e-6, momentum=0.9)


def _channels_last(output: torch.Tensor) -> torch.Tensor:
    return output.permute(0, 2, 3, 1) if output.ndim == 4 else output


# -- ConvLoom ----------
def own_inference(setting: Setting, fuse: bool = True) -> Runner:
    net = convloom.compile(
        setting.twins[0], device=str(setting.device), dtype=setting.dtype, fuse=fuse
    ).eval()
    images = setting.images().to(setting.torch_dtype)

    def call() -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = net(images)
            return result

    return Runner(call, lambda: {"output": call()}, len(net.program.regions))


def own_training(setting: Setting, fuse: bool = True) -> Runner:
    net = convloom.compile(
        setting.twins[0], device=str(setting.device), dtype=setting.dtype, fuse=fuse
    ).train()
    compiled = net.with_loss("categorical_crossentropy")
    optimizer = _optimizer(net)
    images, targets = (x.to(setting.torch_dtype) for x in (setting.images(), setting.targets()))

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss, _ = compiled(images, targets)
        loss.backward()
        return loss.detach()

    def check() -> dict[str, torch.Tensor]:
        loss = step()
        return {"loss": loss, **{name: p.grad for name, p in net.named_parameters() if p.grad is not None}}

    return Runner(lambda: (step(), optimizer.step()), check, len(compiled.program.regions))


# -- rivals ----------
def onnx_model(setting: Setting) -> Path:
    """The network as the ONNX file that the rivals read; written by a process of its own."""
    return setting.folder / "model.onnx"


def write_onnx(setting: Setting) -> None:
    images = setting.images().permute(0, 3, 1, 2).contiguous()
    rivals.export(nn.Sequential(setting.twins[1], nn.Softmax(1)).eval(), images, onnx_model(setting))


def rival(setting: Setting, load: Callable[[Path, int], rivals.Session]) -> Runner:
    session = load(onnx_model(setting), setting.threads)
    images = setting.images().permute(0, 3, 1, 2).contiguous().numpy()

    def check() -> dict[str, torch.Tensor]:
        return {"output": _channels_last(torch.from_numpy(session(images).copy()))}

    return Runner(lambda: session(images), check)


# -- the table ----------
NCHW, NHWC = torch.contiguous_format, torch.channels_last


def _both(
    inference: Callable[..., Runner], training: Callable[..., Runner], *given: Any
) -> Mapping[str, Callable[[Setting], Runner]]:
    def bound(make: Callable[..., Runner]) -> Callable[[Setting], Runner]:
        return lambda setting: make(setting, *given)

    return {"inference": bound(inference), "training": bound(training)}


VARIANTS: tuple[Variant, ...] = (
    Variant(BASELINE, "eager channels_last", _both(torch_inference, torch_training, NHWC)),
    Variant("nchw", "eager NCHW", _both(torch_inference, torch_training, NCHW), usual=False),
    Variant("kept", "eager, memory kept", _both(torch_inference, torch_training, NHWC), keeps_memory=True),
    Variant("autocast", "eager bfloat16", {"training": partial(torch_training, form=NHWC)}, BFLOAT16),
    Variant("compile", "torch.compile", _both(torch_inference, torch_training, NHWC, True), usual=False),
    Variant(
        *("onnxruntime", "ONNX Runtime", {"inference": partial(rival, load=rivals.onnxruntime)}),
        needs="onnxruntime",
    ),
    Variant(
        *("openvino", "OpenVINO", {"inference": partial(rival, load=rivals.openvino)}),
        needs="openvino",
    ),
    Variant("convloom", "ConvLoom", _both(own_inference, own_training)),
    Variant("unfused", "ConvLoom unfused", _both(own_inference, own_training, False)),
    Variant("bfloat16", "ConvLoom bfloat16", _both(own_inference, own_training), BFLOAT16),
)
BY_NAME = {variant.name: variant for variant in VARIANTS}
