"""A model's own `compile`, `fit` and the rest: one network and one trainer behind it, which are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..graph.errors import ConvLoomError
from .compile import compile
from .history import History
from .inputs import is_array
from .network import CompiledNetwork
from .stepping import Stepper
from .trainer import Trainer


class ModelTrainer:
    """Hands a model's calls to a `Trainer` of the network that it is compiled to at the first of them."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.history: History | None = None
        self._options: dict[str, Any] = {}
        self._settings: dict[str, Any] | None = None
        self._net: CompiledNetwork | None = None
        self._weights: Any = None
        self._trainer: Trainer | None = None

    def compile(self, settings: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """settings: of the `Trainer`. options: of `compile`; the network is kept where they stay the same."""
        if options != self._options or self._is_stale():
            self._net = None
        self._options, self._settings, self._trainer = dict(options), dict(settings), None
        if getattr(self.model, "end", self) is not None:  # a chain without an input shape waits for one
            self._made()

    @property
    def net(self) -> CompiledNetwork:
        """The model, compiled."""
        if self._is_stale():
            raise ConvLoomError(
                f"{self.model.label}: has other layers than when it was compiled; call compile() again"
            )
        if self._net is None:
            self._net = compile(self.model, **self._options)
            self._weights = self.model.parameters
        return self._net

    def _is_stale(self) -> bool:
        return self._net is not None and self._weights is not self.model.parameters

    @property
    def stepper(self) -> Stepper | None:
        return self._made().stepper if self._settings is not None else None

    def _made(self) -> Trainer:
        net = self.net
        if self._trainer is None:
            settings = self._settings or {}
            if settings.get("loss") is None:
                settings = {**settings, "optimizer": None}
            self._trainer = Trainer(net, model=self.model, **settings)
        return self._trainer

    def _compiled(self, method: str) -> Trainer:
        """Raises ConvLoomError for a model that has no loss."""
        if (self._settings or {}).get("loss") is None:
            raise ConvLoomError(
                f"{self.model.label}: {method} needs a loss: call compile(optimizer='adam', "
                f"loss='categorical_crossentropy') first, for example"
            )
        return self._made()

    def given(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """x, (x, y) or (x, y, weights) as one; raises ConvLoomError where x brings its own."""
        if y is None and sample_weight is None:
            return x
        if not (is_array(x) or isinstance(x, list | tuple | Mapping)):
            what = "targets; leave y out" if y is not None else "weights; leave sample_weight out"
            raise ConvLoomError(f"x is a {type(x).__name__} and brings its own {what}")
        if y is None:
            raise ConvLoomError("sample_weight goes with x and y; give y too")
        return (x, y) if sample_weight is None else (x, y, sample_weight)

    def in_order(self, logs: Mapping[str, float]) -> Any:
        """Values as Keras lists them: the loss, those of the outputs, the metrics; a single one alone."""
        assert self._trainer is not None
        first = [name for name in self._trainer.sums().means if name in logs]
        rest = [name for name in logs if name not in first]
        if len(self._trainer.names.outputs) > 1:
            rest = sorted(rest)
        found = [logs[name] for name in (*first, *rest)]
        return found[0] if len(found) == 1 else found

    def _begin(self, data: Any) -> None:
        """Give a chain that has no input shape yet that of its first data, where that is an array."""
        x = data[0] if isinstance(data, tuple) and data else data
        if is_array(x) and x.ndim and getattr(self.model, "end", self) is None:
            self.model.build((None, *x.shape[1:]))

    # -- the methods ----------
    def fit(self, data: Any, **options: Any) -> History:
        self._begin(data)
        self.history = self._compiled("fit").fit(data, **options)
        return self.history

    def evaluate(self, data: Any, **options: Any) -> dict[str, float]:
        self._begin(data)
        return self._compiled("evaluate").evaluate(data, **options)

    def train_on_batch(self, data: Any, class_weight: Any) -> dict[str, float]:
        self._begin(data)
        return self._compiled("train_on_batch").train_on_batch(data, class_weight)

    def test_on_batch(self, data: Any) -> dict[str, float]:
        self._begin(data)
        return self._compiled("test_on_batch").test_on_batch(data)

    def predict(self, x: Any, **options: Any) -> Any:
        self._begin(x)
        return self._made().predict(x, **options)

    def predict_on_batch(self, x: Any) -> Any:
        self._begin(x)
        return self._made().predict_on_batch(x)
