"""`profile`, its report in every form, and `emit`'s folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from convloom.frontends import Input, Model, layers
from convloom.graph.errors import ConvLoomError
from convloom.planning.memory import readable
from convloom.planning.targets import DEVICES
from convloom.runtime.emit import emit
from convloom.runtime.findings import Row, Setup, Side
from convloom.runtime.profile import find_gpu, profile
from convloom.runtime.report import Report

import convloom as cl

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def network(name: str = "net") -> Model:
    """conv, batch norm, relu and pooling fuse into one kernel; so do dense and softmax."""
    image = Input((13, 9, 3))
    h = layers.ZeroPadding2D(1)(image)
    h = layers.Conv2D(5, 3, name="stem")(h)
    h = layers.BatchNormalization(name="stem_norm")(h)
    h = layers.ReLU()(h)
    h = layers.MaxPooling2D(2)(h)
    h = layers.Dropout(0.5)(layers.Flatten()(h))
    return Model(image, layers.Dense(10, activation="softmax", name="head")(h), name=name)


@pytest.fixture(scope="module")
def report() -> Report:
    return profile(network(HOSTILE), batch_size=3, device="cpu", repeats=2, target="H200")


# -- the numbers ---------------------------------------------------------------------------------------------
def test_kernel_counts(report: Report) -> None:
    assert [row.layers for row in report.fused.rows] == [
        ("stem", *report.fused.rows[0].layers[1:]),
        ("head",),
    ]
    assert report.fused.launches == 2
    # pad, convolution, batch norm, relu, pooling, dense, softmax; no kernel for flatten and dropout
    assert report.unfused.launches == 7
    assert report.ratios()["launches"] == 3.5


def test_every_unfused_kernel_has_its_fused_one(report: Report) -> None:
    stem, head = report.fused.rows
    assert [len(report.unfused.of(row.name)) for row in (stem, head)] == [5, 2]
    assert report.unfused.of("") == []


def test_bytes_and_roofline_by_hand(report: Report) -> None:
    """The head reads 3 rows of 6*4*5 values, 120x10 weights and 10 biases, and writes 3 rows of 10."""
    head = report.fused.rows[1]
    assert head.bytes == 4 * (3 * 120 + 120 * 10 + 10 + 3 * 10)
    gpu = DEVICES["H200"]
    assert head.roofline_seconds == max(head.flops / gpu.flops["float32"], head.bytes / gpu.bandwidth)
    assert head.intensity == head.flops / head.bytes
    # Unfused, the logits are written and read once more.
    assert sum(row.bytes for row in report.unfused.of(head.name)) == head.bytes + 2 * 4 * 3 * 10


def test_times_are_measured(report: Report) -> None:
    for side in (report.fused, report.unfused):
        assert all(0 < row.seconds < 10 for row in side.rows)
        assert side.seconds == pytest.approx(sum(row.seconds for row in side.rows))
        assert side.call_seconds > 0
    assert report.setup.backend == "aten"
    begins = "Measured: times of inference, through PyTorch's operators"
    assert any(note.startswith(begins) for note in report.notes())
    assert any("Derived for H200, not measured" in note for note in report.notes())


def test_triton_on_the_cpu_is_measured_through_aten() -> None:
    found = profile(network(), batch_size=1, device="cpu", backend="triton", repeats=1)
    assert found.setup.backend == "aten"


def test_resources_are_of_the_target() -> None:
    x = Input((17,))
    found = profile(
        Model(x, layers.Dense(3)(x)),
        batch_size=1,
        device="cpu",
        repeats=1,
        target="sm_80",
        resources=True,
        jobs=1,
    )
    ((name, used),) = found.resources.items()
    assert name == found.fused.rows[0].name
    assert [(r.target, r.error, r.spills_bytes) for r in used] == [("sm_80", None, 0)]
    assert used[0].registers > 0
    assert "compiled for sm_80" in str(found)
    assert f"<td>{used[0].registers}</td>" in found.to_html()


@pytest.mark.parametrize(
    ("target", "planned_for", "card"),
    [
        ("h100", "H100", "H100"),
        ("sm_90", "sm_90", "H200"),
        ("gfx942", "gfx942", "MI300X"),
        ("sm_89", "sm_89", None),
    ],
)
def test_targets(target: str, planned_for: str, card: str | None) -> None:
    found, gpu = find_gpu(target)
    assert (found, gpu.name if gpu else None) == (planned_for, card)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"repeats": 0}, "repeats is 0; it must be at least 1"),
        ({"target": "sm_91"}, r"'sm_91'; did you mean 'sm_90'\? Known: A100, H100, H200, B200"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
    ],
)
def test_bad_options(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConvLoomError, match=text):
        profile(network(), device="cpu", **options)  # type: ignore[arg-type]


# -- the forms -----------------------------------------------------------------------------------------------
def test_table_fits_the_terminal(report: Report) -> None:
    text = str(report)
    assert max(map(len, text.splitlines())) <= 120
    for row in report.fused.rows:
        assert row.name[:20] in text
    assert "2 | 7" in text
    assert "3.5x fewer launches" in text


def test_markup_in_names_is_text() -> None:
    row = Row("dense", ("[bold]x[/bold]", "[/]"), ("dense",), "contraction", 1, 10, 20, 1e-3, None)
    side = Side((row,), 1e-3)
    setup = Setup("[red]net", 1, "float32", "aten", "machine", 1, "sm_90", None)
    text = str(Report(setup, side, side))
    assert "[red]net" in text
    assert "[bold]x[/bold], [/]" in text


def test_json_is_all_of_it(report: Report, tmp_path: Path) -> None:
    data = json.loads(report.save(tmp_path / "report.json").read_text())
    assert data["setup"]["model"] == HOSTILE
    assert data["fused"]["totals"]["launches"] == 2
    assert [row["name"] for row in data["unfused"]["rows"]] == [row.name for row in report.unfused.rows]
    assert data["ratios"]["bytes"] == pytest.approx(report.unfused.bytes / report.fused.bytes)


class Balanced(HTMLParser):
    """Checks that every element is closed, and collects attributes that would load something."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.loads += [name for name, _ in attrs if name in ("src", "href", "onclick", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_stands_alone(report: Report, tmp_path: Path) -> None:
    text = report.save(tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Balanced()
    reader.feed(text)
    assert reader.open == []
    assert reader.loads == []
    assert not reader.seen & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?:", text)
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in text
    assert "prefers-color-scheme: dark" in text


def test_memory_is_told_once_on_the_page(report: Report) -> None:
    """In inference and in both passes of a training step, each with its picture, and what lies between."""
    text = report.to_html()
    sentences = [escape(sentence[1:]) for sentence, _ in report.memory()]
    assert [text.count(sentence) for sentence in sentences] == [1] * 4
    drawn = [arena is not None and bool(arena.runs) for _, arena in report.memory()]
    assert drawn == [True, False, False, True]  # the forward pass of a step keeps all that it makes
    assert text.count("<svg") == 2
    assert report.step is not None
    step = cl.compile(network(), device="cpu").planned(training=True)
    assert report.step.saved_bytes == step.saved_bytes(3)
    assert f"kept for the backward pass, beside the weights: {readable(step.saved_bytes(3))}" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["step"]["saved_bytes"] == step.saved_bytes(3)


def test_a_network_without_a_training_step_tells_of_inference() -> None:
    x = Input((4, 4, 3))
    model = Model(x, layers.Conv2D(2, 1)(layers.MixUp()(x)))
    found = profile(model, batch_size=2, device="cpu", repeats=1)
    assert found.step is None
    assert len(found.memory()) == 1


def test_report_is_not_saved_as_anything_else(report: Report, tmp_path: Path) -> None:
    with pytest.raises(ConvLoomError, match=r"a report is saved as .html, .json, .txt, not as '.pdf'"):
        report.save(tmp_path / "report.pdf")
    with pytest.raises(ConvLoomError, match="cannot write the report"):
        report.save(tmp_path / "nowhere" / "report.html")


# -- emit ----------------------------------------------------------------------------------------------------
def test_emit_writes_kernels_an_index_and_the_graph(tmp_path: Path) -> None:
    image = Input((6, 7, 1))
    h = layers.Conv2D(3, 3, activation="relu", name='%co"""nv\'|x')(image)
    h = layers.MaxPooling2D(2)(h)
    files = emit(Model(image, h, name="net](x"), tmp_path / "kernels", batch_size=2)
    names = sorted(path.name for path in files)
    assert names == ["README.md", "conv2d_relu_max_pool2d.py", "graph.txt"]
    assert all(re.fullmatch(r"[a-z0-9_]+\.py|README\.md|graph\.txt", name) for name in names)
    index = (tmp_path / "kernels" / "README.md").read_text()
    assert "| [conv2d_relu_max_pool2d.py](conv2d_relu_max_pool2d.py) | conv2d → relu → max_pool2d |" in index
    row = next(line for line in index.splitlines() if line.startswith("| [conv2d"))
    assert row.count("|") == 8
    assert "net](x" not in index
    assert "%conv" not in index
    assert "relu" in (tmp_path / "kernels" / "graph.txt").read_text()
    done = subprocess.run(
        [sys.executable, "conv2d_relu_max_pool2d.py"],
        cwd=tmp_path / "kernels",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout


def test_emit_training_has_backward_kernels(tmp_path: Path) -> None:
    x = Input((5,))
    files = emit(Model(x, layers.Dense(3, activation="relu")(x)), tmp_path, training=True)
    assert any("weight_grad" in path.name for path in files)
    assert "## Backward, in the order they run" in (tmp_path / "README.md").read_text()


def test_emit_unfused_is_one_file_an_op(tmp_path: Path) -> None:
    x = Input((5,))
    files = emit(Model(x, layers.Dense(3, activation="relu")(x)), tmp_path, fuse=False)
    assert {"dense.py", "relu.py"} <= {path.name for path in files}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "sm_12"}, r"unknown target 'sm_12'; did you mean 'sm_120'\? Known: A100"),
        ({"dtype": "float64"}, "kernels are not emitted for dtype 'float64'; use float32, tf32"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_emit_refuses(tmp_path: Path, options: dict[str, object], text: str) -> None:
    x = Input((5,))
    with pytest.raises(ConvLoomError, match=text):
        emit(Model(x, layers.Dense(3)(x)), tmp_path, **options)  # type: ignore[arg-type]


def test_emit_into_a_file(tmp_path: Path) -> None:
    x = Input((5,))
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConvLoomError, match="cannot write kernels to"):
        emit(Model(x, layers.Dense(3)(x)), tmp_path / "taken")
