"""Requests that tests send to processes that compile."""

from __future__ import annotations

import os


class Dies:
    """Takes its process with it."""

    def answer(self) -> int:
        os._exit(3)


class Doubles:
    """Answers twice its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def answer(self) -> int:
        print("compilers print what they like")
        return 2 * self.number
