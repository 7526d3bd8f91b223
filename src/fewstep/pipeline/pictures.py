"""Pictures from outside: checked before a pixel is decoded, turned upright, and fitted to a size.

A picture is a path, a `PIL.Image`, an array, a tensor, or what a pipeline drew. The header of a file is read first:
its format, that it is one picture and not an animation, and its size in pixels. So a small file that unfolds to
gigabytes is refused before it takes memory. Then, in this order: the orientation that a camera wrote (EXIF) is
applied, transparent pixels are laid over white, other colour spaces become RGB, and the picture is fitted to the size
by one of `FITS`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fewstep.core.errors import InvalidInput, one_of
from fewstep.files import open_regular
from fewstep.pipeline.images import Images

Picture = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor | Images
"""A file; a picture in memory; an array (H, W), (H, W, C) or (1, H, W, C) of bytes, or of numbers in [0, 1]; a tensor
(C, H, W) or (1, C, H, W) in [-1, 1]; or one image that a pipeline drew."""
FITS = {
    "crop": "scaled until it covers the size, then the middle is cut out",
    "stretch": "scaled to the size, whatever its proportions",
    "exact": "refused unless it has the size",
}
"""How a picture of another size is fitted."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_FILE_BYTES, MAX_INPUT_PIXELS = 256 << 20, 1 << 26
"""Most bytes of a picture's file, and most pixels of a picture: 8192 x 8192."""
WHITE = (255, 255, 255, 255)
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_EXACT = ("L", "RGB", "RGBA", "LA", "P", "1", "CMYK", "YCbCr", "PA", "La", "RGBa", "RGBX")


def read_picture(source: Picture, size: tuple[int, int], fit: str = "crop") -> Tensor:
    """A picture as a tensor (1, 3, H, W), float32 in [-1, 1], on the host.

    Args:
        source: see `Picture`.
        size: (height, width).
        fit: one of `FITS`. A tensor is never scaled: it has to have the size.

    Raises:
        OSError: the file cannot be read.
        InvalidInput: it is not a picture, is damaged, animated or too large, or does not have the size it needs.
    """
    one_of("fit", fit, FITS)
    image = opened(source)
    if isinstance(image, Tensor):
        return given_tensor(image, size, 3, -1.0)
    pixels = np.asarray(fitted(opaque(image), size, fit), np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None].contiguous()


def given_tensor(tensor: Tensor, size: tuple[int, int], channels: int, low: float) -> Tensor:
    """A picture that is a tensor already, checked: (1, channels, H, W) in [low, 1]."""
    shape = (1, channels, *size)
    found = tensor.detach().to("cpu", torch.float32)
    found = found[None] if found.ndim == 3 else found
    if tuple(found.shape) != shape:
        raise InvalidInput(f"a picture as a tensor must have shape {shape} here, got {tuple(tensor.shape)}")
    if not bool(torch.isfinite(found).all()) or found.min() < low - 1e-4 or found.max() > 1 + 1e-4:
        raise InvalidInput(
            f"a picture as a tensor must lie in [{low:g}, 1], got {float(found.min()):g} .. {float(found.max()):g}"
        )
    return found.clamp(low, 1)


def opened(source: Any) -> Image.Image | Tensor:
    """The picture, upright, with its pixels decoded; a tensor as it is."""
    if isinstance(source, Tensor):
        return source
    if isinstance(source, Images):
        if len(source) != 1:
            raise InvalidInput(f"a picture is one image, and {len(source)} were drawn: give one of them, images[0]")
        return source.images[0]
    if isinstance(source, np.ndarray):
        return _of_array(source)
    if isinstance(source, Image.Image):
        _check(source, "the picture")
        return _loaded(source, "the picture")
    if not isinstance(source, str | os.PathLike):
        raise InvalidInput(
            f"a picture is a path, a PIL.Image, an array, a tensor or a drawn image, got {type(source).__name__}"
        )
    path = Path(source)
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder: give the file of a picture")
    with open_regular(path) as file:
        return decoded(file, os.fstat(file.fileno()).st_size, str(path))


