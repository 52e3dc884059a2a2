"""The filters of the lectures, the photographs they run over, and the picture that shows what each finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

Array = NDArray[np.float32]

GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""

SIZE = 3
"""Of every kernel in the layer; the filter in one dimension stands in its middle row, with zeros around."""


@dataclass(frozen=True)
class Filter:
    """One filter: its matrix as the lectures write it, what it is divided by here so that brightness stays,
    and whether its response has a sign. It is laid over the image as it is written: a cross-correlation.
    """

    name: str
    finds: str
    matrix: tuple[tuple[float, ...], ...]
    divisor: int = 1
    signed: bool = False

    @property
    def kernel(self) -> Array:
        """(SIZE, SIZE), float32."""
        rim = (SIZE - len(self.matrix)) // 2
        return np.pad(np.array(self.matrix, np.float32) / self.divisor, ((rim, rim), (0, 0)))


FILTERS = (
    Filter("Sharpen", "a pixel against its four neighbours", ((0, -1, 0), (-1, 5, -1), (0, -1, 0))),
    Filter("Edges", "what differs from its neighbours", ((0, 1, 0), (1, -4, 1), (0, 1, 0)), 1, True),
    Filter("Blur", "the mean of nine pixels", ((1, 1, 1),) * 3, 9),
    Filter(
        "Soft blur",
        "a mean that counts the middle more",
        ((0.05, 0.125, 0.05), (0.125, 0.3, 0.125), (0.05, 0.125, 0.05)),
    ),
    Filter("Sobel, vertical", "edges that stand upright", ((1, 0, -1), (2, 0, -2), (1, 0, -1)), 1, True),
    Filter("Sobel, horizontal", "edges that lie flat", ((1, 2, 1), (0, 0, 0), (-1, -2, -1)), 1, True),
    Filter("Moving average", "along each row alone: one dimension", ((1 / 4, 1 / 2, 1 / 4),)),
)


# -- photographs ---------------------------------------------------------------------------------------------
def photograph(path: Path, longest: int = 640) -> Array:
    """An image file as (height, width, 3) colours in [0, 1], made smaller where a side is above `longest`."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32) / 255


def sample_photographs() -> list[Array]:
    """scikit-learn's own two, a temple in China and a flower, each (427, 640, 3)."""
    return [image.astype(np.float32) / 255 for image in load_sample_images().images]


# -- the picture ---------------------------------------------------------------------------------------------
PAPER, CARD, INK, SOFT, LINE = "#f4f2ec", "#ffffff", "#23262b", "#7b7f87", "#dedbd2"
NEGATIVE, POSITIVE = np.array([33, 102, 172]), np.array([201, 76, 21])
"""Cells of a matrix: blue and orange, which nearly everybody can tell apart."""

ZERO, BELOW, ABOVE = np.array([16, 18, 24]), np.array([84, 176, 255]), np.array([255, 168, 76])
"""Responses with a sign: the same two colours as lights in the dark."""

INKS = {"red": "#c0392b", "green": "#2e8b57", "blue": "#2166ac"}

SHARP = 2
"""Drawn this much larger and made smaller at the end, for smooth lines."""

THUMB, MATRIX, GAP, PAD, HEAD, TITLE = 400, 148, 16, 20, 62, 118


