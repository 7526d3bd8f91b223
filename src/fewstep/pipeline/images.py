"""The result of a drawing: tensors, pictures of them, and files that keep how to draw them again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.drawing import Drawing, Layout, Made, Stamp, names, png_bytes, save_png

BACKGROUND = 32
"""Grey between the images."""


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images that were drawn together.

    Attributes:
        tensor: (B, C, H, W), float32, as the sampler left it: in `value_range` up to what the model overshoots.
        value_range: least and greatest value of the data.
        drawing, made: what was asked for, and how it was made; both together draw the same pixels again.
        nfe: network evaluations for an image, counted; a guided row costs 2.
        seconds: that the drawing took; `timings`: of each stage, "encode", "denoise" and "decode".
    """

    tensor: Tensor
    value_range: tuple[float, float]
    drawing: Drawing
    made: Made
    nfe: float
    seconds: float
    timings: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        count, (height, width) = len(self), self.tensor.shape[-2:]
        return (
            f"<{count} image{'s' * (count != 1)} by {self.made.model}, {width} x {height}: "
            f"{self.drawing.sampling.method}, NFE {self.nfe:g} each, {self.seconds:.2f} s>"
        )

    @property
    def kept(self) -> tuple[int, ...]:
        """Which images of the drawing these are."""
        return self.made.kept(len(self.drawing))

    @property
    def subjects(self) -> tuple[str | int | None, ...]:
        """The prompt or label of each image."""
        return tuple(self.drawing.subjects[i // self.drawing.count] for i in self.kept)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(B, H, W, C), `value_range` clamped and rounded to 0 .. 255."""
        return pixels_of(self.tensor, self.value_range)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over `pixels`."""
        state = hashlib.sha256(str(self.pixels.shape).encode())
        state.update(self.pixels.tobytes())
        return state.hexdigest()[:16]

    @property
    def images(self) -> list[Image.Image]:
        """One picture for each image, pixel for pixel; grey for one channel and RGB for three."""
        return tiles_of(self.pixels)

    def pil(self) -> list[Image.Image]:
        """The same as `images`, under the name that diffusers uses."""
        return self.images

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Images]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Images:
        """Image `index` alone."""
        return self.take([range(len(self))[index]])

    def take(self, indices: Sequence[int]) -> Images:
        """Some of the images; drawing them again draws the batch that they came from, and keeps these."""
        kept = self.kept
        made = self.made.but(keep=tuple(kept[i] for i in indices))
        return replace(self, tensor=self.tensor[list(indices)], made=made)

    def layout(self, columns: int | None = None, scale: int | None = None) -> Layout:
        """A layout: by default nearly square, each image about 64 pixels wide, and one alone up to 512."""
        height, width = self.tensor.shape[-2:]
        return Layout.fitting(len(self), width, columns, scale, height)

    def sheet(self, layout: Layout | None = None) -> Image.Image:
        """All images in one picture, enlarged without smoothing."""
        return sheet_of(self.tensor, self.value_range, layout or self.layout())

    def stamp(self, layout: Layout | None = None) -> Stamp:
        """What a picture of the images keeps."""
        drawing = self.drawing.but(sampling=self.drawing.sampling.beside())
        made = self.made.but(pixels=self.digest)
        return Stamp(drawing=drawing, made=made, layout=layout or self.layout())

    def save(self, path: str | os.PathLike[str], layout: Layout | None = None) -> Path:
        """Write one PNG with all images and their stamp, whole or not at all. Makes its folder."""
        layout = layout or self.layout()
        return save_png(self.sheet(layout), path, self.stamp(layout).text)

    def encoded(self, layout: Layout | None = None) -> bytes:
        """The content of the file that `save` writes."""
        layout = layout or self.layout()
        return png_bytes(self.sheet(layout), self.stamp(layout).text)

    def save_each(self, folder: str | os.PathLike[str], scale: int = 1) -> list[Path]:
        """Write one PNG for each image into `folder`, without a border: `0000-label3.png`."""
        paths = []
        for index, subject, one in zip(self.kept, self.subjects, self, strict=True):
            layout = Layout(columns=1, scale=scale, gap=0)
            paths.append(one.save(Path(folder) / names.one_of(index, subject), layout))
        return paths


def pixels_of(tensor: Tensor, value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """(B, H, W, C) in 0 .. 255 of images (B, C, H, W): `value_range` clamped and rounded."""
    low, high = value_range
    scaled = (tensor.double().clamp(low, high) - low) * (255 / (high - low))
    return np.ascontiguousarray(scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy())


def tiles_of(pixels: NDArray[np.uint8]) -> list[Image.Image]:
    """One picture for each image of (B, H, W, C)."""
    channels = pixels.shape[-1]
    if channels not in (1, 3):
        raise InvalidInput(f"pictures have 1 or 3 channels, these images have {channels}: use their tensor")
    return [Image.fromarray(each[..., 0] if channels == 1 else each) for each in pixels]


def sheet_of(tensor: Tensor, value_range: tuple[float, float], layout: Layout) -> Image.Image:
    """Images (B, C, H, W) in one picture, enlarged without smoothing."""
    tiles = tiles_of(pixels_of(tensor, value_range))
    height, width = tensor.shape[-2:]
    size = layout.size(len(tiles), height, width)
    sheet = Image.new(tiles[0].mode, size, BACKGROUND if tiles[0].mode == "L" else (BACKGROUND,) * 3)
    for tile, (left, top, right, bottom) in zip(tiles, layout.boxes(len(tiles), height, width), strict=True):
        sheet.paste(tile.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
    return sheet
