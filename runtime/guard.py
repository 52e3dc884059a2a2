"""Stops training where the loss or the weights are no longer finite, with the last good weights in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from ..graph.words import words
from .batch import Batch
from .not_finite import explain
from .random_state import random_state, set_random_state
from .stepping import networks_in

MOST_SKIPPED = 40
"""Steps that may overflow in a row: from 2^15 the loss scale is then below 2^-24, float16's least number."""


@dataclass
class _Outcome:
    """What a step came to. total: finite where everything is; on the CPU, to be read once `ready` has passed.
    slot: of the weights from before it.
    """

    number: int
    slot: int
    total: torch.Tensor
    ready: torch.cuda.Event | None
    loss: torch.Tensor
    batch: Batch


class Guard:
    """Call `before` each step, and `after` it with its loss.

    The weights and statistics from before a step are kept until its outcome is known. On the CPU that is at
    once. On a GPU (`late`) a step's outcome is read while the next step's work is already under way, so that
    reading it does not keep the GPU waiting; two copies of the weights are held for that.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        device: torch.device,
        late: bool | None = None,
        loss: Callable[[Batch], torch.Tensor] | None = None,
    ) -> None:
        """loss: computes that of a batch; with it the error tells which layer and op are at fault."""
        self.net, self.device, self.loss = net, device, loss
        self.draws: list[dict[str, Any]] = [{}, {}]
        self.late = device.type == "cuda" if late is None else late
        self.trained: list[torch.Tensor] = [p for p in net.parameters() if p.requires_grad]
        self.statistics = list(net.buffers())
        self.copies = [
            [t.detach().clone() for t in (*self.trained, *self.statistics)]
            for _ in range(2 if self.late else 1)
        ]
        self.versions = [[t._version for t in self.statistics] for _ in self.copies]
        self.pending: _Outcome | None = None
        self.number = 0

    @torch.no_grad()
    def before(self) -> None:
        """Keep the weights, and the statistics that have changed, as they are now."""
        slot = self.number % len(self.copies)
        kept, count = self.copies[slot], len(self.trained)
        if self.loss is not None:
            self.draws[slot] = self._random_state()
        torch._foreach_copy_(kept[:count], self.trained)
        for place, statistic in enumerate(self.statistics):
            if statistic._version != self.versions[slot][place]:
                kept[count + place].copy_(statistic)
                self.versions[slot][place] = statistic._version

    @torch.no_grad()
    def after(self, loss: torch.Tensor, batch: Batch) -> None:
        """Take in a step that is done; raises ConvLoomError for it or, on a GPU, for the one before."""
        loss = loss.detach()
        # The root of a sum of squares: one fast pass, NaN or infinite where a weight is or is beyond 1e19.
        sizes = torch._foreach_norm(self.trained)
        total = torch.stack([loss.reshape(()).to(sizes[0].dtype), *sizes]).sum()
        ready = None
        if loss.device.type == "cuda":
            total = total.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(torch.cuda.current_stream(loss.device))
        outcome = _Outcome(self.number, self.number % len(self.copies), total, ready, loss, batch)
        self.number += 1
        if not self.late:
            self._judge(outcome)
            return
        last, self.pending = self.pending, outcome
        if last is not None:
            self._judge(last)

    @torch.no_grad()
    def skip(self, times: int) -> None:
        """Take in a step whose gradients overflowed, so that the weights stayed as they are.

        Statistics that became NaN or infinite with it are put back. times: how many such steps there were in
        a row; raises ConvLoomError where halving the loss scale has not helped.
        """
        kept = self.copies[self.number % len(self.copies)][len(self.trained) :]
        for statistic, before in zip(self.statistics, kept, strict=True):
            if statistic.is_floating_point() and not bool(torch.isfinite(statistic).all()):
                statistic.copy_(before)
        if times >= MOST_SKIPPED:
            raise ConvLoomError(
                f"training stopped: the gradients of {times} steps in a row were NaN or infinite, however "
                f"small the loss scale; the network's own values leave the range of float16. Use bfloat16, a "
                f"lower {words('learning_rate', '--learning-rate')}, or inputs scaled to about 1"
                + words("; fit(..., stop_on_nan=False) would go on")
            )

    def finish(self) -> None:
        """Read what is still to be read; raises ConvLoomError as `after`."""
        last, self.pending = self.pending, None
        if last is not None:
            self._judge(last)

    def _judge(self, outcome: _Outcome) -> None:
        if outcome.ready is not None:
            outcome.ready.synchronize()
        if math.isfinite(float(outcome.total)):
            return
        self._put_back(outcome.slot)
        loss = float(outcome.loss)
        what = (
            f"the loss is {loss}"
            if not math.isfinite(loss)
            else f"the loss is {loss:.4g}, but the step made weights NaN or beyond 1e19"
        )
        broken = [name for name, part in zip("xy", _sides(outcome.batch), strict=True) if not part]
        cause = (
            f"the batch's {' and '.join(broken)} holds NaN or infinite values; clean the data"
            if broken
            else f"a lower {words('learning_rate', '--learning-rate')} or inputs scaled to about 1 may help"
        )
        if self.loss is not None:
            cause = f"{self._explained(outcome)}; {cause}"
        elif not broken:
            cause += words("; fit(..., debug_nan=True) names the layer and op that made it")
        raise ConvLoomError(
            f"training stopped at step {outcome.number + 1}: {what}; {cause}. "
            + words(
                "The weights are those from before this step; fit(..., stop_on_nan=False) would go on",
                "No weights were saved",
            )
        )

    def _put_back(self, slot: int) -> None:
        """The weights and statistics from before a step."""
        with torch.no_grad():
            torch._foreach_copy_([*self.trained, *self.statistics], self.copies[slot])

    def _random_state(self) -> dict[str, Any]:
        streams = [network._streams.state_dict() for network in networks_in(self.net)]
        return {**random_state(self.device), "streams": streams}

    def _explained(self, outcome: _Outcome) -> str:
        """What `debug_nan` says of a step, which is computed once more for it."""
        now, then, loss = self._random_state(), self.draws[outcome.slot], self.loss
        assert loss is not None
        self._set_random_state(then)
        try:
            return explain(self.net, lambda: loss(outcome.batch))
        finally:
            self._set_random_state(now)
            self._put_back(outcome.slot)

    def _set_random_state(self, state: Mapping[str, Any]) -> None:
        set_random_state(state, self.device)
        for network, streams in zip(networks_in(self.net), state["streams"], strict=True):
            network._streams.load_state_dict(streams, self.device)


def _sides(batch: Batch) -> tuple[bool, bool]:
    """Whether the inputs are finite, and the targets with the weights of the examples."""
    given = [t for t in (*batch.targets, *(batch.weights or ())) if t is not None]
    inputs, targets = ([bool(torch.isfinite(t).all()) for t in side] for side in (batch.inputs, given))
    return all(inputs), all(targets)
