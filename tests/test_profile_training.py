"""`profile(training=True)`: a training step fused and unfused, in its phases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convloom.runtime.findings import PHASES
from convloom.runtime.report import Report
from helpers import told
from test_cli import LENET, call
from test_profile import network

import convloom as cl
from convloom import layers as L

CLASSES = "categorical_crossentropy"


@pytest.fixture(scope="module")
def report() -> Report:
    optimizer = cl.optimizers.Adam(0.01)
    return cl.profile(
        network(), training=True, loss=CLASSES, optimizer=optimizer, batch_size=3, device="cpu", repeats=2
    )


def test_rows_are_the_kernels_of_the_plan_in_their_phases(report: Report) -> None:
    net = cl.compile(network(), device="cpu").train()
    program = net.with_loss(CLASSES).program
    names = [step.region.name for step in program.steps if not step.region.is_view]
    assert [row.name for row in report.fused.rows] == [*names, "optimizer"]
    order = [PHASES.index(row.phase) for row in report.fused.rows]
    assert order == sorted(order)
    assert set(order) == set(range(len(PHASES)))
    backward = [row.name for row in report.fused.in_phase("backward").rows]
    assert backward == [step.region.name for step in program.backward if not step.region.is_view]


def test_the_loss_is_what_needs_a_target(report: Report) -> None:
    for side in (report.fused, report.unfused):
        ops = [op for row in side.in_phase("loss").rows for op in row.ops]
        assert any("cross_entropy" in op for op in ops)
        assert not any("conv2d" in op for op in ops)
    assert not any("cross_entropy" in op for row in report.fused.in_phase("forward").rows for op in row.ops)


def test_times_and_totals(report: Report) -> None:
    for side in (report.fused, report.unfused):
        assert all(0 < row.seconds < 10 for row in side.rows)
        parts = [side.in_phase(phase) for phase in PHASES]
        assert side.seconds == pytest.approx(sum(part.seconds for part in parts))
        assert side.bytes == sum(part.bytes for part in parts)
    assert report.fused.launches < report.unfused.launches


def test_every_unfused_kernel_has_a_fused_one_of_its_pass(report: Report) -> None:
    phase = {row.name: row.phase for row in report.fused.rows}
    for row in report.unfused.rows:
        fused = phase[row.replaced_by]
        assert (fused in ("forward", "loss")) == (row.phase in ("forward", "loss"))


def test_bytes_of_the_optimizer_by_hand(report: Report) -> None:
    """Adam reads and writes a weight and two moments, and reads a gradient: seven numbers a weight."""
    count = sum(p.numel() for p in cl.compile(network(), device="cpu").parameters())
    (row,) = report.fused.in_phase("optimizer").rows
    assert row.bytes == 7 * 4 * count
    assert row.replaced_by == ""
    assert report.unfused.of("optimizer")[0].bytes == row.bytes


def test_the_model_keeps_its_weights() -> None:
    model = network()
    before = [weight.copy() for weight in model.get_weights()]
    net = cl.compile(model, device="cpu")
    cl.profile(net, training=True, loss=CLASSES, optimizer="sgd", batch_size=2, repeats=1)
    assert not net.training
    for mine, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, kept)


def test_a_frozen_layer_is_not_in_the_backward_pass() -> None:
    model = network()
    stem: Any = model.get_layer("stem")
    stem.trainable = False
    found = cl.profile(model, training=True, loss=CLASSES, batch_size=2, repeats=1, device="cpu")
    assert not any("weight_grad" in op and "conv" in op for row in found.fused.rows for op in row.ops)


def test_text_page_and_json_say_the_same(report: Report, tmp_path: Path) -> None:
    text, html = str(report), report.to_html()
    saved = json.loads(report.save(tmp_path / "step.json").read_text())
    assert "training step (categorical_crossentropy, Adam)" in text
    assert "a whole step:" in text
    assert saved["setup"]["training"] == "categorical_crossentropy, Adam"
    for phase in PHASES:
        part = report.fused.in_phase(phase)
        assert saved["fused"]["phases"][phase]["bytes"] == part.bytes
        assert f"\n {phase}" in text
        assert f"<td>{phase}</td>" in html
    assert report.step is not None
    assert report.unfused_step is not None
    assert saved["unfused_step"]["saved_bytes"] == report.unfused_step.saved_bytes
    assert any("kept for the backward pass" in note for note in report.notes())


def test_inference_has_one_phase() -> None:
    found = cl.profile(network(), batch_size=1, device="cpu", repeats=1)
    assert {row.phase for row in (*found.fused.rows, *found.unfused.rows)} == {"forward"}
    assert "<h2>Phases</h2>" not in found.to_html()


def test_two_outputs_with_a_loss_each() -> None:
    image = cl.Input((6, 5, 3), name="image")
    mean = L.GlobalAveragePooling2D(name="mean")(L.Conv2D(4, 3, name="conv")(image))
    kind = L.Dense(3, activation="softmax", name="kind")(mean)
    model = cl.Model(image, [kind, L.Dense(1, name="size")(mean)])
    losses = {"kind": CLASSES, "size": "mse"}
    found = cl.profile(model, training=True, loss=losses, batch_size=2, repeats=1, device="cpu")
    assert found.setup.training == "categorical_crossentropy, mean_squared_error, adam"
    assert {row.phase for row in found.fused.rows} == set(PHASES)


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ("muon", "muon"),  # which tells weights apart by name, as rates= does
        (cl.optimizers.SGD(rates={"stem/": 0.1}), "SGD"),
        (cl.optimizers.LossScaleOptimizer("sgd"), "LossScaleOptimizer"),
        (torch.optim.AdamW, "AdamW"),
    ],
    ids=told,
)
def test_each_kind_of_optimizer_that_fit_takes(optimizer: Any, name: str) -> None:
    net = cl.compile(network(), device="cpu")
    found = cl.profile(net, training=True, loss=CLASSES, optimizer=optimizer, batch_size=2, repeats=1)
    assert found.setup.training == f"{CLASSES}, {name}"
    assert found.fused.in_phase("optimizer").bytes > 0


def test_float16_is_measured_with_its_loss_scale() -> None:
    found = cl.profile(network(), training=True, loss=CLASSES, dtype="float16", batch_size=2, repeats=1)
    assert {row.phase for row in found.fused.rows} == set(PHASES)


def test_what_cannot_be_is_said_at_once() -> None:
    with pytest.raises(cl.ConvLoomError, match="a training step needs a loss, such as"):
        cl.profile(network(), training=True)
    with pytest.raises(cl.ConvLoomError, match="a loss belongs to a training step; give training=True"):
        cl.profile(network(), loss="mse")
    with pytest.raises(cl.ConvLoomError, match=r"give a loss's name or an object of cl\.losses"):
        cl.profile(network(), training=True, loss=lambda prediction, target: prediction.mean())


def test_an_optimizer_that_has_no_phases_or_holds_other_weights_is_refused() -> None:
    net = cl.compile(network(), device="cpu")
    how: dict[str, Any] = {"training": True, "loss": CLASSES, "batch_size": 2}
    with pytest.raises(cl.ConvLoomError, match="LBFGS computes the loss several times in a step"):
        cl.profile(net, optimizer=torch.optim.LBFGS, **how)
    with pytest.raises(cl.ConvLoomError, match="holds none of this network's parameters"):
        cl.profile(net, optimizer=torch.optim.SGD(net.parameters()), **how)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["profile", LENET, "--training", "--loss", CLASSES, "--optimizer", "sgd", "--repeats", "1"]
    text = call(capsys, *words, "--batch-size", "2")
    assert "training step (categorical_crossentropy, sgd)" in text
    assert "optimizer" in text
