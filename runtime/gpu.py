"""What a GPU asks for beside kernels: that its device is the current one, and that streams wait in turn."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def current(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which a device is the current one, where kernels start and events are recorded."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Shared:
    """Values that one stream has computed and others read.

    A stream runs its work in order, and no two know of each other. So a stream that reads such values for the
    first time waits until they are there, and nobody takes their memory before it is done with them. Call
    `made` on the stream that has computed values, and `read` on each that is about to read them.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._values: list[torch.Tensor] = []
        self._ready: Any = None
        self._readers: set[int] = set()
        self._captured: list[list[torch.Tensor]] = []

    @property
    def capturing(self) -> bool:
        """Whether the current stream is being recorded into a CUDA graph, so that nothing runs yet."""
        return self._on_gpu and torch.cuda.is_current_stream_capturing()

    def made(self, values: Iterable[torch.Tensor]) -> None:
        """Take note of values that the work so far on the current stream computes."""
        if self._on_gpu:
            stream = torch.cuda.current_stream(self._device)
            self._values, self._ready = list(values), stream.record_event()
            self._readers = {stream.cuda_stream}

    def read(self) -> None:
        """Let the current stream read the values that were noted last."""
        if not self._on_gpu or self._ready is None:
            return
        if self.capturing:  # which begins when all is done; the graph reads this memory as long as it lives
            if not any(self._values is held for held in self._captured):
                self._captured.append(self._values)
            return
        stream = torch.cuda.current_stream(self._device)
        if stream.cuda_stream not in self._readers:
            stream.wait_event(self._ready)
            for value in self._values:
                value.record_stream(stream)
            self._readers.add(stream.cuda_stream)
