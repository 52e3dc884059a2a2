"""Random recipes: layers of every kind, with odd sizes, in graphs with branches and several outputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from convloom.graph.errors import ConvLoomError
from fuzz_recipes import Growing, Recipe, Step

Shape = tuple[int, ...]
Options = dict[str, Any]
Chooser = Callable[[random.Random, Shape], Options]

MOST_ELEMENTS = 800
"""Of one value, for one image."""

CHANNELS = (1, 2, 3, 4, 5, 8, 17)
SIZES = (1, 2, 3, 4, 5, 6, 7, 9)
ACTIVATIONS = (
    *(
        "relu",
        "relu",
        "relu",
        "relu6",
        "leaky_relu",
        "sigmoid",
        "log_sigmoid",
        "tanh",
        "hard_tanh",
        "tanh_shrink",
    ),
    *("hard_shrink", "soft_shrink", "swish", "gelu", "elu", "selu", "softmax", "log_softmax", "sparsemax"),
    *("hard_sigmoid", "sparse_sigmoid", "sparse_plus", "hard_swish", "exponential", "softplus", "squareplus"),
    *("softsign", "mish"),
)


# -- options of layers ---------------------------------------------------------------------------------------
def _sizes(r: random.Random, count: int, most: int = 3) -> Any:
    found = tuple(r.randint(1, most) for _ in range(count))
    return found[0] if r.random() < 0.5 else found[0] if count == 1 else found


def _activation(r: random.Random) -> Options:
    return {"activation": r.choice(ACTIVATIONS)} if r.random() < 0.5 else {}


def _window(r: random.Random, shape: Shape, strides: bool = True, dilation: bool = True) -> Options:
    rank = len(shape) - 1
    options: Options = {"kernel_size": _sizes(r, rank)}
    if r.random() < 0.5:
        options["padding"] = "same"
    if strides and r.random() < 0.4:
        options["strides"] = _sizes(r, rank)
    elif dilation and r.random() < 0.25:
        options["dilation_rate"] = _sizes(r, rank, 2)
    if r.random() < 0.25:
        options["use_bias"] = False
    return options


def _convolution(r: random.Random, shape: Shape) -> Options:
    options = {"filters": r.choice(CHANNELS), **_window(r, shape), **_activation(r)}
    groups = [g for g in (2, 3, 4, shape[-1]) if g > 1 and shape[-1] % g == 0]
    if groups and r.random() < 0.25:
        options["groups"] = r.choice(groups)
        options["filters"] = options["groups"] * r.randint(1, 2)
    return options


def _depthwise(r: random.Random, shape: Shape) -> Options:
    options = _window(r, shape, strides=False)
    if "dilation_rate" not in options:
        options["strides"] = r.choice((1, 1, 2))
    return {**options, "depth_multiplier": r.choice((1, 1, 2, 3))}


def _separable(r: random.Random, shape: Shape) -> Options:
    return {"filters": r.choice(CHANNELS), **_depthwise(r, shape), **_activation(r)}


def _transposed(r: random.Random, shape: Shape) -> Options:
    return {"filters": r.choice(CHANNELS[:5]), **_window(r, shape, dilation=False), **_activation(r)}


def _pool(r: random.Random, shape: Shape) -> Options:
    rank = len(shape) - 1
    options: Options = {"pool_size": _sizes(r, rank)}
    if r.random() < 0.5:
        options["strides"] = _sizes(r, rank)
    if r.random() < 0.5:
        options["padding"] = "same"
    return options


def _global(r: random.Random, shape: Shape) -> Options:
    return {"keepdims": True} if r.random() < 0.5 else {}


def _batch_norm(r: random.Random, shape: Shape) -> Options:
    options: Options = {}
    if r.random() < 0.2:
        options["center"] = False
    if r.random() < 0.2:
        options["scale"] = False
    if r.random() < 0.3:
        options["momentum"] = r.choice((0.9, 0.5))
    if len(shape) > 1 and r.random() < 0.15:
        options["axis"] = r.randint(1, len(shape) - 1)
    return options


def _own_norm(r: random.Random, shape: Shape) -> Options:
    if len(shape) > 1 and r.random() < 0.3:
        return {"axis": r.choice((1, tuple(range(1, len(shape) + 1)), (-2, -1)))}
    return {}


def _group_norm(r: random.Random, shape: Shape) -> Options:
    return {"groups": r.choice([g for g in (1, 2, 3, 4, -1) if shape[-1] % g == 0])}


def _re_lu(r: random.Random, shape: Shape) -> Options:
    options: Options = {}
    if r.random() < 0.5:
        options["max_value"] = r.choice((1.0, 0.5, 6.0))
    if r.random() < 0.5:
        options["negative_slope"] = r.choice((0.1, 0.3))
    if r.random() < 0.5:
        options["threshold"] = r.choice((0.1, 0.25))
    return options


def _p_relu(r: random.Random, shape: Shape) -> Options:
    return {"shared_axes": tuple(range(1, len(shape)))} if len(shape) > 1 and r.random() < 0.5 else {}


def _up(r: random.Random, shape: Shape) -> Options:
    options: Options = {"size": _sizes(r, 2)}
    if r.random() < 0.4:
        options["interpolation"] = "bilinear"
    return options


def _resize(r: random.Random, shape: Shape) -> Options:
    options: Options = {"height": r.choice(SIZES), "width": r.choice(SIZES)}
    options["interpolation"] = r.choice(("bilinear", "nearest", "bicubic", "lanczos3"))
    if r.random() < 0.2:
        options["antialias"] = True
    return options


def _border(key: str) -> Chooser:
    def choose(r: random.Random, shape: Shape) -> Options:
        return {key: tuple((r.randint(0, 2), r.randint(0, 2)) for _ in range(len(shape) - 1))}

    return choose


def _line(key: str) -> Chooser:
    return lambda r, shape: {key: (r.randint(0, 2), r.randint(0, 2))}


def _reshape(r: random.Random, shape: Shape) -> Options:
    rest, target = prod(shape), []
    for _ in range(r.randint(0, 2)):
        factor = r.choice([f for f in range(1, rest + 1) if rest % f == 0])
        target.append(factor)
        rest //= factor
    target.append(rest)
    r.shuffle(target)
    return {"target_shape": tuple(target)}


def _permute(r: random.Random, shape: Shape) -> Options:
    return {"dims": tuple(r.sample(range(1, len(shape) + 1), len(shape)))}


def _attention(r: random.Random, shape: Shape) -> Options:
    return {"num_heads": r.randint(1, 3), "key_dim": r.randint(1, 5)}


def _plain(**options: Any) -> Chooser:
    return lambda r, shape: dict(options)


def _either(**choices: Sequence[Any]) -> Chooser:
    return lambda r, shape: {key: r.choice(values) for key, values in choices.items()}


# -- layers --------------------------------------------------------------------------------------------------
LAYERS: tuple[tuple[str, int, tuple[int, ...], Chooser], ...] = (
    # class, how often, number of axes of a sample, options
    ("Conv2D", 14, (3,), _convolution),
    ("Conv1D", 4, (2,), _convolution),
    ("Conv3D", 4, (4,), _convolution),
    ("DepthwiseConv2D", 3, (3,), _depthwise),
    ("DepthwiseConv1D", 1, (2,), _depthwise),
    ("SeparableConv2D", 2, (3,), _separable),
    ("SeparableConv1D", 1, (2,), _separable),
    ("Conv2DTranspose", 3, (3,), _transposed),
    ("Conv1DTranspose", 1, (2,), _transposed),
    ("Conv3DTranspose", 1, (4,), _transposed),
    ("Dense", 4, (1, 2, 3), lambda r, shape: {"units": r.choice(CHANNELS), **_activation(r)}),
    ("MaxPooling2D", 5, (3,), _pool),
    ("AveragePooling2D", 4, (3,), _pool),
    ("MaxPooling1D", 2, (2,), _pool),
    ("AveragePooling1D", 2, (2,), _pool),
    ("MaxPooling3D", 2, (4,), _pool),
    ("AveragePooling3D", 2, (4,), _pool),
    ("GlobalAveragePooling2D", 2, (3,), _global),
    ("GlobalMaxPooling2D", 1, (3,), _global),
    ("GlobalAveragePooling1D", 1, (2,), _global),
    ("GlobalMaxPooling1D", 1, (2,), _global),
    ("GlobalAveragePooling3D", 1, (4,), _global),
    ("AdaptiveAveragePooling2D", 1, (3,), lambda r, shape: {"output_size": _sizes(r, 2)}),
    ("AdaptiveMaxPooling2D", 1, (3,), lambda r, shape: {"output_size": _sizes(r, 2)}),
    ("BatchNormalization", 9, (1, 2, 3, 4), _batch_norm),
    ("LayerNormalization", 3, (1, 2, 3), _own_norm),
    ("GroupNormalization", 2, (2, 3), _group_norm),
    ("RMSNormalization", 2, (1, 2, 3), _own_norm),
    ("UnitNormalization", 1, (1, 2, 3), _own_norm),
    ("Activation", 8, (1, 2, 3, 4), lambda r, shape: {"activation": r.choice(ACTIVATIONS)}),
    ("ReLU", 2, (1, 2, 3, 4), _re_lu),
    ("LeakyReLU", 1, (1, 2, 3), _either(negative_slope=(0.3, 0.1))),
    ("ELU", 1, (1, 2, 3), _either(alpha=(1.0, 0.5))),
    ("PReLU", 1, (1, 2, 3), _p_relu),
    ("Softmax", 1, (1, 2, 3), lambda r, shape: {"axis": r.randint(1, len(shape))}),
    ("Dropout", 2, (1, 2, 3), _plain(rate=0.4)),
    ("SpatialDropout2D", 1, (3,), _plain(rate=0.4)),
    ("GaussianNoise", 1, (1, 2, 3), _plain(stddev=0.2)),
    ("UpSampling2D", 4, (3,), _up),
    ("UpSampling1D", 1, (2,), _either(size=(2, 3))),
    ("UpSampling3D", 1, (4,), _either(size=(2, (1, 2, 3)))),
    ("Resizing", 2, (3,), _resize),
    ("RepeatVector", 1, (1,), _either(n=(1, 2, 3))),
    ("ZeroPadding2D", 2, (3,), _border("padding")),
    ("ZeroPadding1D", 1, (2,), _line("padding")),
    ("ZeroPadding3D", 1, (4,), _border("padding")),
    ("Cropping2D", 2, (3,), _border("cropping")),
    ("Cropping1D", 1, (2,), _line("cropping")),
    ("Reshape", 4, (1, 2, 3, 4), _reshape),
    ("Permute", 2, (2, 3, 4), _permute),
    ("Flatten", 2, (2, 3, 4), _plain()),
    ("Rescaling", 2, (1, 2, 3, 4), _either(scale=(0.5, -2.0, 1.0), offset=(0.0, 0.25))),
)

MERGES: tuple[tuple[str, int, Chooser], ...] = (
    # class or operator, how often, options; of two values that broadcast together
    ("Add", 5, _plain()),
    ("Multiply", 3, _plain()),
    ("Subtract", 2, _plain()),
    ("Maximum", 2, _plain()),
    ("Minimum", 1, _plain()),
    ("Average", 1, _plain()),
    ("Concatenate", 6, lambda r, shape: {"axis": r.randint(1, len(shape))} if r.random() < 0.4 else {}),
    ("add", 2, _plain()),
    ("subtract", 1, _plain()),
    ("multiply", 2, _plain()),
    ("Dot", 1, lambda r, shape: {"axes": r.randint(1, len(shape)), "normalize": r.random() < 0.3}),
    ("MultiHeadAttention", 1, _attention),
    ("Attention", 1, _either(use_scale=(True, False))),
)

SINGLE: tuple[str, ...] = ("absolute", "negative")


# -- recipes -------------------------------------------------------------------------------------------------
def draw_recipe(seed: int, most_steps: int = 10, most_elements: int = MOST_ELEMENTS) -> Recipe:
    """The same recipe for the same seed."""
    r = random.Random(seed)
    inputs = _inputs(r, most_elements)
    growing = Growing(inputs)
    steps: list[Step] = []
    wanted = r.randint(1, most_steps)
    for _ in range(8 * wanted):
        if len(steps) == wanted:
            break
        step = _step(r, growing, steps)
        if step and _added(growing, step, most_elements):
            steps.append(step)
    if not steps:
        steps = [Step("Activation", (0,), (("activation", "tanh"),))]
        growing.add(steps[0])
    count = len(inputs)
    made = range(count, count + len(steps))
    outputs = tuple(dict.fromkeys([made[-1], *r.sample(made, min(len(made), r.choice((0, 0, 1, 2))))]))
    return Recipe(inputs, tuple(steps), outputs, r.choice((1, 3))).pruned()


def _inputs(r: random.Random, most_elements: int) -> tuple[Shape, ...]:
    def shape() -> Shape:
        rank = r.choice((1, 2, 3, 3, 3, 3, 3, 4))
        while True:
            found = (
                *(r.choice(SIZES[:4] if rank == 4 else SIZES) for _ in range(rank - 1)),
                r.choice(CHANNELS),
            )
            if prod(found) <= most_elements:
                return found

    first = shape()
    others = {0: [], 1: [first], 2: [shape()], 3: [(*(1 for _ in first[1:]), first[-1])]}[
        r.choice((0, 0, 0, 1, 2, 3))
    ]
    return (first, *others)


def _step(r: random.Random, growing: Growing, steps: Sequence[Step]) -> Step | None:
    count = len(growing.values)
    recent = count - 1 - min(int(r.expovariate(1.0)), count - 1)
    shape = growing.shape(recent)
    if r.random() < 0.08 and steps:  # a layer once more
        place = r.randrange(len(steps))
        step = steps[place]
        if step.kind not in ("absolute", "negative", *(m[0] for m in MERGES)):
            home = place if step.again is None else step.again
            return Step(step.kind, (recent,), step.options, home)
    if r.random() < 0.3 and count > 1:
        kind, _, choose = _weighted(r, MERGES)
        others = [v for v in range(count) if _fits(growing.shape(v), shape)]
        operands = [recent, r.choice(others)]
        r.shuffle(operands)
        if kind in ("Attention", "MultiHeadAttention") and r.random() < 0.5:
            operands = [recent, recent]
        return Step(kind, tuple(operands), _items(choose(r, shape)))
    if r.random() < 0.03:
        return Step(r.choice(SINGLE), (recent,))
    rows = [row for row in LAYERS if len(shape) in row[2]]
    if not rows:
        return None
    kind, _, _, choose = _weighted(r, rows)
    frozen = {"trainable": False} if r.random() < 0.06 else {}
    return Step(kind, (recent,), _items({**choose(r, shape), **frozen}))


def _weighted(r: random.Random, rows: Sequence[Any]) -> Any:
    return r.choices(rows, [row[1] for row in rows])[0]


def _items(options: Options) -> tuple[tuple[str, Any], ...]:
    return tuple(options.items())


def _fits(one: Shape, other: Shape) -> bool:
    """Whether they may well broadcast or be joined."""
    return (
        len(one) == len(other)
        and sum(a != b and 1 not in (a, b) for a, b in zip(one, other, strict=True)) < 2
    )


def _added(growing: Growing, step: Step, most_elements: int) -> bool:
    try:
        growing.add(step)
    except ConvLoomError:
        return False
    if prod(growing.shape(-1)) > most_elements:
        growing.values.pop()
        growing.layers.pop()
        return False
    return True
