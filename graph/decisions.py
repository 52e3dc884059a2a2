"""What a rule did somewhere, or why it did not: passes and fusion report in these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Decision:
    """What a rule did at one place, or why it did not.

    question: which one refused it: "may", no form of kernel computes what it would make; "worth", it costs
    more than it saves; "" where it would be wrong, or was not asked.
    """

    rule: str
    node: str
    applied: bool
    reason: str = ""
    question: str = ""

    def __str__(self) -> str:
        asked = {"may": ", for which there is no kernel", "worth": ", which is not worth it", "": ""}
        what = f"{'applied' if self.applied else 'refused'} at {self.node}{asked[self.question]}"
        return f"{what}: {self.reason}" if self.reason else what


def told(decisions: Iterable[Decision]) -> list[str]:
    """Lines as `explain` and CONVLOOM_DEBUG show them: a rule, and below it what became of it wherever it was
    tried next."""
    return [
        line
        for rule, those in groupby(decisions, key=lambda decision: decision.rule)
        for line in (f"    {rule}", *(f"        {decision}" for decision in those))
    ]
