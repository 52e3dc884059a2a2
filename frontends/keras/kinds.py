"""What a file is, by its first bytes: the forms that are read, and names for what is often taken for them."""

from __future__ import annotations

import re

ZIP, HDF5, FOLDER, OTHER = "zip", "hdf5", "folder", "other"
HEAD = 512
"""Bytes that are looked at."""

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

REMEDY = "a model is a .keras, .h5 or .json file, as Keras's save() or to_json() writes it"
_IMAGE = "an image ({}); to run a network on it, give it as input"

KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n", _IMAGE.format("PNG")),
    (rb"\xff\xd8\xff", _IMAGE.format("JPEG")),
    (rb"GIF8[79]a", _IMAGE.format("GIF")),
    (rb"RIFF.{4}WEBP", _IMAGE.format("WebP")),
    (rb"II\*\0|MM\0\*", _IMAGE.format("TIFF")),
    (rb"BM.{4}\0{4}", _IMAGE.format("BMP")),
    (rb".{4}ftyp(avif|heic|mif1)", _IMAGE.format("AVIF or HEIC")),
    (rb"P[1-6]\s", _IMAGE.format("PNM")),
    (
        rb"version https://git-lfs\.github\.com/",
        "a Git LFS pointer, which stands for the file; fetch the file itself with `git lfs pull`",
    ),
    (
        rb"(?i:\s*(<!--.*?-->\s*)?(<!doctype html|<html|<head|<body))",
        "a web page; download the file itself, not the page that shows it",
    ),
    (rb"\s*<\?xml|\s*<svg|\s*<Error>", "an XML document, such as a server's error; download the file again"),
    (rb"\x93NUMPY", "a NumPy array (.npy); it can be the input of a network"),
    (rb"\x80[\x02-\x05]", "a Python pickle, which could run code and is never opened"),
    (rb".{8}\{\s*\"", "a .safetensors file, which ConvLoom does not read; {}"),
    (rb".{4}TFL3", "a TensorFlow Lite model, which ConvLoom does not read; {}"),
    (rb"\x08[\x01-\x0f]\x12.{1,2}[\x20-\x7e]", "an ONNX model or another protocol buffer; {}"),
    (rb"%PDF-", "a PDF document; {}"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "a compressed archive; unpack it first"),
    (rb".{257}ustar", "a tar archive; unpack it first"),
    (rb"\x7fELF|MZ", "a program; {}"),
    (rb"(backend|class_name|config|keras_version): ", "YAML, which ConvLoom does not read; save it anew"),
    (rb"graph \S+ \{", "ConvLoom's graph as text, which is for reading; convert to .json instead"),
    (rb"\xff\xfe|\xfe\xff|.\0.\0", "text in UTF-16 or something binary; JSON is written in UTF-8"),
)
"""(pattern of the first bytes, what the file is and what to do)."""

_COMPILED = tuple((re.compile(pattern, re.DOTALL), text) for pattern, text in KINDS)


def form(head: bytes) -> str:
    """ZIP, HDF5 or, for all that may be text, OTHER."""
    if head.startswith(ZIP_MAGIC):
        return ZIP
    return HDF5 if head.startswith(HDF5_MAGIC) else OTHER


def other_kind(head: bytes) -> str | None:
    """What a file is that is neither an archive, nor HDF5, nor JSON: a text that goes on after "this is"."""
    if not head.strip(b"\0 \t\r\n"):
        return "an empty file; " + REMEDY if not head else "a file of blanks or zeros; was it copied in full?"
    for pattern, text in _COMPILED:
        if pattern.match(head):
            return text.format(REMEDY)
    return None
