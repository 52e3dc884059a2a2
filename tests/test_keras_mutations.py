"""Valid files changed at random: each becomes a working network or a ConvLoomError, never anything else."""

from __future__ import annotations

import copy
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convloom.frontends import Limits, Model, load, loads
from convloom.graph.errors import ConvLoomError
from convloom.graph.verify import verify

DATA = Path(__file__).parent / "data"
LENET5 = Path(__file__).parents[1] / "examples" / "keras_lenet5"
DESCRIPTIONS = (LENET5 / "lenet5.json", DATA / "lenet5_keras2.json", DATA / "tiny_resnet.json")
CASES = DATA / "layer_cases"
SMALL = Limits(parameters=10**7, tensor_elements=10**7, total_elements=10**8)
"""A mutated network may be large, and still be right; here it need not be."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**9, 2**31, 2**63 - 1, 2**80, -(2**80), 0.5, -1.5, 1e308, 1e-320),
    *("", "relu", "softmax", "same", "channels_first", "x" * 300, "\x1b[31m", "[bold]", "../x", "a/b"),
    *([], [None], [1], [0, 0], [3, 3], [[1, 1], [2, 2]], [["stem", 0, 0]], {}, {"class_name": "x"}),
    *({"class_name": "__numpy__", "config": {"value": 3}}, {"class_name": "Dense", "config": {"units": 3}}),
    *({"class_name": "__slice__", "config": {"start": 1, "stop": -1, "step": -2}},),
    *({"class_name": "__ellipsis__", "config": {}}, "Mean", "GetItem", "Split", "Power", "Masking"),
    *("Dense", "Conv2D", "Flatten", "Add", "Concatenate", "InputLayer", "Functional", "Sequential"),
)

Spot = tuple[Any, Any]
"""What holds a value, and under which key."""


def spots(value: Any) -> Iterator[Spot]:
    keys: Any = (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from spots(value[key])


def mutate(data: Any, draw: random.Random) -> None:
    """One change anywhere: drop, duplicate, replace by another type, resize, swap."""
    places = list(spots(data))
    if not places:
        return
    holder, key = draw.choice(places)
    kind = draw.choice(("drop", "duplicate", "retype", "retype", "resize", "swap", "move"))
    if kind == "drop":
        del holder[key]
    elif kind == "duplicate" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == "duplicate":
        holder[f"{key}_2"] = copy.deepcopy(holder[key])
    elif kind == "resize" and isinstance(holder[key], int):
        holder[key] = draw.choice((holder[key] * 2, holder[key] + 1, -holder[key], holder[key] // 2))
    elif kind == "swap":
        other, name = draw.choice(places)
        if not inside(holder[key], other) and not inside(other[name], holder):
            holder[key], other[name] = other[name], holder[key]
    elif kind == "move":
        other, name = draw.choice(places)
        holder[key] = copy.deepcopy(other[name])
    else:
        holder[key] = copy.deepcopy(draw.choice(VALUES))


def inside(value: Any, holder: Any) -> bool:
    return value is holder or any(inside(v[k], holder) for v, k in spots(value) if v[k] is holder)


def works(model: Model) -> None:
    """What a loaded network can do: its graph obeys the specification, and it can be shown."""
    graph = model.to_graph()
    verify(graph)
    model.summary(print_fn=lambda text: None)
    assert model.count_params() >= 0


def attempt(make: Callable[[], Model], what: str) -> bool:
    """Whether it loads; fails where anything but a ConvLoomError comes of it."""
    refusal = ""
    try:
        works(make())
    except ConvLoomError as error:
        refusal = str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}, for {what}") from error
    assert refusal.isprintable(), what
    assert len(refusal) < 5_000, what
    return not refusal


def mutated_descriptions(seed: int, count: int) -> None:
    sources = [json.loads(path.read_text()) for path in DESCRIPTIONS]
    for path in sorted(CASES.glob("*.npz")):
        with np.load(path) as stored:
            sources += [json.loads(stored[key].tobytes()) for key in stored.files if key.endswith("/json")]
    loaded = 0
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        data = copy.deepcopy(draw.choice(sources))
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            mutate(data, draw)
        loaded += attempt(lambda data=data: loads(data, limits=SMALL), f"seed {seed} {number}")  # type: ignore[misc]
    assert 0 < loaded < count


def mutated_bytes(folder: Path, seed: int, count: int) -> None:
    """Bytes of a `.keras` and of a `.weights.h5` overwritten, cut out, repeated."""
    archive = folder / "net.keras"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("config.json", (DATA / "tiny_resnet.json").read_text())
        made.write(DATA / "tiny_resnet.weights.h5", "model.weights.h5")
    weights = (DATA / "tiny_resnet.weights.h5").read_bytes()
    changed, stored = folder / "changed.keras", folder / "changed.h5"
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        changed.write_bytes(damaged(archive.read_bytes(), draw))
        attempt(lambda: load(changed, limits=SMALL), f"archive, seed {seed} {number}")
        stored.write_bytes(damaged(weights, draw))
        description = DATA / "tiny_resnet.json"
        attempt(lambda: load(description, weights=stored, limits=SMALL), f"HDF5, seed {seed} {number}")  # noqa: B023


def damaged(data: bytes, draw: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(draw.choice((1, 1, 4, 16))):
        at, length = draw.randrange(len(result)), draw.choice((1, 1, 4, 64))
        kind = draw.choice(("flip", "flip", "cut", "repeat", "end"))
        if kind == "flip":
            result[at : at + length] = draw.randbytes(len(result[at : at + length]))
        elif kind == "cut":
            del result[at : at + length]
        elif kind == "repeat":
            result[at:at] = result[at : at + length]
        elif kind == "end" and at > 100:
            del result[at:]
    return bytes(result)


def mutated_weights(folder: Path, seed: int, count: int) -> None:
    """The objects of a `.weights.h5` dropped, copied, moved, given other types and shapes."""
    path = folder / "w.h5"
    source = (DATA / "tiny_resnet.weights.h5").read_bytes()
    loaded = 0
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        path.write_bytes(source)
        with h5py.File(path, "a") as file:
            for _ in range(draw.choice((1, 1, 3))):
                mutate_object(file, draw)
        loaded += attempt(lambda: load(DATA / "tiny_resnet.json", weights=path), f"seed {seed} {number}")
    assert 0 <= loaded < count


def mutate_object(file: h5py.File, draw: random.Random) -> None:
    names: list[str] = []
    file.visit(names.append)
    data = [name for name in names if isinstance(file[name], h5py.Dataset)]
    if not data:
        return
    name, other = draw.choice(names), draw.choice(data)
    kind = draw.choice(("drop", "copy", "swap", "link", "retype", "resize", "group"))
    if kind == "drop":
        del file[name]
    elif kind == "copy":
        file.copy(other, f"layers/copy_{len(names)}/vars/0")
    elif kind == "swap":
        one = draw.choice(data)
        first, second = file[one][()], file[other][()]
        del file[one]
        file[one] = second
        if one != other:
            del file[other]
            file[other] = first
    elif kind == "link":
        del file[other]
        target = draw.choice((h5py.SoftLink("/layers"), h5py.ExternalLink("no.h5", "/x"), file["layers"]))
        file[other] = target
    elif kind == "retype":
        shape = file[other].shape
        del file[other]
        file[other] = np.zeros(shape, draw.choice(("f2", "f8", "i4", "c8", "S3", "?", "u1", "f4")))
    elif kind == "resize":
        shape = file[other].shape
        del file[other]
        file[other] = np.zeros(
            draw.choice(((), (0,), shape[::-1], (*shape, 1), shape[1:], (3, *shape))), "f4"
        )
    else:
        del file[other]
        file.create_group(other)


def test_mutated_descriptions_work_or_are_refused() -> None:
    mutated_descriptions(1, 2_500)


def test_mutated_bytes_work_or_are_refused(tmp_path: Path) -> None:
    mutated_bytes(tmp_path, 1, 60)


def test_mutated_weights_work_or_are_refused(tmp_path: Path) -> None:
    mutated_weights(tmp_path, 1, 100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_thousands_of_mutations_work_or_are_refused(seed: int, tmp_path: Path) -> None:
    mutated_descriptions(seed, 2_000)
    mutated_bytes(tmp_path, seed, 500)
    mutated_weights(tmp_path, seed, 500)
