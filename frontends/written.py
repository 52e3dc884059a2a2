"""What a file said of a layer, a call or a model: kept beside it, so that saving it can say the same again.

ConvLoom reads less than Keras writes: most initializers, dtype policies and build hints mean nothing to it.
The export takes them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .names import visible


@dataclass(frozen=True)
class Written:
    """A part of a file, as parsed, and never changed.

    keras_3: whether it is in Keras 3's form, in which it can be written again as it stands.
    values: the fields that a layer got from it; one that has been changed since is not taken from the file.
    """

    data: Mapping[str, Any]
    keras_3: bool
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        config = self.data.get("config")
        return config if isinstance(config, Mapping) else {}

    def original(self, name: str) -> str:
        """The file's name for what is called `name` now: the same, but for characters that are escaped."""
        said = self.data.get("name") or self.config.get("name")
        return said if isinstance(said, str) and visible(said) == name else name
