"""What a rule did somewhere, or why it did not: passes and fusion report in these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What a rule did at one place, or why it did not."""

    rule: str
    node: str
    applied: bool
    reason: str = ""

    def told(self) -> str:
        """The rule, and below it what became of it, as `explain` and CONVLOOM_DEBUG show it."""
        return f"    {self.rule}\n        {self}"

    def __str__(self) -> str:
        return f"{'applied' if self.applied else 'refused'} at {self.node}" + (
            f": {self.reason}" if self.reason else ""
        )
