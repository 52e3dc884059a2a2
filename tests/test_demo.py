"""The examples: the network, the digits, the filters and their picture; and `make demo` from end to end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from digits import digits, interpolation, shifted
from filters import apply_filters
from gallery import BELOW, FILTERS, GREY, SIZE, ZERO, colours, draw
from lenet5 import lenet5
from PIL import Image
from sklearn.datasets import load_digits
from terminal import check

import convloom as cl

EXAMPLES = Path(__file__).parents[1] / "examples"


# -- the network and its data --------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [28, 32])
def test_lenet5_has_61706_parameters_and_five_kernels(size: int) -> None:
    model = lenet5(size)
    assert model.count_params() == 61_706
    assert [kernel.ops for kernel in cl.compile(model).kernels] == [
        ["conv2d", "relu", "max_pool2d"],
        ["conv2d", "relu", "max_pool2d"],
        ["dense", "relu"],
        ["dense", "relu"],
        ["dense", "softmax"],
    ]


def test_interpolation_keeps_a_ramp_and_a_constant() -> None:
    matrix = interpolation(8, 28)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    centres = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    np.testing.assert_allclose(matrix @ np.arange(8.0), centres)


def test_a_fifth_of_the_digits_is_held_out_of_every_class() -> None:
    (x, y), (x_held, y_held) = digits(size=28)
    assert x.shape == (1437, 28, 28, 1)
    assert x_held.shape == (360, 28, 28, 1)
    assert x.dtype == np.float32
    assert 0 <= x.min() < x.max() <= 1
    everything = np.bincount(load_digits().target)
    assert (np.bincount(y) + np.bincount(y_held) == everything).all()
    assert np.abs(np.bincount(y_held) - everything / 5).max() < 1


def test_shifted_images_are_moved_over_blank_paper() -> None:
    x = np.arange(1, 31, dtype=np.float32).reshape(1, 6, 5, 1)
    images, labels = shifted(x, np.array([7]), by=2)
    assert labels.tolist() == [7] * 5
    np.testing.assert_array_equal(images[0], x[0])
    np.testing.assert_array_equal(images[1][2:, 2:], x[0][:-2, :-2])
    np.testing.assert_array_equal(images[2][2:, :-2], x[0][:-2, 2:])
    np.testing.assert_array_equal(images[3][:-2, 2:], x[0][2:, :-2])
    np.testing.assert_array_equal(images[4][:-2, :-2], x[0][2:, 2:])
    assert not images[1][:2].any()
    assert not images[4][:, -2:].any()


# -- the filters ---------------------------------------------------------------------------------------------
def test_filters_equal_a_cross_correlation_by_numpy() -> None:
    photo = np.random.default_rng(0).random((23, 31, 3), np.float32)
    grey = (photo @ GREY).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(grey, (SIZE, SIZE))
    found = apply_filters(photo)
    assert found.shape == (21, 29, len(FILTERS))
    for channel, shown in enumerate(FILTERS):
        expected = np.einsum("hwrs,rs->hw", windows, shown.kernel.astype(np.float64))
        tolerance = SIZE * SIZE * np.finfo(np.float32).eps * np.abs(shown.kernel).sum()
        np.testing.assert_allclose(found[..., channel], expected, rtol=0, atol=tolerance, err_msg=shown.name)


def test_filters_are_those_of_the_lectures() -> None:
    """As they are laid over an image by cross-correlation; a blur keeps brightness, so it is divided."""
    wanted = {
        "Sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
        "Edges": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
        "Blur": [[1 / 9] * 3] * 3,
        "Soft blur": [[0.05, 0.125, 0.05], [0.125, 0.3, 0.125], [0.05, 0.125, 0.05]],
        "Sobel, vertical": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
        "Sobel, horizontal": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
        "Moving average": [[0, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]],
    }
    assert [shown.name for shown in FILTERS] == list(wanted)
    for shown in FILTERS:
        np.testing.assert_allclose(shown.kernel, wanted[shown.name], rtol=1e-6, err_msg=shown.name)  # type: ignore[call-overload]


@pytest.mark.parametrize("shown", FILTERS, ids=lambda shown: shown.name)
def test_filters_keep_brightness_or_answer_zero_to_it(shown: object) -> None:
    kernel, signed = shown.kernel, shown.signed  # type: ignore[attr-defined]
    assert kernel.shape == (SIZE, SIZE)
    assert kernel.sum() == pytest.approx(0 if signed else 1)


def test_colours_tell_the_sign() -> None:
    response = np.array([[-1.0, 0.0, 1.0]], np.float32).repeat(100, axis=0)
    below, zero, above = colours(response, signed=True)[0]
    assert zero.tolist() == ZERO.tolist()
    assert below.tolist() == BELOW.tolist()
    assert above[0] > above[2]
    assert colours(response, signed=False)[0].tolist() == [[0] * 3, [0] * 3, [255] * 3]


@pytest.mark.parametrize("photos", [1, 2])
def test_picture_is_drawn(photos: int, tmp_path: Path) -> None:
    images = [np.random.default_rng(i).random((40, 60, 3), np.float32) for i in range(photos)]
    draw(images, [apply_filters(image) for image in images], tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        picture.load()
        assert picture.width > 1000
        assert len(picture.getcolors(picture.width * picture.height) or ()) > 1000


# -- the programs --------------------------------------------------------------------------------------------
def test_import_keras_shows_kernels_and_the_difference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import import_keras

    monkeypatch.setattr(sys, "argv", ["import_keras.py"])
    import_keras.main()
    text = capsys.readouterr().out
    assert "5 kernels; without fusion 12" in text
    assert "conv2d -> tanh -> average_pool2d" in text
    assert float(text.split()[-1]) < 1e-5


def test_a_failed_check_ends_the_demo_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    check(True, "good")
    with pytest.raises(SystemExit) as stopped:
        check(False, "bad")
    assert stopped.value.code == 1


@pytest.mark.slow
def test_train_digits_reads_the_held_out_digits() -> None:
    program = [sys.executable, str(EXAMPLES / "train_digits.py"), "--epochs", "6"]
    run = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    last = re.findall(r"epoch 6: ([\d.]+)%", run.stdout)
    assert float(last[0]) >= 98.5


def test_demo_from_end_to_end(tmp_path: Path) -> None:
    program = [sys.executable, str(EXAMPLES / "demo.py"), str(tmp_path / "shown")]
    run = subprocess.run(program, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "✗" not in run.stdout
    for name in ("filters.png", "profile.html", "kernels/README.md", "kernels/conv2d_relu_max_pool2d.py"):
        assert (tmp_path / "shown" / name).stat().st_size > 0, name


@pytest.mark.parametrize(
    ("program", "arguments", "text"),
    [
        ("demo.py", ("taken",), "demo.py: error: [Errno 17] File exists: 'taken'"),
        ("demo.py", ("taken/inside",), "demo.py: error: [Errno 20] Not a directory: 'taken/inside'"),
        ("train_digits.py", ("--epochs", "0"), "train_digits.py: error: --epochs is 0; it must be"),
    ],
)
def test_wrong_arguments_are_one_line(
    program: str, arguments: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(text)
    assert "Traceback" not in done.stderr
