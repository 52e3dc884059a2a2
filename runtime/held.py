"""A module whose parameters and buffers are a model's weights: named, copied, moved and loaded as such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch

from ..graph.errors import CompileError
from ..graph.values import Ties, Value
from ..graph.weights import State, Watch, Weight
from .options import Options


class _Settled(NamedTuple):
    """Weights by their names, and what tells whether they are still those."""

    weights: dict[str, torch.Tensor]
    registered: list[int]
    watch: Watch


class HeldWeights(torch.nn.Module):
    """Weights tied to the values of a model, under their names; see `graph.values`."""

    options: Options
    name: str
    _keys: dict[str, str]
    """Of each weight, the name under which torch has it."""
    _ties: Ties
    _settled: _Settled | None = None

    def _follow_layers(self) -> None:
        """Freeze and free what the model's layers do now."""

    def _adopt(self, name: str, value: Value, trainable: bool, state: bool) -> None:
        """Register a weight under its name; torch forbids dots in names, so they are spelled %2E there.

        What an optimizer can move is a parameter, though it asks for no gradient while its layer is frozen.
        """
        self._keys[name] = key = name.replace("%", "%25").replace(".", "%2E")
        tensor = value.tied(self.options.device, self.options.kept_dtype)
        with torch.inference_mode(False):
            made = State(tensor) if state else Weight(tensor, trainable)
        if isinstance(made, Weight):
            self.register_parameter(key, made)
        else:
            self.register_buffer(key, made)
        self._ties.tie(name, value, made)

    def weights(self) -> dict[str, torch.Tensor]:
        """Every weight by its name, moving statistics included, as the model has them now.

        The very same dictionary as long as none can have been written to: asked at every call.
        """
        self._follow_layers()
        settled, registered = self._settled, self._identities()
        if (
            settled is not None
            and settled.registered == registered
            and self._ties.agree()
            and settled.watch.unchanged()
        ):
            return settled.weights
        self._ties.follow()
        weights = self._registered()
        known = Watch.can_watch(weights.values())
        self._settled = _Settled(weights, registered, Watch(weights.values())) if known else None
        return weights

    def _identities(self) -> list[int]:
        """Of the tensors that torch has now."""
        return [*map(id, self._parameters.values()), *map(id, self._buffers.values())]

    def _registered(self) -> dict[str, torch.Tensor]:
        parameters, buffers = self._parameters, self._buffers
        try:
            return {
                name: parameters[key] if key in parameters else buffers[key]  # type: ignore[misc]
                for name, key in self._keys.items()
            }
        except KeyError as error:
            raise CompileError(
                f"{self.name} no longer has its weight {error.args[0]!r}: torch.nn.utils.prune, parametrize "
                f"and their like put something else in its place, which a compiled network does not follow; "
                f"write into the weight instead"
            ) from None

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """As torch has it; those of layers that are frozen now ask for no gradient."""
        self._follow_layers()
        return super().named_parameters(prefix, recurse, remove_duplicate)

    # -- what torch does to modules ----------
    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What `to`, `half` and their like end in. Another device or dtype is refused before any move."""
        probe = torch.empty(0, device=self.options.device, dtype=self.options.kept_dtype)
        try:
            probe = fn(probe)
        except (AssertionError, RuntimeError) as error:  # what torch says where there is no such device
            reason = str(error).splitlines()[0]
            raise CompileError(f"{self.name} cannot be moved there: {reason}") from None
        self._check_place(probe)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._put_back()
        return self

    def _check_place(self, tensor: torch.Tensor) -> None:
        """Raises CompileError where a weight would lie on another device, or have another dtype."""
        o = self.options
        for what, wanted, found in (
            ("device", o.device, tensor.device),
            ("dtype", o.kept_dtype, tensor.dtype),
        ):
            if wanted != found:
                known, other = (str(place).removeprefix("torch.") for place in (wanted, found))
                raise CompileError(
                    f"{self.name} is compiled for {known}; compile its model again for another {what}, such "
                    f"as {other}"
                )

    def _put_back(self) -> None:
        """Where torch put another tensor in the place of a weight, the weight takes its numbers instead: a
        model, other networks and an optimizer may hold it."""
        for name, found in self._registered().items():
            weight = self._ties[name].tensor
            if found is not weight:
                with torch.no_grad():
                    weight.copy_(found)
                home = self._parameters if isinstance(weight, Weight) else self._buffers
                home[self._keys[name]] = weight  # type: ignore[assignment]

    def _save_to_state_dict(self, *given: Any) -> None:
        self.weights()
        super()._save_to_state_dict(*given)

    def _load_from_state_dict(self, *given: Any) -> None:
        self.weights()  # what others wrote counts as earlier
        super()._load_from_state_dict(*given)
        self._put_back()
