"""Where a step of a window that slides along an axis reads and makes something, as text.

The same arithmetic as `Slide.first_source` and `Slide.first_output`.
"""

from __future__ import annotations

from ...planning.sliding import Slide
from ..text.indices import plus, times
from ..text.writer import Writer


def emit_place(w: Writer, d: Slide, index: str, step: str, lead: int, at: str, out: str) -> None:
    """Lines for the first source and output. index: counts classes and parts; step: text of a part's
    first step; lead: sources, or steps, that are read beside the first."""
    many = d.classes > 1
    part = index
    if many:
        w.line(f"residue = {index} % {d.classes}", f"of {out} by {d.output_spacing}")
        part = f"({index} // {d.classes})"
    step = step.format(part)
    if not d.transposed:
        first = step if d.sparse == 1 else f"({step}){times(d.sparse)}"
        w.line(f"{out} = {'residue + ' if many else ''}{first}")
        w.line(f"{at} = {out}{times(d.stride)}{plus(lead * d.dilation - d.padding)}")
    elif d.dilation == 1:
        w.line(f"begin = {step}{plus(d.padding // d.stride)}")
        w.line(f"{at} = begin{plus(lead)}")
        w.line(f"{out} = begin{times(d.stride)}{plus(-d.padding)}")
    else:
        _dilated(w, d, step, lead, at, out)


def _dilated(w: Writer, d: Slide, step: str, lead: int, at: str, out: str) -> None:
    residue = "residue" if d.classes > 1 else "0"
    raised = d.lift * d.unit * d.dilation
    w.line(f"rest = ({residue}{plus(d.padding)}) % {d.dilation}")
    if d.common > 1:
        w.line(f"{at}_meets = rest % {d.common} == 0", "others meet no tap")
    w.line(f"origin = rest // {d.common}{times(d.inverse)} % {d.sparse}")
    w.line(f"shift = ({residue}{plus(d.padding + raised)} - origin{times(d.stride)}) // {d.dilation}")
    w.line(f"begin = shift // {d.unit} + {step}")
    w.line(f"{at} = origin + (begin{plus(lead - d.lift)}){times(d.sparse)}")
    w.line(f"{out} = {residue} + (begin{times(d.unit)} - shift){times(d.dilation)}")
