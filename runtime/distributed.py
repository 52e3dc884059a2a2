"""Training in several processes under `torchrun`: who takes part, what each one's share of a batch is, and
what they have to agree on. What travels between them goes through torch.distributed, and nothing else.

A batch is the batch of all processes together: each takes its part of it, and the gradients, averaged by
DistributedDataParallel, are those of the whole. So a run in n processes is the run of one, but faster.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from ..graph.errors import ConvLoomError
from ..graph.ops.across import presence
from .batch import Batch
from .batches import Batches
from .feed import Feed
from .step_result import StepResult
from .stepping import networks_in


@dataclass(frozen=True)
class Processes:
    """Those that train together. rank: of this one. control: the group for what lies on the CPU."""

    rank: int = 0
    count: int = 1
    control: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag, whether one process has it set. All of them call this at the same place."""
        if self.count == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32)
        with _told():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return [bool(flag) for flag in found]

    def of_first(self, value: Any) -> Any:
        """What the first process has for a plain value."""
        if self.count == 1:
            return value
        held = [value]
        with _told():
            dist.broadcast_object_list(held, src=0, group=self.control)
        return held[0]

    def gathered(self, value: Any) -> list[Any]:
        """What each process has for a value of plain values and tensors on the CPU."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _told():
            dist.all_gather_object(found, value, group=self.control)
        return found

    def share(self, net: torch.nn.Module) -> None:
        """Give the network's statistics of the first process to all."""
        if self.count > 1:
            with _told(), torch.no_grad():
                for value in net.buffers():
                    dist.broadcast(value, 0)

    def part(self, batch: Batch) -> Batch:
        """This process's examples of a batch; where there is none left for it, one that does not count."""
        size = batch.size
        start, stop = (size * rank // self.count for rank in (self.rank, self.rank + 1))
        weight = self.count * (stop - start) / size
        first = min(start, size - 1)

        def cut(values: Sequence[torch.Tensor | None]) -> list[Any]:
            return [None if value is None else value[first : max(stop, first + 1)] for value in values]

        weights = None if batch.weights is None else cut(batch.weights)
        return Batch(cut(batch.inputs), cut(batch.targets), weights, weight)


ALONE = Processes()
_joined: list[Processes] = []


def processes(device: torch.device) -> Processes:
    """Those that torchrun, or the program itself by `init_process_group`, started; else this one alone.

    Raises ConvLoomError where a GPU is not this process's own.
    """
    if not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return ALONE
        _check_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    if dist.get_world_size() == 1:
        return ALONE
    if not _joined or _joined[0].count != dist.get_world_size():
        control = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        _joined[:] = [Processes(dist.get_rank(), dist.get_world_size(), control)]
    return _joined[0]


def take_gpu() -> None:
    """Under torchrun, let "cuda" mean the GPU of this process."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ
    if several and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def _check_device(device: torch.device) -> None:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda" and device.index != local:
        raise ConvLoomError(
            f"process {local} of torchrun has its network on {device}; give each its own GPU, before it "
            f"compiles: torch.cuda.set_device(int(os.environ['LOCAL_RANK']))"
        )


def _leave() -> None:
    """At the end of the process: let go of the group, so that it is freed while Python is still there."""
    _joined.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What torch.distributed raises where another process is gone, as one error of ours."""
    try:
        yield
    except RuntimeError as error:
        raise ConvLoomError(
            f"another process of this run has ended, or does not answer: {str(error).splitlines()[0]:.200}; "
            f"its own error says why"
        ) from error


# -- a step --------------------------------------------------------------------------------------------------
class _Weighted(torch.autograd.Function):
    """The loss as it is, and its gradient times this process's weight in the mean over all."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, weight: float) -> torch.Tensor:
        ctx.weight = weight
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None]:
        return slopes[0] * ctx.weight, None


class _Module(torch.nn.Module):
    """A network with its step as what DistributedDataParallel wraps."""

    def __init__(self, net: torch.nn.Module, step: Callable[[Batch], StepResult]) -> None:
        super().__init__()
        self.net, self.step = net, step

    def forward(self, batch: Batch) -> StepResult:
        result = self.step(batch)
        loss: torch.Tensor = _Weighted.apply(result.loss, batch.weight)  # type: ignore[no-untyped-call]
        return StepResult(loss, result.losses, result.predictions)


class ParallelStep:
    """A step whose gradients are those of the batch of all processes. Weights are those of the first one."""

    def __init__(self, net: torch.nn.Module, step: Callable[[Batch], StepResult]) -> None:
        self.module = _Module(net, step)
        self._trained: list[int] = []
        self._wrapped: Any = None

    def __call__(self, batch: Batch) -> StepResult:
        trained = [id(p) for p in self.module.parameters() if p.requires_grad]
        with _told():
            if trained != self._trained:  # something was frozen or freed
                self._wrapped = torch.nn.parallel.DistributedDataParallel(self.module)
                self._trained = trained
            presence.counts = batch.weight > 0
            result: StepResult = self._wrapped(batch)
        return result


class InStep(Batches):
    """Batches whose order, where it follows from torch's generator, is the same in all processes."""

    def __init__(self, source: Batches, seed: int) -> None:
        self.source, self.size, self.form = source, source.size, source.form
        self._own = torch.Generator().manual_seed(seed)
        self.generators = [*source.generators, self._own]

    def run(self, skip: int = 0) -> Iterator[Batch]:
        seed = int(torch.randint(2**62, (), generator=self._own))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.source.run(skip)

    def on_epoch_begin(self) -> None:
        self.source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.source.on_epoch_end()
        self.size = self.source.size


def synchronize(net: torch.nn.Module, wanted: bool) -> None:
    """Let batch norms take the statistics of all processes' batches, or of this one's alone."""
    for network in networks_in(net):
        for member in network._family():
            member.options = replace(member.options, sync_batch_norm=wanted)


def check_together(net: torch.nn.Module, losses: Mapping[str, Any], debug_nan: bool) -> None:
    """Raise ConvLoomError for what several processes cannot do."""
    if isinstance(net, torch.nn.parallel.DistributedDataParallel):
        raise ConvLoomError("under torchrun fit wraps the network itself; give it the compiled network")
    if debug_nan:
        raise ConvLoomError("debug_nan looks into a step of one process; start this without torchrun")
    for name, loss in losses.items():
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction not in ("sum_over_batch_size", "mean"):
            raise ConvLoomError(
                f"the loss of {name} has reduction {reduction!r}; in several processes a loss is a mean over "
                f"the examples, which that of the whole batch follows from: leave reduction out"
            )


def divide(together: Processes, feeds: Sequence[Feed], net: torch.nn.Module, seed: int) -> None:
    """Let feeds give this process's part of each batch, in an order that all share, and let what is random
    in a step be drawn for each process anew."""
    for feed in feeds:
        feed.source = InStep(feed.source, seed)
        if not _is_divided(feed.source.source):
            feed.change = _after(together.part, feed.change)
    for network in networks_in(net):
        network._streams.shift = together.rank
    torch.manual_seed((seed + together.rank) % 2**63)


def _after(part: Callable[[Batch], Batch], change: Callable[[Batch], Batch] | None) -> Any:
    return part if change is None else lambda batch: change(part(batch))


def _is_divided(source: Any) -> bool:
    """Whether it is a DataLoader that gives each process examples of its own."""
    sampler = getattr(getattr(source, "source", None), "sampler", None)
    return isinstance(sampler, torch.utils.data.DistributedSampler)
