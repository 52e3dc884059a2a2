"""How the demo looks in a terminal: chapters, short remarks, code, images of a few lines, and checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=116)


def chapter(number: int, title: str) -> None:
    console.print()
    console.rule(f"[bold cyan]{number}[/]  [bold]{title}[/]", align="left", style="cyan")
    console.print()


def say(text: str) -> None:
    console.print(text)


def code(text: str) -> None:
    shown = Syntax(text.rstrip(), "python", theme="ansi_dark", background_color="default", word_wrap=True)
    console.print(Padding(shown, (0, 0, 0, 2)))


def check(good: bool, text: str) -> None:
    """A result that has to hold. Prints it with a mark, and ends the demo with status 1 where it does not."""
    console.print(f"[bold green]✓[/] {text}" if good else f"[bold red]✗[/] {text}")
    if not good:
        console.print("[red]The demo stops here, as this should have held.[/]")
        raise SystemExit(1)


def small_images(images: NDArray[np.float32], captions: list[str]) -> None:
    """As many images (n, height, width) in [0, 1] as fit side by side, each over its caption.

    A character is two pixels high and as wide as two: half blocks in shades of grey, or without colours signs
    of growing ink.
    """
    coarse = images.reshape(len(images), images.shape[1] // 2, 2, images.shape[2] // 2, 2).mean(axis=(2, 4))
    coarse = coarse[:, :, 1:-1]  # blank at both sides
    width = coarse.shape[2]
    coarse = coarse[: (console.width - 2) // (width + 1)]
    draw = _half_blocks if console.color_system else _signs
    for row in range(0, coarse.shape[1], 2):
        parts = (draw(image[row], image[row + 1]) for image in coarse)
        console.print(Text("  ") + Text(" ").join(parts), no_wrap=True)
    line = " ".join(caption.center(width) for caption in captions[: len(coarse)])
    console.print("  " + line, style="bold", no_wrap=True)


def _half_blocks(upper: NDArray[np.float32], lower: NDArray[np.float32]) -> Text:
    line = Text()
    for above, below in zip(upper, lower, strict=True):
        line.append("▀", f"{_shade(above)} on {_shade(below)}")
    return line


def _signs(upper: NDArray[np.float32], lower: NDArray[np.float32]) -> Text:
    return Text("".join(" .:-=+*#%@"[min(9, int(10 * ink))] for ink in (upper + lower) / 2))


def _shade(value: float) -> str:
    level = round(24 + 231 * float(np.clip(value, 0, 1)))
    return f"rgb({level},{level},{level})"


def shown(path: Path) -> str:
    """A path as a person here would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
