"""Make filters.jpg, the picture of the demo's fourth chapter at the size the README shows.

python docs/pictures/make_filters.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

from filters import apply_filters  # noqa: E402
from gallery import draw, sample_photographs  # noqa: E402

WIDTH = 1424
"""Two thirds of the full picture: sharp at the width of a README on a dense screen."""


def main() -> None:
    photos = sample_photographs()
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "filters.png"
        draw(photos, [apply_filters(photo) for photo in photos], full)
        picture = Image.open(full)
        picture = picture.resize(
            (WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.LANCZOS
        )
    picture.save(HERE / "filters.jpg", quality=86, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
