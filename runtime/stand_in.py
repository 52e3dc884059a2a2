"""What torch's own tools for batch norms find in a compiled network.

They look for torch's batch norm modules, of which it has none, and so would do nothing and say nothing. A
stand-in among its modules lets them find one, which says what to do instead.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ..graph.errors import CompileError


class _Refused(CompileError, AttributeError):
    """Who only looks whether the attribute is there goes on."""


class StandIn(_BatchNorm):
    """Neither weights nor a meaning: `update_bn` and `convert_sync_batchnorm` stop at it with an error."""

    affine = track_running_stats = False

    def __init__(self, network: str) -> None:
        torch.nn.Module.__init__(self)
        self.network = network

    def reset_running_stats(self) -> None:
        """What `torch.optim.swa_utils.update_bn` begins with."""
        self._refuse("torch.optim.swa_utils.update_bn", "call cl.update_statistics(net, data)")

    def __getattr__(self, name: str) -> Any:
        """`torch.nn.SyncBatchNorm.convert_sync_batchnorm` asks for num_features first."""
        if name == "num_features":
            self._refuse(
                "torch.nn.SyncBatchNorm.convert_sync_batchnorm",
                "leave it out: each process normalises with the statistics of its own part of the batch",
            )
        return super().__getattr__(name)

    def _refuse(self, tool: str, remedy: str) -> NoReturn:
        raise _Refused(
            f"{self.network}: {tool} works on torch's batch norm modules, and the batch norms of a compiled "
            f"network are steps of its kernels; {remedy}"
        )

    def extra_repr(self) -> str:
        return "compiled into the kernels"
