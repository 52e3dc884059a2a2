"""A run's state as plain JSON beside named tensors, and back: every bit, and nothing that could run.

State is dictionaries, lists, tuples, numbers, text, None, tensors and arrays, nested in any way. What JSON
has no word for is a dictionary of one key that begins with "$"; anything else is refused when it is saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ...graph.errors import ConvLoomError

Tensors = dict[str, torch.Tensor]


def encode(state: Any, tensors: Tensors, where: str = "state") -> Any:
    """The state as JSON's values. Its tensors are added to `tensors`, on the CPU, under the place they have.

    Raises ConvLoomError, naming the place, for what has no such form.
    """
    if state is None or isinstance(state, bool | str):
        return state
    if isinstance(state, np.generic):
        return {"$scalar": [state.dtype.str, encode(state.item(), tensors, where)]}
    if isinstance(state, int):
        return int(state)
    if isinstance(state, float):
        return float(state) if math.isfinite(state) else {"$number": repr(float(state))}
    if isinstance(state, torch.Tensor):
        return _tensor(state, tensors, where)
    if isinstance(state, np.ndarray):
        return _array(state, tensors, where)
    if isinstance(state, list):
        return [encode(value, tensors, f"{where}/{place}") for place, value in enumerate(state)]
    if isinstance(state, tuple):
        return {"$tuple": encode(list(state), tensors, where)}
    if isinstance(state, bytes):
        return {"$bytes": state.hex()}
    if isinstance(state, Mapping):
        return _mapping(state, tensors, where)
    raise ConvLoomError(
        f"a checkpoint cannot hold {where}, a {type(state).__name__}: it keeps numbers, text, tensors and "
        f"arrays in lists and dictionaries. Let state_dict() give those"
    )


def _mapping(state: Mapping[Any, Any], tensors: Tensors, where: str) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in state):
        return {key: encode(value, tensors, f"{where}/{key}") for key, value in state.items()}
    pairs = []
    for key, value in state.items():
        if not (key is None or isinstance(key, str | int | float | tuple)):
            raise ConvLoomError(f"a checkpoint cannot hold {where}: a key is a {type(key).__name__}")
        pairs.append([encode(key, tensors, where), encode(value, tensors, f"{where}/{key}")])
    return {"$dict": pairs}


def _tensor(value: torch.Tensor, tensors: Tensors, where: str) -> Any:
    """Its numbers row by row, and how it lay: an optimizer's state lies as its weight does."""
    given = value.detach()
    if given.is_complex() or given.is_quantized or given.layout != torch.strided:
        raise ConvLoomError(
            f"a checkpoint cannot hold {where}: a tensor of dtype {given.dtype}, {given.layout}"
        )
    tensors[where] = given.to("cpu").contiguous()
    strides = given.stride()
    plain = given.is_contiguous() or not _is_dense(given)
    return {"$tensor": where} if plain else {"$tensor": where, "strides": list(strides)}


def _array(value: np.ndarray[Any, Any], tensors: Tensors, where: str) -> Any:
    if value.dtype.kind not in "fiub":
        raise ConvLoomError(f"a checkpoint cannot hold {where}: an array of dtype {value.dtype}")
    native = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
    tensors[where] = torch.from_numpy(native.reshape(-1).view(np.uint8).copy())
    return {"$array": where, "dtype": native.dtype.name, "shape": list(value.shape)}


def _is_dense(value: torch.Tensor) -> bool:
    """Whether it fills its memory without gaps, its axes in some order."""
    expected = 1
    for stride, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `encode` was given. Raises ValueError or KeyError where the file says something else."""
    if isinstance(value, list):
        return [decode(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    sign = next((key for key in value if key.startswith("$")), None)
    if sign is None:
        return {key: decode(part, tensors) for key, part in value.items()}
    return _SIGNS[sign](value, tensors)


def _scalar(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    kind, number = value["$scalar"]
    return _plain(kind).type(decode(number, tensors))


def _plain(kind: str) -> np.dtype[Any]:
    found = np.dtype(kind)
    if found.kind not in "fiub":
        raise ValueError(f"dtype {kind!r}")
    return found


def _laid_out(value: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    found = tensors[value["$tensor"]]
    strides = value.get("strides")
    if strides is None:
        return found
    if not _is_dense(torch.empty_strided(found.shape, strides, device="meta")):
        raise ValueError(f"strides {strides} of {value['$tensor']}")
    return torch.empty_strided(found.shape, strides, dtype=found.dtype).copy_(found)


def _shaped(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    raw = tensors[value["$array"]].numpy()
    return raw.view(_plain(value["dtype"])).reshape(value["shape"])


_SIGNS: dict[str, Callable[[Any, Mapping[str, torch.Tensor]], Any]] = {
    "$array": _shaped,
    "$bytes": lambda value, _: bytes.fromhex(value["$bytes"]),
    "$dict": lambda value, found: {decode(k, found): decode(v, found) for k, v in value["$dict"]},
    "$number": lambda value, _: float(value["$number"]),
    "$scalar": _scalar,
    "$tensor": _laid_out,
    "$tuple": lambda value, found: tuple(decode(value["$tuple"], found)),
}
