"""BackupAndRestore: a run that was cut off goes on, and ends with the bits it would have ended with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convloom.graph.errors import ConvLoomError
from small_training import CLASSES, X, Y, model, network

import convloom as cl


class CutOff(Exception):
    pass


def backed_up(folder: Path, cut: tuple[int, int] | None, **options: Any) -> list[Any]:
    """Train four epochs of three batches; cut: the epoch and the batch after which the process "dies"."""
    epoch = [0]

    def die(batch: int, logs: Any) -> None:
        if cut == (epoch[0], batch):
            raise CutOff

    watching = cl.LambdaCallback(
        on_epoch_begin=lambda e, logs: epoch.__setitem__(0, e), on_train_batch_end=die
    )
    own = model()
    own.compile("adam", CLASSES)
    backup = cl.BackupAndRestore(folder, **options)
    own.fit(X, Y, batch_size=8, epochs=4, seed=3, verbose=0, callbacks=[watching, backup])
    return own.get_weights()


@pytest.mark.parametrize("options", [{}, {"save_freq": 2}, {"save_freq": 2, "double_checkpoint": True}])
@pytest.mark.parametrize("cut", [(1, 0), (2, 2), (3, 1)])
def test_a_run_that_was_backed_up_goes_on(tmp_path: Path, cut: Any, options: dict[str, Any]) -> None:
    expected = backed_up(tmp_path / "whole", None)
    assert not (tmp_path / "whole").exists()
    with pytest.raises(CutOff):
        backed_up(tmp_path / "cut", cut, **options)
    assert (tmp_path / "cut").exists()
    for a, b in zip(backed_up(tmp_path / "cut", None, **options), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "cut").exists()
    backed_up(tmp_path / "stays", None, delete_checkpoint=False)
    assert (tmp_path / "stays").exists()


def test_a_run_is_kept_in_one_place(tmp_path: Path) -> None:
    with pytest.raises(ConvLoomError, match="a run is kept in one place; give checkpoint= or one Backup"):
        cl.fit(
            network(), (X, Y), CLASSES, verbose=False, checkpoint=tmp_path / "a",
            callbacks=[cl.BackupAndRestore(tmp_path / "b")],
        )  # fmt: skip
