"""The base of all layers. A layer is one declaration: typed fields, weights, and its lowering to IR nodes.

The DSL calls it, the import of Keras files builds it from a configuration, both through this one class, so
adding a layer means adding one subclass in this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from math import prod
from typing import Any, ClassVar, Self, dataclass_transform

from ...graph.errors import ConvLoomError, ShapeError, UnsupportedLayerError, nearest
from ...graph.types import TensorType
from ..budget import BUDGET
from ..calls import call_arguments
from ..constraints import Constraint
from ..fields import PerAxis, flag, image_shape, in_python, maybe, option
from ..initializers import Initializer
from ..lowering import Block, Builder, Lowering
from ..names import DefaultName, check_name, next_name
from ..parameters import Values
from ..regularizers import Regularizer, RegularizerLike, of_activity

DECLARATIONS: dict[str, type[Layer]] = {}
"""Every layer ConvLoom knows, by Keras's class name."""

RANKS = {
    2: ("(N, features)", "Flatten it first"),
    3: ("a sequence (N, steps, channels)", "Reshape it to a sequence first"),
    4: ("an image (N, height, width, channels)", "Reshape it to an image first"),
    5: ("a volume (N, depth, height, width, channels)", "Reshape it to a volume first"),
}
"""What inputs of a rank are called, and what to do with one of another rank."""


@dataclass(frozen=True)
class Weight:
    """One weight: Keras's name and shape, what it starts as, and whether an optimizer moves it.

    initializer: one, or its name, or the one value that all its numbers have. dtype: in Keras's files.
    frozen: whether a layer inside the one that keeps it is frozen, whose weight it is.
    home: the part of the layer that Keras keeps it in, where the layer is made of others ("query_dense").
    also_in: parts that keep it too, so that Keras's files hold it several times; "" is the layer itself.
    matrix: shape of the matrix it stands for, which an initializer scales by, where it has another.
    path: its name in `.h5` files, which name the layers inside the layer that keep it ("dense/kernel").
    regularizer, constraint: what the layer's arguments say of it, which `Layer.prepare` sees to.
    """

    name: str
    shape: tuple[int, ...]
    initializer: str | float | Initializer = "zeros"
    trainable: bool = True
    dtype: str = "float32"
    home: str = ""
    also_in: tuple[str, ...] = ()
    matrix: tuple[int, ...] = ()
    path: str = ""
    frozen: bool = False
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None

    def trained_with(self, layer: Layer) -> bool:
        """Whether an optimizer moves it, kept by this layer as it is now."""
        return self.trainable and not self.frozen and layer.trainable

    def of_part(self, part: Layer, home: str, name: str) -> Weight:
        """As a weight, `name`, of the layer that has `part` inside it and keeps it there as `home`."""
        return replace(
            self,
            name=name,
            home=f"{home}/{self.home}".rstrip("/"),
            frozen=self.frozen or not part.trainable,
            path=f"{part.name}/{self.path or self.name}",
        )


