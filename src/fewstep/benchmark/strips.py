"""Small pictures of the first images of a plan, for the page."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor

from fewstep.files import write_whole
from fewstep.pipeline.images import Layout, sheet_of

SHOWN, LEAST, MOST = 8, 48, 128
"""Images of a strip, and the least and most pixels that each is wide."""


def save_strip(path: Path, pictures: Tensor, value_range: tuple[float, float]) -> None:
    """Write the first images side by side, unless their file is there; what is not finite is drawn as the least."""
    if path.exists() or pictures.shape[1] not in (1, 3):
        return
    shown = pictures[:SHOWN].nan_to_num(value_range[0], value_range[1], value_range[0])
    width = shown.shape[-1]
    strip = sheet_of(shown, value_range, Layout(columns=len(shown), scale=max(1, LEAST // width)))
    if width > MOST:
        strip = strip.resize((strip.width * MOST // width, strip.height * MOST // width))
    file = io.BytesIO()
    strip.save(file, "PNG", optimize=True)
    write_whole(path, file.getvalue())
