"""What `metrics=` and `weighted_metrics=` may be, for one output or several, and the names Keras logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...graph.errors import ConvLoomError, nearest, unknown
from ..measures import refuse_class
from .collected import Entry, Measure, Metrics
from .directory import NAMES, direction_of, make

Given = tuple[Any, str]
"""A metric as it was given, and the name it was given under, "" for its own."""


def find_metrics(metrics: Any, weighted_metrics: Any = None, outputs: Sequence[str] = ("output",)) -> Metrics:
    """The metrics that are meant, as Keras's compile takes them.

    metrics, weighted_metrics: names, functions and objects, alone or in a list; for one output also by names
        of your own; for several, a list with one entry an output, or a dictionary by the outputs' names.
    outputs: the outputs' names, in order.
    Functions are called the way their kind is called. Raises ConvLoomError for what is none of these.
    """
    entries: list[Entry] = []
    taken: dict[str, int] = {}
    objects: list[Any] = []
    for given, weighted in ((metrics, False), (weighted_metrics, True)):
        argument = "weighted_metrics" if weighted else "metrics"
        for output, wanted in enumerate(_by_output(given, outputs, argument)):
            prefix = f"{outputs[output]}_" if len(outputs) > 1 else ""
            for metric, name in wanted:
                if not isinstance(metric, str) and any(metric is other for other in objects):
                    raise ConvLoomError(
                        f"{argument} holds one object twice, {_called(metric)}, whose state would mix; make "
                        f"one for each place"
                    )
                objects.append(metric)
                measure = _measure(metric, name)
                names = {own: _free(own, prefix, weighted, taken) for own in measure.directions}
                entries.append(Entry(measure, output, weighted, names))
    return Metrics(entries)


def _free(own: str, prefix: str, weighted: bool, taken: dict[str, int]) -> str:
    """Keras's name in the logs: numbered from the second of a name on, "weighted_" before it is."""
    name = prefix + own
    if name in taken and weighted:
        name = f"{prefix}weighted_{own}"
    count = taken.get(name, 0)
    taken[name] = count + 1
    return f"{name}_{count}" if count else name


# -- which output --------------------------------------------------------------------------------------------
def _by_output(given: Any, outputs: Sequence[str], argument: str) -> list[list[Given]]:
    if given is None:
        return [[] for _ in outputs]
    if _is_config(given) or not isinstance(given, Mapping | list | tuple):
        given = [given] if isinstance(given, str | Mapping) or not _is_iterable(given) else list(given)
    if isinstance(given, Mapping):
        return _by_name(given, outputs, argument)
    if len(outputs) == 1:
        return [list(_flat(given))]
    if not given:
        return [[] for _ in outputs]
    if len(given) != len(outputs):
        raise ConvLoomError(
            f"{argument} holds {len(given)} entries and the network has {len(outputs)} outputs; give one for "
            f"each (a metric, a list of them or None), or a dictionary by name: {', '.join(outputs)}"
        )
    return [list(_flat([entry])) for entry in given]


def _by_name(given: Mapping[Any, Any], outputs: Sequence[str], argument: str) -> list[list[Given]]:
    if len(outputs) == 1 and outputs[0] not in given:  # names of one's own for the logs
        for name, metric in given.items():
            if isinstance(metric, list | tuple | Mapping) and not _is_config(metric):
                raise ConvLoomError(
                    f"{argument}[{name!r}] is a {type(metric).__name__}, but {name!r} names no output"
                    f"{nearest(name, outputs, 'the output is')}"
                )
        return [[(metric, str(name)) for name, metric in given.items()]]
    for name in given:
        if name not in outputs:
            raise ConvLoomError(
                f"{argument} names {name!r}, which is no output{nearest(name, outputs)}; the network gives "
                f"{', '.join(outputs)}"
            )
    return [list(_flat([given.get(name)])) for name in outputs]


