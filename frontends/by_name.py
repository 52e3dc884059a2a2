"""Small objects that an argument takes as Keras does: the object, its class, its name, or what a file has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from ..graph.errors import ConvLoomError, ShapeError, UnsupportedLayerError, nearest
from ..graph.op import snake_case

PACKAGES = ("keras", "tf_keras", "tensorflow")
"""Whose classes the names are."""


@dataclasses.dataclass(frozen=True)
class Named:
    """Base of such objects: frozen dataclasses with Keras's arguments, each checked."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            try:
                object.__setattr__(self, field.name, field.metadata["check"](getattr(self, field.name)))
            except ConvLoomError as error:
                raise type(error)(f"{type(self).__name__}: {field.name} {error}") from None

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras's files have them."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of `get_config`; raises UnsupportedLayerError for arguments there are not."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in config:
            if key not in known:
                raise UnsupportedLayerError(
                    f"{cls.__name__}: unknown argument {key!r:.80}; it takes {', '.join(known) or 'none'}"
                )
        return cls(**config)


class Finder:
    """What an argument says -> an object of `classes`, or None. Errors go on after "<layer>: <argument> ".

    kind: "regularizer". names: shorter than those of the classes, with what they mean.
    """

    def __init__(
        self, kind: str, classes: tuple[type[Named], ...], names: Mapping[str, Named] | None = None
    ) -> None:
        self.kind, self.classes = kind, {cls.__name__: cls for cls in classes}
        self.names = dict(names or {})

    def __call__(self, value: Any) -> Any:
        if value is None or type(value) in self.classes.values():
            return value
        if isinstance(value, type) and value in self.classes.values():
            return value()
        if isinstance(value, str):
            return self._by_name(value)
        if isinstance(value, Mapping):
            return self._from_file(value)
        raise UnsupportedLayerError(
            f"{_described(value)} is no {self.kind} of convloom.{self.kind}s, which has {self._listed()}"
        )

    def _by_name(self, name: str) -> Named:
        known = {**{snake_case(key): cls for key, cls in self.classes.items()}, **self.classes}
        if name in self.names:
            return self.names[name]
        if name in known:
            return known[name]()
        hint = nearest(name, [*self.names, *known]) or f"; use one of {self._listed()}"
        raise UnsupportedLayerError(f"{name!r:.80} is not a known {self.kind}{hint}")

    def _from_file(self, said: Mapping[str, Any]) -> Named:
        name, config = said.get("class_name"), said.get("config", {})
        module, registered = said.get("module"), said.get("registered_name")
        if not isinstance(name, str) or not isinstance(config, Mapping):
            raise ShapeError(f"must be an object with class_name and config, got {str(dict(said))[:80]!r}")
        root, *path = str(module).split(".")
        foreign = module is not None and (root not in PACKAGES or f"{self.kind}s" not in path)
        if foreign or registered not in (None, name):
            where = f" of module {module!r:.80}" if foreign else f", registered as {registered!r:.80},"
            raise UnsupportedLayerError(
                f"{name!r:.80}{where} is not a known {self.kind}; use one of {self._listed()}"
            )
        found = type(self._by_name(name))
        return found.from_config({str(key): _number(value) for key, value in config.items()})

    def _listed(self) -> str:
        return ", ".join(self.classes)


def _number(value: Any) -> Any:
    """A number that Keras wrapped as an array of NumPy, or of its backend."""
    if isinstance(value, Mapping) and value.get("class_name") in ("__numpy__", "__tensor__"):
        config = value.get("config")
        return config.get("value") if isinstance(config, Mapping) else value
    return value


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__module__}.{value.__qualname__}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    kind = type(value)
    if kind.__module__ != "builtins":
        return f"an object of {kind.__module__}.{kind.__qualname__}"
    return f"{str(value)[:60]!r}"
