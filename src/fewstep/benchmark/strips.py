"""Small pictures of the first images of a row, for the page."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from torch import Tensor

from fewstep.files import write_whole
from fewstep.pipeline.images import Layout, pixels_of, sheet_of, tiles_of

SHOWN, LEAST, MOST = 8, 48, 128
"""Images of a strip, and the least and most pixels that each is wide."""


def save_strip(path: Path, pictures: Tensor, value_range: tuple[float, float]) -> None:
    """Write the first images side by side, unless their file is there; what is not finite is drawn as the least."""
    if path.exists() or pictures.shape[1] not in (1, 3):
        return
    shown = pictures[:SHOWN].nan_to_num(value_range[0], value_range[1], value_range[0])
    width = shown.shape[-1]
    if width <= MOST:
        strip = sheet_of(shown, value_range, Layout(len(shown), max(1, LEAST // width), 1))
    else:
        tiles = [
            tile.resize((MOST, MOST * tile.height // tile.width)) for tile in tiles_of(pixels_of(shown, value_range))
        ]
        strip = Image.new(tiles[0].mode, (len(tiles) * (MOST + 2), tiles[0].height))
        for i, tile in enumerate(tiles):
            strip.paste(tile, (i * (MOST + 2), 0))
    file = io.BytesIO()
    strip.save(file, "PNG", optimize=True)
    write_whole(path, file.getvalue())