def _flat(given: Any) -> Iterator[Given]:
    for entry in given:
        if isinstance(entry, list | tuple):
            yield from _flat(entry)
        elif isinstance(entry, Mapping) and not _is_config(entry):
            yield from ((metric, str(name)) for name, metric in entry.items())
        elif entry is not None:
            yield entry, ""


def _is_config(given: Any) -> bool:
    """Whether it is Keras's description of a metric: {"class_name": ..., "config": ...}."""
    return isinstance(given, Mapping) and "class_name" in given and "config" in given


def _is_iterable(given: Any) -> bool:
    """Of metrics: a MetricCollection may be walked too, and is one itself."""
    if callable(given) or hasattr(given, "update_state") or hasattr(given, "compute"):
        return False
    if not isinstance(given, Iterable):
        raise ConvLoomError(f"metrics is a {type(given).__name__}; give a list of names or functions")
    return True


# -- which metric --------------------------------------------------------------------------------------------
def _measure(metric: Any, name: str) -> Measure:
    if isinstance(metric, str):
        return _named(metric, name or metric)
    if _is_config(metric):
        config = {key: value for key, value in metric["config"].items() if key != "dtype"}
        found = NAMES.get(str(metric["class_name"]))
        if found is None:
            raise ConvLoomError(unknown("metric", metric["class_name"], sorted(set(NAMES.values()))))
        metric = make(found, config.pop("name", None), **config)
    if isinstance(metric, type):
        try:
            metric = metric()
        except TypeError:
            refuse_class("metric", metric)
    keras_name = getattr(metric, "keras_name", "")
    if keras_name and hasattr(metric, "graph_name"):  # one of cl.losses
        options = {"from_logits": True} if getattr(metric, "from_logits", False) else {}
        metric, name = make(NAMES[keras_name], keras_name, **options), name or keras_name
    if not callable(metric) and not hasattr(metric, "update_state"):
        raise ConvLoomError(f"metric {metric!r:.60} is neither a name nor a function (prediction, target)")
    return _of_its_kind(metric, name or _called(metric))


def _named(given: str, name: str) -> Measure:
    from .settled import TORCHMETRICS, Settled

    if given.lower() in ("accuracy", "acc"):
        return Settled("accuracy", name)
    kind = NAMES.get(given) or NAMES.get(given.lower())
    if kind is not None:
        try:
            return _of_its_kind(make(kind, name), name)
        except TypeError as error:
            needed = str(error).rpartition(": ")[2]
            raise ConvLoomError(
                f"metric {given!r} needs arguments ({needed}); give cl.metrics.{kind}(...)"
            ) from None
    other = TORCHMETRICS.get(given) or TORCHMETRICS.get(given.lower())
    if other is not None:
        return Settled(other, name)
    known = sorted(key for key in {"accuracy", *NAMES, *TORCHMETRICS} if key.islower())
    more = ", or a function (prediction, target), or a metric of Keras's or torchmetrics'"
    raise ConvLoomError(unknown("metric", given, known, more))


def _of_its_kind(metric: Any, name: str) -> Measure:
    from .kinds import OfFunction, OfKeras, OfTorchmetrics

    direction = _says(metric) or direction_of(_called(metric)) or direction_of(name)
    if all(hasattr(metric, part) for part in ("update", "compute", "reset")):  # torchmetrics', and ours
        return OfTorchmetrics(metric, name, direction)
    if all(hasattr(metric, part) for part in ("update_state", "result", "reset_state")):
        return OfKeras(metric, name, direction)
    return OfFunction(metric, name, direction)


def _called(metric: Any) -> str:
    own = getattr(metric, "name", None)
    return own if isinstance(own, str) else getattr(metric, "__name__", type(metric).__name__)


def _says(metric: Any) -> str | None:
    """The direction that a metric itself declares."""
    if isinstance(higher := getattr(metric, "higher_is_better", None), bool):
        return "max" if higher else "min"
    return {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", None)))
