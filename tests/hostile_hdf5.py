"""HDF5 files that lead out of themselves, or claim more than they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hostile_cases import CASES, Files, Maker
from keras_files import (
    kernel,
    small,
    write_json,
    write_weights,
)


# -- HDF5 ----------------------------------------------------------------------------------------------------
def weights(change: Callable[[h5py.File, Path], object]) -> Maker:
    """`small` with its weights, changed."""

    def make(folder: Path) -> Files:
        path = write_weights(folder / "w.weights.h5", **kernel())
        (folder / "secret").write_bytes(np.full((3, 2), 7, "f4").tobytes())
        write_weights(folder / "secret.h5", **kernel())
        with h5py.File(path, "a") as file:
            change(file, folder)
        return write_json(folder / "net.json", small()), path

    return make


PLACE = "layers/dense/vars/0"


def replaced(file: h5py.File, value: Any) -> None:
    del file[PLACE]
    file[PLACE] = value


def created(file: h5py.File, shape: tuple[int, ...], dtype: Any = "f4", **arguments: Any) -> None:
    del file[PLACE]
    file.create_dataset(PLACE, shape, dtype, **arguments)


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), PLACE, (3, 2))
    del file[PLACE]
    file.create_virtual_dataset(PLACE, layout)


def user_filter(file: h5py.File, folder: Path) -> None:
    created_with = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created_with.set_chunk((3, 2))
    created_with.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, (1,))
    del file[PLACE]
    group, space = file["layers/dense/vars"], h5py.h5s.create_simple((3, 2))
    h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, space, created_with)


def huge_chunk(file: h5py.File, folder: Path) -> None:
    created(file, (3, 2), chunks=(2**14, 2**14), maxshape=(None, None), compression="gzip")


def group_link(file: h5py.File, folder: Path) -> None:
    del file["layers/dense"]
    file["layers/dense"] = h5py.ExternalLink(str(folder / "secret.h5"), "/layers/dense")


HDF5: dict[str, tuple[Callable[[h5py.File, Path], object], str, str]] = {
    "CVE-2026-1669 an external link": (
        lambda file, folder: replaced(file, h5py.ExternalLink(str(folder / "secret.h5"), f"/{PLACE}")),
        "UnsafeModelError",
        "is a ExternalLink",
    ),
    "CVE-2026-1669 an external link on the way": (group_link, "UnsafeModelError", "is a ExternalLink"),
    "PR 22976 a soft link": (
        lambda file, folder: replaced(file, h5py.SoftLink("/layers/dense/vars/1")),
        "UnsafeModelError",
        "is a SoftLink",
    ),
    "CVE-2026-1669 external storage": (
        lambda file, folder: created(file, (3, 2), external=[(str(folder / "secret"), 0, 24)]),
        "UnsafeModelError",
        "keeps its data outside the file",
    ),
    "CVE-2026-1669 a virtual data set": (virtual, "UnsafeModelError", "keeps its data outside the file"),
    "a filter that is a library": (user_filter, "UnsafeModelError", "packed by filter 32015"),
    "CVE-2026-0897 a shape of 4 TB": (
        lambda file, folder: created(file, (2**20, 2**20), chunks=(64, 64), compression="gzip"),
        "ModelFormatError",
        r"has shape \(1048576, 1048576\).*expected \(3, 2\)",
    ),
    "PR 22975 a chunk of 1 GB": (huge_chunk, "ModelFormatError", "in chunks of 1,073,741,824 bytes"),
    "a complex kernel": (
        lambda file, folder: replaced(file, np.ones((3, 2), "c8")),
        "ModelFormatError",
        "of complex64, expected",
    ),
    "text as a kernel": (
        lambda file, folder: created(file, (3, 2), h5py.string_dtype()),
        "ModelFormatError",
        "of object, expected",
    ),
    "references as a kernel": (
        lambda file, folder: created(file, (3, 2), h5py.ref_dtype),
        "ModelFormatError",
        "of object, expected",
    ),
    "no values at all": (
        lambda file, folder: replaced(file, h5py.Empty("f4")),
        "ModelFormatError",
        r"weight 'kernel'",
    ),
    "a group as a kernel": (
        lambda file, folder: (file.__delitem__(PLACE), file.create_group(PLACE)),
        "ModelFormatError",
        r"weight 'kernel' .* is missing",
    ),
    "groups in a circle": (
        lambda file, folder: (
            file.__delitem__("layers/dense"),
            file.__setitem__("layers/dense", file["layers"]),
        ),
        "ModelFormatError",
        r"weight 'kernel' .* is missing",
    ),
}
for title, (change, kind, text) in HDF5.items():
    CASES[title] = (weights(change), kind, text)