def decoded(file: BinaryIO, size: int, name: str) -> Image.Image:
    """The picture, upright, in a file of so many bytes that is open; `name` is for errors.

    Raises `InvalidInput` where it is not a picture, is damaged, animated or too large, as far as the header says it
    before a pixel is decoded.
    """
    if size > MAX_FILE_BYTES:
        raise InvalidInput(f"{name} has {size:,} bytes; a picture's file has at most {MAX_FILE_BYTES:,}")
    try:
        image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInput(f"{name} has more than {MAX_INPUT_PIXELS:,} pixels: give a smaller picture") from error
    except Exception as error:
        raise InvalidInput(
            f"{name} is not a picture that is read here ({', '.join(FORMATS)}), or its header is damaged"
        ) from error
    with image:
        _check(image, name)
        return _loaded(image, name)


def _of_array(array: NDArray[Any]) -> Image.Image:
    """Of (H, W), (H, W, C) or (1, H, W, C), bytes or numbers in [0, 1]; of one to four channels."""
    kind, found = array.dtype, array[0] if array.ndim == 4 and len(array) == 1 else array
    found = found[..., None] if found.ndim == 2 else found
    if found.ndim != 3 or found.shape[2] not in _CHANNELS or not found.size:
        raise InvalidInput(
            f"a picture as an array has the shape (H, W) or (H, W, C) of 1 to 4 channels, got {array.shape}: give a "
            "tensor where the channels come first"
        )
    _check_size(found.shape[1], found.shape[0], "the picture")
    if kind == np.bool_:
        found = found.astype(np.uint8) * np.uint8(255)
    elif np.issubdtype(kind, np.floating):
        low, high = float(found.min()), float(found.max())
        if not 0 <= low <= high <= 1:  # which is false of NaN too
            raise InvalidInput(f"a picture as an array of {kind} lies in [0, 1], got {low:g} .. {high:g}")
        found = (found.astype(np.float64) * 255).round().astype(np.uint8)
    elif kind != np.uint8:
        raise InvalidInput(f"a picture as an array holds bytes (uint8), or numbers in [0, 1], got {kind}")
    plain = found[..., 0] if found.shape[2] == 1 else found
    return Image.fromarray(np.ascontiguousarray(plain), _CHANNELS[found.shape[2]])


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_INPUT_PIXELS or not width or not height:
        raise InvalidInput(f"{name} has {width} x {height} pixels; 1 to {MAX_INPUT_PIXELS:,} are read")


def _check(image: Image.Image, name: str) -> None:
    """Raise `InvalidInput` for what the header says."""
    _check_size(*image.size, name)
    if getattr(image, "is_animated", False):
        raise InvalidInput(f"{name} is an animation: give one of its pictures")
    if image.mode not in _EXACT and not image.mode.startswith("I;16"):
        raise InvalidInput(f"{name} has pixels of kind {image.mode!r}, whose white is not known: save it with 8 bits")


def _loaded(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
    except Exception as error:
        raise InvalidInput(f"{name} is damaged or not whole ({type(error).__name__}: {str(error)[:200]})") from error
    if upright.mode.startswith("I;16"):  # PIL's own conversion would clip
        return Image.fromarray((np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8))
    return upright


def opaque(image: Image.Image, under: tuple[int, int, int, int] = WHITE) -> Image.Image:
    """In RGB, over a colour where it is transparent."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, under), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def fitted(image: Image.Image, size: tuple[int, int], fit: str, name: str = "the picture") -> Image.Image:
    """At a size, (height, width), by one of `FITS`."""
    height, width = size
    if image.size == (width, height):
        return image
    if fit == "exact":
        raise InvalidInput(
            f"{name} has {image.size[0]} x {image.size[1]} pixels and {width} x {height} are needed: "
            'use fit="crop" or "stretch", or another height and width'
        )
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.LANCZOS)
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