def draw(photos: Sequence[Array], responses: Sequence[Array], path: Path) -> None:
    """Write the picture: a card for the photographs, and one for each filter with its matrix and responses.

    photos: (height, width, 3) in [0, 1]; responses: (height, width, filters), one each. path: of a PNG.
    """
    tall = max(round(THUMB * photo.shape[0] / photo.shape[1]) for photo in photos)
    wide = PAD + MATRIX + (GAP + THUMB) * len(photos) + PAD
    high = HEAD + tall + PAD
    rows = (len(FILTERS) + 2) // 2
    page = _Page(2 * wide + 3 * GAP * 2, TITLE + rows * (high + 2 * GAP))
    page.text(2 * GAP, 28, "Seven filters, one convolution layer", 38, INK)
    what = (
        "Conv2D(7, 3): a filter is an output channel, laid over the image as it is written "
        "(cross-correlation). Where a response has a sign, blue is below zero, orange above."
    )
    page.text(2 * GAP, 78, what, 20, SOFT)
    for index, shown in enumerate((None, *FILTERS)):
        left = 2 * GAP + (index % 2) * (wide + 2 * GAP)
        top = TITLE + (index // 2) * (high + 2 * GAP)
        page.card(left, top, wide, high)
        name, finds = (shown.name, shown.finds) if shown else ("Photographs", "what goes in")
        width = page.text(left + PAD, top + 17, name, 25, INK)
        page.text(left + PAD + max(width, MATRIX) + GAP, top + 22, finds, 19, SOFT)
        if shown:
            page.matrix(left + PAD, top + HEAD, shown, tall)
        else:
            page.weights(left + PAD, top + HEAD, tall)
        for column, (photo, found) in enumerate(zip(photos, responses, strict=True)):
            pixels = colours(found[..., index - 1], shown.signed) if shown else np.uint8(255 * photo)
            page.image(left + PAD + MATRIX + GAP + column * (THUMB + GAP), top + HEAD, pixels)
    page.save(path)


def colours(response: Array, signed: bool) -> NDArray[np.uint8]:
    """(height, width) -> (height, width, 3): grey, or blue below zero and orange above, on black."""
    if not signed:
        return np.repeat(np.uint8(255 * response.clip(0, 1))[..., None], 3, axis=-1)
    strength = np.abs(response) / np.quantile(np.abs(response), 0.985)
    strength = strength.clip(0, 1)[..., None] ** 0.75
    light = np.where(response[..., None] < 0, BELOW, ABOVE)
    return np.uint8(ZERO + strength * (light - ZERO))


class _Page:
    """A canvas in units of final pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.canvas = Image.new("RGB", (width * SHARP, height * SHARP), PAPER)
        self.pen = ImageDraw.Draw(self.canvas)

    def text(self, x: float, y: float, text: str, size: int, colour: str, anchor: str = "la") -> float:
        """Write a line and return its width."""
        font = ImageFont.load_default(size * SHARP)
        self.pen.text((x * SHARP, y * SHARP), text, colour, font, anchor)
        return self.pen.textlength(text, font) / SHARP

    def card(self, x: float, y: float, width: float, height: float) -> None:
        box = [v * SHARP for v in (x, y, x + width, y + height)]
        self.pen.rounded_rectangle(box, 10 * SHARP, CARD, LINE, SHARP)

    def image(self, x: float, y: float, pixels: NDArray[np.uint8]) -> None:
        picture = Image.fromarray(pixels)
        size = (THUMB * SHARP, round(THUMB * SHARP * picture.height / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        self.canvas.paste(picture, (round(x * SHARP), round(y * SHARP)))

    def matrix(self, x: float, y: float, shown: Filter, height: float) -> None:
        """The filter's numbers in a square, each cell tinted by its size."""
        numbers = np.array(shown.matrix)
        cell = MATRIX / SIZE
        y += (height - cell * len(numbers)) / 2
        for (row, column), value in np.ndenumerate(numbers):
            share = 0.62 * abs(value) / np.abs(numbers).max()
            tint = 255 + share * ((NEGATIVE if value < 0 else POSITIVE) - 255)
            left, top = x + column * cell, y + row * cell
            box = [round(v * SHARP) for v in (left, top, left + cell, top + cell)]
            self.pen.rectangle(box, tuple(int(c) for c in tint), LINE, SHARP)
            self.number(left + cell / 2, top + cell / 2, value, 24 if value == int(value) else 17)
        if shown.divisor > 1:
            below = f"shown divided by {shown.divisor}"
            self.text(x + MATRIX / 2, y + cell * len(numbers) + 8, below, 17, SOFT, "ma")

    def number(self, x: float, y: float, value: float, size: int) -> None:
        """A number in the middle of a cell. The minus is a line: the font has only a hyphen, half as long."""
        colour = SOFT if value == 0 else INK
        width = self.text(x, y, f"{abs(value):g}", size, colour, "mm")
        if value < 0:
            left = x - width / 2 - 0.42 * size
            box = [v * SHARP for v in (left, y - 0.04 * size, left + 0.36 * size, y + 0.04 * size)]
            self.pen.rectangle(box, colour)

    def weights(self, x: float, y: float, height: float) -> None:
        """How the three colours become one grey channel."""
        y += (height - 3 * 44) / 2
        for index, (name, colour) in enumerate(INKS.items()):
            top = y + index * 44
            box = [v * SHARP for v in (x, top + 6, x + MATRIX * float(GREY[index]) / 0.6, top + 12)]
            self.pen.rounded_rectangle(box, 3 * SHARP, colour)
            self.text(x, top + 16, f"{GREY[index]:.3f} {name}", 17, SOFT)
        self.text(x, y - 26, "grey is", 17, SOFT)

    def save(self, path: Path) -> None:
        self.canvas.resize(self.size, Image.Resampling.LANCZOS).save(path, optimize=True)
