"""Scenes as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewstep.zoo.scenes.scene import BACKGROUNDS, COLOURS, SIZE, Scene, Thing

FINE = 4
"""Pictures are drawn this many times larger and averaged, so that edges are smooth."""

Corners = tuple[tuple[float, float], ...]
"""Of a shape of the caller's own: (x, y) of each, y down, within the circle of radius 1 around (0, 0)."""
NONE: Mapping[str, Corners] = MappingProxyType({})


def outline(
    shape: str, x: float, y: float, radius: float, further: Mapping[str, Corners] = NONE
) -> list[tuple[float, float]]:
    """Corners of a shape other than the circle, inside the circle around (x, y)."""
    if shape in further:
        return [(x + radius * a, y + radius * b) for a, b in further[shape]]
    match shape:
        case "square":
            turns, radii = [0.125, 0.375, 0.625, 0.875], [radius] * 4
        case "triangle":
            turns, radii = [0.25, 0.25 + 1 / 3, 0.25 + 2 / 3], [radius] * 3
        case _:
            turns, radii = [0.25 + i / 10 for i in range(10)], [radius, 0.42 * radius] * 5
    return [
        (x + r * math.cos(2 * math.pi * t), y - r * math.sin(2 * math.pi * t))
        for t, r in zip(turns, radii, strict=True)
    ]


def paint(
    draw: ImageDraw.ImageDraw,
    thing: Thing,
    scale: float,
    fill: tuple[int, ...] | int,
    further: Mapping[str, Corners] = NONE,
) -> None:
    """Fill one thing's area on a canvas `scale` times as large as the scene."""
    x, y, r = thing.x * scale, thing.y * scale, thing.radius * scale
    if thing.shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    else:
        draw.polygon(outline(thing.shape, x, y, r, further), fill=fill)


def picture(scene: Scene, further: Mapping[str, Corners] = NONE) -> NDArray[np.uint8]:
    """The scene as (SIZE, SIZE, 3), 8 bits a channel; `further` are shapes beside those of the scenes, by name."""
    canvas = Image.new("RGB", (SIZE * FINE, SIZE * FINE), BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        paint(draw, thing, FINE, COLOURS[thing.colour], further)
    return np.asarray(canvas.reduce(FINE))
