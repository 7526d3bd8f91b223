"""PNG files: written whole or not at all, with one text in them that is read without decoding a pixel.

Tools that rewrite pictures keep the text as another kind of chunk, or move it behind the pixels; it is found there too.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from fewstep.core.errors import InvalidInput
from fewstep.drawing.made import MAX_PIXELS, Stamp
from fewstep.files import open_regular, write_whole

KEYWORD = "fewstep"
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def save_png(image: Image.Image, path: str | os.PathLike[str], text: str | None = None) -> Path:
    """Write a picture as PNG in one move, its folder made where missing. `text` is ASCII; it goes into the chunk."""
    target = png_path(path)
    content = png_bytes(image, text)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)
    except OSError as error:  # name the target, not the partial file beside it
        raise OSError(error.errno, f"cannot write the picture ({error.strerror})", str(target)) from error
    return target


def png_bytes(image: Image.Image, text: str | None = None) -> bytes:
    """The content of a PNG of a picture. `text` is ASCII; it goes into the chunk."""
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_text(KEYWORD, text)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()


def png_path(path: str | os.PathLike[str]) -> Path:
    """`path`, which has to be one that a PNG can have. Raises `InvalidInput` where it does not end in .png."""
    if Path(path).suffix.lower() != ".png":
        raise InvalidInput(f"pictures are written as PNG: give a path that ends in .png, got {os.fspath(path)!r}")
    return Path(path)


def read(path: str | os.PathLike[str]) -> Stamp:
    """What the PNG at `path` keeps.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it is not a PNG of fewstep, is damaged, or its text is.
    """
    with open_regular(path) as file:
        try:
            text = _text(Image.open(file, formats=("PNG",)))
        except (SyntaxError, ValueError, OSError, *TOO_LARGE) as error:
            why = str(error).replace(repr(file), "the file")
            raise InvalidInput(f"{path} is not a PNG picture, or it is damaged ({why}). Give the original") from error
    if not isinstance(text, str):
        raise InvalidInput(
            f"{path} carries no recipe: fewstep did not write it, or another program dropped its text. Give the "
            "original"
        )
    try:
        return Stamp.read(text)
    except InvalidInput as error:
        raise InvalidInput(f"the recipe in {path} cannot be used: {error}") from error


def _text(image: Any) -> str | None:
    if KEYWORD not in image.info and image.width * image.height <= MAX_PIXELS:
        image.load()  # which reads what is behind the pixels
    return image.info.get(KEYWORD)