@dataclass_transform(field_specifiers=(option,), eq_default=False)
@dataclass(eq=False, repr=False)
class Layer(Block):
    """Base of the declarations. Subclasses are turned into dataclasses; their fields are Keras's arguments.

    name: unique in a model; by default from the class, conv2d, conv2d_1, ...
    trainable: False freezes the layer's weights.
    input_shape: shape of one sample, for the first layer of a Sequential.
    activity_regularizer: of the results of each call.
    """

    rank: ClassVar[int | None] = None
    """Rank of the inputs, batch included, where only one will do."""
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    """Least and most inputs of a call; None: any number."""
    aliases: ClassVar[dict[str, str]] = {}
    """Keys of older files -> fields."""
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Keys of files that change nothing here."""
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Keys of files that are accepted only with one of these values."""

    tensors: ClassVar[tuple[str, ...]] = ()
    """Names of the inputs of a call that takes them one by one, in order; else it takes one, or a list."""
    options: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Further arguments of a call, each with the values it may have, the default first."""
    ruled_by: ClassVar[Mapping[str, str]] = {}
    """Weight -> "depthwise", where `depthwise_regularizer` and `depthwise_constraint` are of a "kernel"."""
    inner_class: ClassVar[str] = ""
    """The name by which Keras counts layers and groups weights, where most of its files call it otherwise."""

    said_training: ClassVar[bool | None] = None
    """The `training` that Keras 3 writes of every call, its default there: True of image preprocessing, False
    of what is random. The mode of the model decides all the same: a file's call that says so says nothing."""

    name: str = field(default="", kw_only=True)
    trainable: bool = field(default=True, kw_only=True, metadata={"check": flag})
    input_shape: Sequence[int] | None = field(
        default=None, kw_only=True, metadata={"check": maybe(image_shape)}
    )
    activity_regularizer: RegularizerLike = field(default=None, kw_only=True, metadata={"check": of_activity})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(eq=False, repr=False)(cls)
        cls.declare()

    @classmethod
    def declare(cls) -> None:
        """Enter the class in the list of those that files may name."""
        if not cls.__name__.startswith("_"):
            DECLARATIONS[cls.__name__] = cls
            if cls.inner_class:
                DECLARATIONS[cls.inner_class] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse arguments that do not exist before the dataclass sees them."""
        positional = [f.name for f in fields(cls) if f.init and not f.kw_only]
        known = [f.name for f in fields(cls) if f.init]
        where = f"{cls.__name__} {kwargs['name']!r:.80}" if kwargs.get("name") else cls.__name__
        if len(args) > len(positional):
            raise UnsupportedLayerError(
                f"{where}: takes {len(positional)} positional arguments ({', '.join(positional)}), "
                f"got {len(args)}"
            )
        for key in kwargs:
            if key not in known:
                why = _unknown_argument(key, known, cls.aliases)
                if key in cls.neutral:
                    why = f"{key}={kwargs[key]!r:.60} is not supported; leave it out"
                raise UnsupportedLayerError(f"{where}: {why}")
            if key in positional[: len(args)]:
                raise UnsupportedLayerError(f"{where}: argument {key!r} is given twice, by place and by name")
        required = [f.name for f in fields(cls) if f.default is MISSING and f.init]
        if missing := [n for n in required if n not in kwargs and n not in positional[: len(args)]]:
            raise UnsupportedLayerError(f"{where}: needs the argument {', '.join(map(repr, missing))}")
        return super().__new__(cls)

    changes: ClassVar[int] = 0
    """How often a layer has been frozen or freed; networks look at it to see whether they must follow."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "trainable" and value is not self.__dict__.get(name, value):
            Layer.changes += 1
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        self.name = self._checked_name(self.name)
        for f in fields(self):
            check = f.metadata.get("check")
            if check is None:
                continue
            if isinstance(check, PerAxis):
                check = check.of(self.spatial_rank)
            try:
                setattr(self, f.name, check(in_python(getattr(self, f.name))))
            except ConvLoomError as error:
                raise type(error)(f"{self.label}: {f.name} {error}") from None
        self.built: tuple[Weight, ...] = ()
        self.values = Values()
        self._built_for: tuple[TensorType, ...] = ()
        self._owner: Layer | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _without_arguments, (type(self),), {**self.__dict__, "first_call": None}

    def _checked_name(self, name: Any) -> str:
        if name is None or name == "":
            kind = self.inner_class or type(self).__name__
            self.default_name = DefaultName(kind, next_name(kind))
            return self.default_name.name
        return check_name(name, type(self).__name__)

    # -- what a declaration says -----------------------------------------------------------------------------
    def check(self, inputs: Sequence[TensorType]) -> None:
        """Further conditions on the inputs; raises ConvLoomError, `fail` gives it the layer's name."""

    def weights(self, inputs: Sequence[TensorType]) -> list[Weight]:
        """The weights for inputs of these types, in Keras's order."""
        return []

    @property
    def masks(self) -> bool:
        """Whether it makes a mask, of steps that layers after it are to leave out."""
        return False

    @property
    def draws_from(self) -> int | None:
        """The seed of what it draws in training; None for torch's own generator."""
        seed = getattr(self, "seed", None)
        return seed if isinstance(seed, int) else None

    def pointwise(self) -> bool:
        """Whether one formula makes each value of the result from the one in its place, wherever that is."""
        return False

    def along_last_axis(self) -> bool:
        """Whether it makes each row of the last axis from that row alone, whatever other axes there are."""
        return self.pointwise()

    def build(self, b: Builder, *inputs: str) -> str | list[str]:
        """Append the layer's nodes and return the name of the result, or the names where it has several."""
        raise NotImplementedError

    def build_one(self, b: Builder, *inputs: str, counted: bool = True) -> str:
        """`build` of a layer with one result, as a part of another. counted: whether it is in the loss."""
        result = self._counted(b, *inputs) if counted else self.build(b, *inputs)
        return result if isinstance(result, str) else result[0]

    def refuse_regularizer(self) -> None:
        """Raise UnsupportedLayerError where one was given to what has none, here as in Keras."""
        if self.activity_regularizer is not None:
            raise UnsupportedLayerError(f"{self.label}: takes no activity_regularizer")

    def _counted(self, b: Builder, *inputs: str) -> list[str]:
        """`build`, its results listed and counted as the layer's regularizer has it."""
        result = self.build(b, *inputs)
        results = [result] if isinstance(result, str) else result
        for value in results:
            b.penalize(value, self.activity_penalty)
        return results

    @property
    def activity_penalty(self) -> Regularizer | None:
        """What of each result counts in the loss."""
        found = self.activity_regularizer
        return found if isinstance(found, Regularizer) else None

    @property
    def spatial_rank(self) -> int:
        """Axes between batch and channels of the inputs, for the checks that ask for a number for each."""
        return (self.rank or 4) - 2

    # -- how it is used --------------------------------------------------------------------------------------
    def __call__(self, *inputs: Any, training: bool | None = None, **named: Any) -> Any:
        """Symbolic tensors in, as the layer takes them: one, a list, or one by one, by place or by name; one
        symbolic tensor, or a list where there are several, out. The layer's `options` may be named too.
        """
        if self._owner is not None and self.all_weights:
            raise self.fail(f"has weights, which {self._owner.label} keeps; make another layer")
        tensors, options = call_arguments(self, inputs, named)
        return self._call(tensors, training, options)

    def fail(self, text: str) -> ShapeError:
        return ShapeError(f"{self.label}: {text}")

    def prepare(self, inputs: Sequence[TensorType]) -> None:
        least, most = self.arity
        if len(inputs) < least or (most is not None and len(inputs) > most):
            wanted = f"{least}" if least == most else f"at least {least}"
            raise self.fail(f"takes {wanted} input(s), got {len(inputs)}")
        for kind in inputs:
            if self.rank is not None and kind.rank != self.rank:
                wanted, remedy = RANKS[self.rank]
                raise self.fail(f"takes {wanted}, found {kind} of rank {kind.rank}; {remedy}")
        self.check(inputs)
        weights = tuple(map(self._ruled, self.weights(inputs)))
        if self._built_for and _forms(weights) != _forms(self.built):
            raise self.fail(
                f"is shared: its weights were made for {', '.join(map(str, self._built_for))} and do not fit "
                f"{', '.join(map(str, inputs))}; use a second layer or inputs with equal channels"
            )
        if not self._built_for:
            BUDGET.get().weights(sum(prod(weight.shape) for weight in self.own(weights)), self.label)
            self.built, self._built_for = weights, tuple(inputs)
        if (activation := self._inner_activation) is not None:
            linear = replace(self, activation=None)  # type: ignore[call-arg]
            linear.built = self.built
            activation.stand_in(self, "activation", linear.results(inputs))

    def prepare_elsewhere(self, inputs: Sequence[TensorType]) -> None:
        if _forms(self.weights(inputs)) != _forms(self.built):
            raise self.fail("its weights would depend on their sizes")
        self.prepare(inputs)

    def _ruled(self, weight: Weight) -> Weight:
        """With what the arguments say of it: `kernel_regularizer` of a "kernel" or a "query/kernel",
        `pointwise_constraint` of a "pointwise_kernel". Raises ShapeError where it does not fit.
        """
        last = weight.name.rpartition("/")[2]
        stem = self.ruled_by.get(last, last.removesuffix("_kernel"))
        regularizer = getattr(self, f"{stem}_regularizer", None)
        constraint = getattr(self, f"{stem}_constraint", None)
        if regularizer is None and constraint is None:
            return weight
        try:
            if regularizer is not None:
                regularizer.check(weight.shape)
            if constraint is not None:
                constraint.projection(weight.shape)
        except ShapeError as error:
            raise self.fail(f"{last}: {error}") from None
        return replace(weight, regularizer=regularizer, constraint=constraint)

    def own(self, weights: Sequence[Weight]) -> Sequence[Weight]:
        """Those of its weights that no layer inside it has counted already."""
        return weights

    @property
    def _inner_activation(self) -> Layer | None:
        """The layer that stands as this one's activation."""
        activation = getattr(self, "activation", None)
        return activation if isinstance(activation, Layer) else None

    def stand_in(self, owner: Layer, role: str, inputs: Sequence[TensorType]) -> None:
        """Prepare it as the part `role` of `owner`, which keeps its weights.

        Raises ShapeError where inputs do not fit, and where it has weights and works elsewhere too.
        """
        try:
            self.prepare(inputs)
        except ShapeError as error:
            raise owner.fail(f"{role}: {error}") from None
        if self.all_weights and (self._calls or self._owner not in (None, owner)):
            raise owner.fail(f"its {role} {self.label} has weights and works elsewhere too; make two")
        self._owner = owner

    def lower(self, into: Lowering, inputs: Sequence[str], call: int, **options: Any) -> list[str]:
        return self._counted(Builder(into, self, call, options=options), *inputs)

    @property
    def built_for(self) -> tuple[TensorType, ...]:
        """The inputs its weights were made for; none before it is first called."""
        return self._built_for

    @property
    def all_weights(self) -> tuple[Weight, ...]:
        """`built`, its own weights, then those of the layer that stands as its activation."""
        if (activation := self._inner_activation) is None:
            return self.built
        inner = (weight.of_part(activation, "activation", weight.name) for weight in activation.all_weights)
        return (*self.built, *inner)

    def count_params(self) -> int:
        """Numbers in the layer's weights; 0 before it is first called."""
        return sum(prod(weight.shape) for weight in self.all_weights)

    def __repr__(self) -> str:
        return f"<{self.label}>"


def _without_arguments(declaration: type[Layer]) -> Layer:
    """An instance for a pickle to fill."""
    return object.__new__(declaration)


def _forms(weights: Sequence[Weight]) -> list[tuple[str, tuple[int, ...]]]:
    return [(weight.name, weight.shape) for weight in weights]


def _unknown_argument(key: str, known: Sequence[str], aliases: dict[str, str]) -> str:
    hint = f"; did you mean {aliases[key]!r}?" if key in aliases else nearest(key, known, "it takes")
    return f"unknown argument {key!r:.80}{hint}"
