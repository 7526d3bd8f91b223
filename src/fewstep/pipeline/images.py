"""The result of a drawing: tensors, pictures of them, and files that carry their recipe."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.pipeline.png import png_bytes, save_png
from fewstep.pipeline.recipe import ImageRecipe, PromptRecipe
from fewstep.pipeline.stamp import Layout, Stamp

BACKGROUND = 32
"""Grey between the images."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images that were drawn together.

    Attributes:
        tensor: (B, C, H, W), float32, as the sampler left it: in `value_range` up to what the model overshoots.
        value_range: least and greatest value of the data.
        recipe: what draws them again.
        nfe: network evaluations per image, counted; a guided one counts 2.
        seconds: that the drawing took.
        timings: seconds of each stage by name: "encode" of prompts, "denoise", and "decode" of latents.
    """

    tensor: Tensor
    value_range: tuple[float, float]
    recipe: ImageRecipe
    nfe: float
    seconds: float
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[int | None, ...]:
        """The label of each image; None is the null class."""
        return tuple(self.recipe.labels[i] for i in self.recipe.kept)

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
        """The same as `images`, by the name that diffusers has taught."""
        return self.images

    @property
    def titles(self) -> tuple[str, ...]:
        """A short name of each image that a file may have: the first words of its prompt, or its label."""
        recipe = self.recipe
        if isinstance(recipe, PromptRecipe):
            words = (re.sub(r"[^a-z0-9]+", "-", recipe.prompts[i].lower()).strip("-")[:40] for i in recipe.kept)
            return tuple(word.strip("-") or "image" for word in words)
        return tuple("none" if label is None else f"label{label}" for label in self.labels)

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Images]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Images:
        """Image `index` alone."""
        return self.take([range(len(self))[index]])

    def take(self, indices: Sequence[int]) -> Images:
        """Some of the images; their recipe draws them with the batch that they came from, and keeps them alone."""
        kept = self.recipe.kept
        recipe = replace(self.recipe, keep=tuple(kept[i] for i in indices))
        return replace(self, tensor=self.tensor[list(indices)], recipe=recipe)

    def layout(self, columns: int | None = None, scale: int | None = None) -> Layout:
        """A layout: by default nearly square, each image about 64 pixels wide."""
        return Layout.of(len(self), self.tensor.shape[-1], columns, scale)

    def sheet(self, layout: Layout | None = None) -> Image.Image:
        """All images in one picture, enlarged without smoothing."""
        return sheet_of(self.tensor, self.value_range, layout or self.layout())

    def save(self, path: str | os.PathLike[str], layout: Layout | None = None) -> Path:
        """Write one PNG with all images and their recipe, whole or not at all. Makes its folder."""
        layout = layout or self.layout()
        return save_png(self.sheet(layout), path, Stamp.now(self.recipe, layout, self.digest).to_json())

    def encoded(self, layout: Layout | None = None) -> bytes:
        """The content of the file that `save` writes."""
        layout = layout or self.layout()
        return png_bytes(self.sheet(layout), Stamp.now(self.recipe, layout, self.digest).to_json())

    def save_each(self, folder: str | os.PathLike[str], scale: int = 1) -> list[Path]:
        """Write one PNG for each image into `folder`, without a border: `0000-label3.png`, each with its own recipe."""
        paths = []
        for index, title, one in zip(self.recipe.kept, self.titles, self, strict=True):
            paths.append(one.save(Path(folder) / f"{index:04}-{title}.png", Layout(1, scale, gap=0)))
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
    scale, gap, columns = layout.scale, layout.gap, min(layout.columns, len(tiles))
    size = layout.size(len(tiles), height, width)
    sheet = Image.new(tiles[0].mode, size, BACKGROUND if tiles[0].mode == "L" else (BACKGROUND,) * 3)
    for i, tile in enumerate(tiles):
        enlarged = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        left, top = gap + i % columns * (width + gap), gap + i // columns * (height + gap)
        sheet.paste(enlarged, (left * scale, top * scale))
    return sheet
