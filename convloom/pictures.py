"""A picture's file as the batch of one that a network takes. Pillow reads it, which need not be installed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .graph.errors import ConvLoomError
from .graph.ir import Node

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = {1: ("L", "grey"), 3: ("RGB", "RGB"), 4: ("RGBA", "RGB with transparency")}
"""Channels -> Pillow's mode, and what a person calls it."""
READ = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
"""Pillow's modes of 8 bits a channel, which become each other without loss of range."""


@dataclass(frozen=True)
class Layout:
    """How an input holds a picture. height, width: None where any will do.

    first: whether channels come first. flat: whether it is (height, width), without an axis for channels.
    """

    height: int | None
    width: int | None
    channels: int
    first: bool = False
    flat: bool = False


def layout(node: Node) -> Layout:
    """Raises ConvLoomError where the input takes no picture."""
    sizes = [size if isinstance(size, int) else None for size in node.type.shape[1:]]
    if len(sizes) == 2:
        return Layout(sizes[0], sizes[1], 1, flat=True)
    if len(sizes) == 3:
        if sizes[2] is None or sizes[2] in COLOURS:
            return Layout(sizes[0], sizes[1], sizes[2] or 3)
        if sizes[0] in COLOURS:
            return Layout(sizes[1], sizes[2], sizes[0] or 3, first=True)
    shown = ", ".join("any" if size is None else str(size) for size in sizes)
    raise ConvLoomError(
        f"input {node.name!r} takes ({shown}), which is no picture of 1, 3 or 4 channels; give its values as "
        f".npy or .npz"
    )


def read_picture(path: str, node: Node, resize: bool) -> tuple[np.ndarray[Any, Any], str]:
    """The pixels, 0 to 255, as a batch of one for that input, and what was done, for a person.

    They are float32 where the input is of floating point, else uint8. Raises ConvLoomError for a picture that
    cannot be read, and for one of another size where `resize` does not allow to change it.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ConvLoomError(
            f"{path} is an image, and Pillow, which reads images, is not installed: pip install pillow; "
            f"or give the pixels as .npy"
        ) from None
    wanted = layout(node)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                kind, frames = opened.format or "image", getattr(opened, "n_frames", 1)
                picture = ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ConvLoomError(f"{path}: this image has too many pixels; make it smaller") from None
    except Exception as error:  # a damaged file leads Pillow's readers to any of them
        reason = (getattr(error, "strerror", None) or str(error)).replace(f" {path!r}", "")
        raise ConvLoomError(f"{path}: this image cannot be read: {reason}") from None
    if picture.mode not in READ:
        raise ConvLoomError(
            f"{path} has pixels of Pillow's kind {picture.mode!r}, not of 8 bits a channel; save it so, or "
            f"give the values as .npy"
        )
    done = [f"{path}: {kind} of {_size(picture.size)} pixels"]
    if frames > 1:
        done.append(f"the first of {frames} frames")
    pixels = np.asarray(_resized(_coloured(picture, wanted, done), wanted, resize, path, node.name, done))
    if wanted.first:
        pixels = pixels.reshape(*pixels.shape[:2], wanted.channels).transpose(2, 0, 1)
    elif not wanted.flat:
        pixels = pixels.reshape(*pixels.shape[:2], wanted.channels)
    batch = np.ascontiguousarray(pixels[None], np.float32 if node.type.is_floating else np.uint8)
    return batch, f"{', '.join(done)}; values 0 to 255"


def _coloured(picture: Image, wanted: Layout, done: list[str]) -> Image:
    mode, called = COLOURS[wanted.channels]
    if picture.mode == mode:
        done.append(called)
        return picture
    clear = picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info
    done.append(f"turned into {called}" + (", transparency dropped" if clear and mode != "RGBA" else ""))
    if picture.mode in ("P", "PA", "LA") and mode == "L":
        picture = picture.convert("RGB")  # a palette's colours, rather than its indices
    return picture.convert(mode)


def _resized(picture: Image, wanted: Layout, resize: bool, path: str, name: str, done: list[str]) -> Image:
    from PIL.Image import Resampling

    size = (wanted.width or picture.width, wanted.height or picture.height)
    if size == picture.size:
        return picture
    if not resize:
        raise ConvLoomError(
            f"{path} has {_size(picture.size)} pixels (width x height), and input {name!r} takes "
            f"{_size(size)}; --resize resizes it"
        )
    wide, high = picture.width * size[1], picture.height * size[0]
    changed = abs(wide - high) > 0.01 * max(wide, high)
    done.append(f"resized to {_size(size)}" + (", its proportions changed" if changed else ""))
    return picture.resize(size, Resampling.BILINEAR)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
