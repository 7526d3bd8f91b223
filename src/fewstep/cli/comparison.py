"""The picture of `fewstep compare`: a table of strips of images, with heads and captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from fewstep.core.errors import InvalidInput

BACKGROUND, TEXT, FAINT = (24, 24, 27), (236, 236, 240), (160, 160, 170)
HEAD, CAPTION, MARGIN, SPACE = 18, 14, 24, 20
MAX_PIXELS = 64_000_000


class Cell(NamedTuple):
    """A strip of images and what stands below it."""

    strip: Image.Image
    caption: str


def draw(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]]) -> Image.Image:
    """A picture of `cells[row][column]` with a name before each row and above each column. Strips have one size."""
    head, caption = ImageFont.load_default(HEAD), ImageFont.load_default(CAPTION)

    def width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
        return round(font.getlength(text))

    strip = cells[0][0].strip
    left = MARGIN + max(width(name, head) for name in rows) + SPACE
    texts = [*(width(name, head) for name in columns), *(width(c.caption, caption) for row in cells for c in row)]
    across = max(strip.width, *texts) + SPACE
    top, below = MARGIN + 2 * HEAD, round(1.6 * CAPTION)
    down = strip.height + below + SPACE
    size = (left + len(columns) * across - SPACE + MARGIN, top + len(rows) * down - SPACE + MARGIN)
    if size[0] * size[1] > MAX_PIXELS:
        raise InvalidInput(f"a picture of {size[0]} x {size[1]} pixels is too large: compare fewer samplers or steps")
    picture = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for c, name in enumerate(columns):
        pen.text((left + c * across, MARGIN), name, TEXT, head)
    for r, (name, row) in enumerate(zip(rows, cells, strict=True)):
        y = top + r * down
        pen.text((MARGIN, y + strip.height / 2), name, TEXT, head, anchor="lm")
        for c, cell in enumerate(row):
            picture.paste(cell.strip, (left + c * across, y))
            pen.text((left + c * across, y + strip.height + below), cell.caption, FAINT, caption, anchor="ls")
    return picture
