"""The value of a weight: one tensor that a layer keeps, and the tensors of networks that are tied to it.

A network on the CPU that computes in float32 or less has its parameter over the very memory of the value,
with one version counter for both: what either side writes, the other has. Elsewhere (float64, a GPU) it has
memory of its own, and the two follow each other by their version counters, when one of them is used:

* reading the value takes what a network wrote since;
* writing it (`set_weights`, loading, `parameters[name] = ...`) reaches every network at once;
* a network that runs takes what the model or another network wrote since.

Where two sides were written with no such moment between, a network's write wins over one made straight into
the value's tensor, and of several networks that compiled last wins. As long as somebody holds a weight's
`.data`, writes through it may have happened or not: then a write that PyTorch counted wins.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from .weights import Mark, State, Touches, Weight, mark

_TIED = WeakIdKeyDictionary()


def _count_writes(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Torch's fused optimizers write into parameters and leave their versions as they were."""
    for group in optimizer.param_groups:
        if group.get("fused"):
            written = [p for p in group["params"] if p.grad is not None and p in _TIED]
            torch.autograd.graph.increment_version(written)


register_optimizer_step_post_hook(_count_writes)


class Value:
    """One weight's value. `tensor` lies on the CPU, and no other tensor ever takes its place."""

    __slots__ = ("_ties", "tensor", "touches")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._start(owned(tensor, "cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype))

    def _start(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.touches = Touches()
        """Of its memory, by whichever network."""
        self._ties: list[weakref.ref[Tie]] = []

    def mark(self) -> Mark:
        """Differs from an earlier one where something may have been written into it."""
        return self.tensor.data_ptr(), self.tensor._version, self.touches.mark()

    def ties(self) -> list[Tie]:
        """Those of living networks, in the order they were compiled."""
        found = [(reference, reference()) for reference in self._ties]
        self._ties = [reference for reference, tie in found if tie is not None]
        return [tie for _, tie in found if tie is not None]

    def read(self) -> torch.Tensor:
        """The value's own tensor, with what was written last in it."""
        for tie in self.ties():
            tie.hand_in()
        return self.tensor

    def write(self, value: torch.Tensor) -> None:
        """Copy a tensor of the same shape into it, and into all that is tied to it."""
        self.read()
        with torch.no_grad():
            self.tensor.copy_(value)
        for tie in self.ties():
            tie.take()

    def tied(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """A tensor for a network: over the same memory where device and dtype allow it, else a copy."""
        here = self.read()
        if here.device == device and here.dtype == dtype:
            return here.detach()
        return owned(here, device, dtype)

    # A pickle holds the parameter that lies over the value, where there is one: so a network and an optimizer
    # in the same pickle have the same parameters afterwards, as they had before.
    def __getstate__(self) -> torch.Tensor:
        here = self.read()
        return next((tie.tensor for tie in self.ties() if not tie.apart), here)

    def __setstate__(self, tensor: torch.Tensor) -> None:
        self._start(tensor.detach())


class Tie:
    """The tensor that a network has for a value, and what of both had been seen when they last agreed."""

    __slots__ = ("__weakref__", "_kept", "_mine", "_over", "_seen", "tensor", "value")

    changes: ClassVar[int] = 0
    """How many ties have come or gone, or come apart; who watches tensors looks at it."""

    def __init__(self, value: Value, tensor: torch.Tensor) -> None:
        self.value = value
        self.tensor = tensor
        _TIED[tensor] = True
        self._over = not self.apart
        """Whether it was made over the value's memory. Then both count writes together, for good: should its
        memory be moved with `p.data = ...`, a count says no more which of them was written to."""
        self._kept: torch.Tensor | None = None
        """The numbers of such a tensor, in other memory by now, when both last agreed."""
        if not self.apart and isinstance(tensor, Weight | State):
            tensor.touches = value.touches
        self._agree()
        value._ties.append(weakref.ref(self, Tie.changed))
        Tie.changed()

    @classmethod
    def changed(cls, gone: object = None) -> None:
        Tie.changes += 1

    def _agree(self) -> None:
        self._mine = mark(self.tensor)
        self._seen = self.value.mark()
        self._kept = self.tensor.detach().clone() if self._over and self.apart else None

    @property
    def apart(self) -> bool:
        """Whether its memory is not the value's. Other memory may come later, with `p.data = ...`."""
        return self.tensor.data_ptr() != self.value.tensor.data_ptr()

    def hand_in(self) -> None:
        """Give the value what was written into the network's tensor."""
        now = mark(self.tensor)
        if not self.apart or now == self._mine:
            return
        if self._kept is not None and torch.equal(self.tensor, self._kept):
            self._mine = now
            return
        if now[:2] == self._mine[:2] and self.value.mark()[:2] != self._seen[:2]:
            self.take()  # it was perhaps written through `.data`, and the value for certain
            return
        with torch.no_grad():
            self.value.tensor.copy_(self.tensor)
        self._agree()

    def take(self) -> None:
        """Give the network's tensor what was written into the value."""
        if self.apart and self.value.mark() != self._seen:
            with torch.no_grad():
                self.tensor.copy_(self.value.tensor)
            self._agree()

    def others_apart(self) -> list[Tie]:
        """Ties of other networks to the same value that have memory of their own."""
        return [tie for tie in self.value.ties() if tie is not self and tie.apart]

    def follow(self) -> None:
        """`take`, with what other networks wrote. What this network alone wrote stays where it is."""
        if self.value.mark() != self._seen or any(
            mark(tie.tensor) != tie._mine for tie in self.others_apart()
        ):
            self.value.read()
            self.take()


class Ties:
    """All ties of one network, by the names of its weights."""

    def __init__(self) -> None:
        self._ties: dict[str, Tie] = {}
        self._forget()

    def _forget(self) -> None:
        self._changes = -1
        self._mine: list[torch.Tensor] = []
        self._places: list[int] = []
        self._values: list[Value] = []
        self._others: list[torch.Tensor] = []
        self._marks: list[Mark] = []

    def __getitem__(self, name: str) -> Tie:
        return self._ties[name]

    def tie(self, name: str, value: Value, tensor: torch.Tensor) -> None:
        """Tie the tensor, and no longer the one that was tied under this name."""
        self._ties[name] = Tie(value, tensor)

    def follow(self) -> None:
        """Take what was written elsewhere. Asked at every call, so that a look must cost next to nothing."""
        if not self.agree() or [tensor.data_ptr() for tensor in self._mine] != self._places:
            self._follow_each()

    def agree(self) -> bool:
        """Whether nothing was written elsewhere, as long as our own tensors lie where they lay."""
        return self._changes == Tie.changes and self._elsewhere() == self._marks

    def _elsewhere(self) -> list[Mark]:
        return [value.mark() for value in self._values] + [mark(tensor) for tensor in self._others]

    def _follow_each(self) -> None:
        """Follow, and settle what is to be looked at: where our own tensors lie, in case `p.data = ...` moved
        one away from its value; and the versions of all whose memory is not ours."""
        ties = self._ties.values()
        self._mine = [tie.tensor for tie in ties]
        places = [tensor.data_ptr() for tensor in self._mine]
        if self._places not in ([], places):
            Tie.changed()
        self._places, self._changes = places, Tie.changes
        self._values, self._others = [], []
        for tie in ties:
            tie.follow()
            self._values += [tie.value] if tie.apart else []
            self._others += [other.tensor for other in tie.others_apart()]
        self._marks = self._elsewhere()

    # A pickle holds the values; the network ties its tensors to them again.
    def __getstate__(self) -> dict[str, Value]:
        return {name: tie.value for name, tie in self._ties.items()}

    def __setstate__(self, values: dict[str, Value]) -> None:
        self._untied = values
        self._ties = {}
        self._forget()

    def tie_again(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """After a pickle: the tensors that belong to the values."""
        for name, tensor in tensors.items():
            self.tie(name, self._untied[name], tensor)


class Holder(Protocol):
    """Values by the names of parameters."""

    def held(self, name: str) -> Value:
        """The value of that name."""

    def is_state(self, name: str) -> bool:
        """Whether no optimizer ever moves it: moving statistics."""


def holder(parameters: Any, trainable: Mapping[str, bool]) -> Holder:
    """Where a model keeps its weights; for tensors by name that nobody keeps, a place of our own."""
    return parameters if hasattr(parameters, "held") else _Loose(parameters, trainable)


class _Loose:
    """Weights given as plain tensors."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], trainable: Mapping[str, bool]) -> None:
        self._tensors, self._trainable = tensors, trainable

    def held(self, name: str) -> Value:
        return Value(self._tensors[name])

    def is_state(self, name: str) -> bool:
        return not self._trainable[name]


def owned(tensor: torch.Tensor, device: Any, dtype: torch.dtype) -> torch.Tensor:
    """A copy that counts its writes and can be trained, which tensors made in inference mode do not."""
    with torch.inference_mode(False):
        copy = tensor.detach().to(device=device, dtype=dtype, copy=True)
        return laid_out(copy) if copy.device.type == "cpu" else copy.contiguous()


def laid_out(weight: torch.Tensor) -> torch.Tensor:
    """The weight as it lies in the memory of a CPU: what has four axes with the last of them outermost, all
    else row-major; a copy only where it lies otherwise.

    So a convolution's kernel (R, S, C, K) is what PyTorch's operators call channels_last of (K, C, R, S), and
    a training step takes it as it is. GPUs' kernels read row-major memory.
    """
    if weight.dim() != 4:
        return weight.contiguous()
    return weight.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
