"""One step of an optimizer over a network's weights, and all that is around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..graph.errors import ConvLoomError
from .network import CompiledNetwork
from .optimizers import KerasOptimizer, LossScaleOptimizer, make_optimizer
from .optimizers.recipe import LearningRate
from .schedulers import Scheduler, find_scheduler
from .step_result import StepResult


def make_stepper(
    net: torch.nn.Module, optimizer: Any, learning_rate: LearningRate | None = None, scheduler: Any = None
) -> Stepper:
    """The stepper of an optimizer as `fit` takes it, with a loss scale where the network computes in float16.

    scheduler: of torch's, or a function that makes one for the optimizer. Raises ConvLoomError for what does
    not go together.
    """
    scale = None
    if isinstance(optimizer, LossScaleOptimizer):
        scale, optimizer = optimizer, optimizer.inner_optimizer
    made = make_optimizer(optimizer, net.named_parameters(), learning_rate)
    half = any(network.options.dtype == "float16" for network in networks_in(net))
    fixed = made.param_groups[0].get("loss_scale_factor") is not None
    if scale is None and half and not fixed:
        scale = LossScaleOptimizer(optimizer)
    scaler = None if scale is None else scale.scaler(next(net.parameters()).device)
    if scaler is not None and _asks_for_closure(made):
        raise ConvLoomError(
            f"{type(made).__name__} computes the loss several times in a step, and its lengths of steps do "
            f"not survive a loss scale; compile the network in float32 or bfloat16"
        )
    return Stepper(net, made, find_scheduler(scheduler, made), scaler)


class Stepper:
    """All that the training loop knows of an optimizer.

    scaler: multiplies the loss and divides the gradients; the step is left out where one has overflowed.
    skipped: how many steps in a row were left out, up to the last.
    by_closure: whether the optimizer computes the loss itself, several times a step.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.net, self.optimizer, self.scheduler, self.scaler = net, optimizer, scheduler, scaler
        self.networks = networks_in(net)
        self.skipped = 0
        self._scale = 1.0 if scaler is None else scaler.get_scale()
        self.swapped = False
        """Whether the averages stand in the place of the weights, and these in theirs."""
        self.by_closure = _asks_for_closure(optimizer)

    def step(self, compute: Callable[[], StepResult]) -> StepResult:
        """Move the weights by the gradient of what `compute` gives, and return that, detached.

        An optimizer that asks for a closure, such as LBFGS, calls `compute` several times; the first result
        is returned.
        """
        result = self._solve(compute) if self.by_closure else self._descend(compute)
        for network in self.networks:
            network.apply_constraints()
        if self.scheduler is not None and not self.skipped:
            self.scheduler.after_step()
        return result

    def _descend(self, compute: Callable[[], StepResult]) -> StepResult:
        self.optimizer.zero_grad(set_to_none=True)
        result = compute()
        loss = result.loss
        if isinstance(self.optimizer, KerasOptimizer):
            loss = self.optimizer.scale_loss(loss)
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            return result.detached()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        before, self._scale = self._scale, self.scaler.get_scale()
        self.skipped = self.skipped + 1 if self._scale < before else 0
        return result.detached()

    def _solve(self, compute: Callable[[], StepResult]) -> StepResult:
        found: list[StepResult] = []

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            result = compute()
            result.loss.backward()  # type: ignore[no-untyped-call]
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:  # LBFGS looks at each as one row of numbers
                        p.grad = p.grad.contiguous()
            found.append(result.detached())
            return result.loss

        self.optimizer.step(closure)  # type: ignore[arg-type]
        return found[0]

    def end_epoch(self, logs: Mapping[str, float]) -> None:
        """What a scheduler does after an epoch, with what that reported."""
        if self.scheduler is not None:
            self.scheduler.after_epoch(logs)

    # -- averages of the weights ----------
    def finish(self) -> None:
        """The weights to end with: where the optimizer averages them, the averages."""
        if self.swapped:
            self.swap_averages()
        if isinstance(self.optimizer, KerasOptimizer):
            self.optimizer.finalize_variable_values()

    @property
    def averages(self) -> bool:
        """Whether the optimizer averages the weights (`use_ema`)."""
        return any(group.get("use_ema") for group in self.optimizer.param_groups)

    def swap_averages(self) -> None:
        """Exchange the weights and their averages."""
        if isinstance(self.optimizer, KerasOptimizer):
            self.optimizer.swap_averages()
            self.swapped = not self.swapped

    # -- the learning rate ----------
    @property
    def learning_rate(self) -> float:
        """That of the next step; of several groups, the first one's, without its own factor."""
        group = self.optimizer.param_groups[0]
        schedule = getattr(self.optimizer, "schedule", None)
        if schedule is not None:
            return float(schedule(group["steps"]))
        return float(group["lr"]) / float(group.get("rate_factor", 1.0))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        """Groups keep their ratio to the first. Raises ConvLoomError where a schedule sets the rate."""
        if getattr(self.optimizer, "schedule", None) is not None:
            raise ConvLoomError(
                "the learning rate follows a schedule, and cannot be set; give the optimizer a number"
            )
        groups = self.optimizer.param_groups
        first = self.learning_rate
        for group in groups:
            own = float(group["lr"])
            group["lr"] = value if own == first or not first else value * (own / first)

    # -- state ----------
    def state_dict(self) -> dict[str, Any]:
        """Of the optimizer, the scheduler and the loss scale; None for what is not there."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "skipped": self.skipped,
            "swapped": self.swapped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ConvLoomError where the state is of another optimizer."""
        for name in ("scheduler", "scaler"):
            held, given = getattr(self, name), state.get(name)
            if (held is None) != (given is None):
                what = "scheduler" if name == "scheduler" else "loss scale"
                there, here = ("has a", "none") if held is None else ("has no", "one")
                raise ConvLoomError(f"the saved state {there} {what}, and here there is {here}")
            if held is not None:
                held.load_state_dict(given)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise ConvLoomError(
                f"the saved state is of another optimizer than {type(self.optimizer).__name__}: {error}"
            ) from None
        self.skipped = state.get("skipped", 0)
        self._scale = 1.0 if self.scaler is None else self.scaler.get_scale()
        self.swapped = state.get("swapped", False)


def _asks_for_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step cannot do without a closure."""
    parameters = list(inspect.signature(type(optimizer).step).parameters.values())
    return len(parameters) > 1 and parameters[1].default is inspect.Parameter.empty


def networks_in(net: torch.nn.Module) -> list[CompiledNetwork]:
    """The compiled networks in a module: itself, or what data parallelism and other modules wrap."""
    return [part for part in net.modules() if isinstance(part, CompiledNetwork)]
