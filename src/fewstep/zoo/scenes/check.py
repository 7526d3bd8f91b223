"""What is in a picture of a scene: shapes, colours, sizes and places, read from the pixels without any network.

The background is the commonest colour of the border. Pixels far from it form connected parts; each part's colour is
the median inside, its shape the one whose outline, drawn over the same box, overlaps it most.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.picture import FINE, NONE, Corners, paint
from fewstep.zoo.scenes.scene import BACKGROUNDS, COLOURS, RADII, RELATIONS, SHAPES, SIZE, Description, Group, Thing

DIFFERENT, LEAST_AREA, LEAST_OVERLAP = 60.0, 24, 0.6
"""Distance in RGB from the background, pixels of a part, and overlap with a shape that count."""


class Found(NamedTuple):
    """One thing in a picture; `shape` is None where no outline overlaps enough."""

    colour: str
    shape: str | None
    size: str
    x: float
    y: float


class Reading(NamedTuple):
    """What is in a picture."""

    background: str
    things: tuple[Found, ...]


def read_picture(pixels: NDArray[np.uint8], further: Mapping[str, Corners] = NONE) -> Reading:
    """Everything in a picture (SIZE, SIZE, 3) of 8 bits a channel.

    A thing may have one of some `further` shapes too, by name.
    """
    if pixels.shape != (SIZE, SIZE, 3) or pixels.dtype != np.uint8:
        raise InvalidInput(f"a picture of a scene is uint8 of ({SIZE}, {SIZE}, 3), got {pixels.dtype} {pixels.shape}")
    colour = pixels.astype(np.float32)
    border = np.concatenate([colour[0], colour[-1], colour[:, 0], colour[:, -1]])
    names = list(BACKGROUNDS)
    votes = np.bincount(_nearest(border, BACKGROUNDS), minlength=len(names))
    background = names[int(votes.argmax())]
    behind = np.median(border[_nearest(border, BACKGROUNDS) == votes.argmax()], axis=0)
    mask = np.linalg.norm(colour - behind, axis=-1) > DIFFERENT
    labels = _parts(mask)
    parts = [labels == label for label in np.unique(labels[mask])]
    return Reading(background, tuple(_found(part, colour, further) for part in parts if part.sum() >= LEAST_AREA))


def adheres(reading: Reading, description: Description) -> bool:
    """Whether the picture is right in every attribute that the description names, and shows nothing else."""
    if description.background not in (None, reading.background):
        return False
    wanted = [group for group in description.groups for _ in range(group.count)]
    if len(wanted) != len(reading.things):
        return False
    return any(
        all(_fits(thing, group) for thing, group in zip(things, wanted, strict=True))
        and (description.relation is None or _lies(things[0], things[1], description.relation))
        for things in permutations(reading.things)
    )


def _fits(thing: Found, group: Group) -> bool:
    named = ((group.colour, thing.colour), (group.shape, thing.shape), (group.size, thing.size))
    return all(wanted in (None, got) for wanted, got in named)


def _lies(first: Found, second: Found, relation: str) -> bool:
    dx, dy = RELATIONS[relation]
    return (first.x - second.x) * dx + (first.y - second.y) * dy > 2


def _nearest(colours: NDArray[np.float32], known: dict[str, tuple[int, int, int]]) -> NDArray[np.int64]:
    return np.linalg.norm(colours[:, None] - np.array(list(known.values())), axis=-1).argmin(axis=1)


def _parts(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A number for each connected part of the mask, 0 outside it."""
    inside = torch.from_numpy(mask).float()[None, None]
    labels = torch.arange(1.0, mask.size + 1).reshape(1, 1, *mask.shape) * inside
    while True:
        spread = F.max_pool2d(labels, 3, stride=1, padding=1) * inside
        if torch.equal(spread, labels):
            return labels[0, 0].long().numpy()
        labels = spread


def _found(part: NDArray[np.bool_], colour: NDArray[np.float32], further: Mapping[str, Corners]) -> Found:
    ys, xs = np.nonzero(part)
    left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    inner = colour[part]
    centre = np.median(inner, axis=0)
    name = list(COLOURS)[int(_nearest(centre[None], COLOURS)[0])]
    box = part[top:bottom, left:right]
    overlaps = {shape: _overlap(box, shape, further.get(shape)) for shape in (*SHAPES, *further)}
    shape = max(overlaps, key=lambda s: overlaps[s])
    radius = _radius(shape, further) * (right - left)
    limit = (RADII["small"][1] + RADII["large"][0]) / 2
    return Found(
        name,
        shape if overlaps[shape] >= LEAST_OVERLAP else None,
        "small" if radius < limit else "large",
        float(left + right) / 2,
        float(top + bottom) / 2,
    )


def _radius(shape: str, further: Mapping[str, Corners]) -> float:
    """Of the circle around a shape, as a share of the shape's width."""
    if shape in further:
        across = [x for x, _ in further[shape]]
        return 1 / (max(across) - min(across))
    return {"circle": 0.5, "square": 0.5**0.5, "triangle": 3**-0.5, "star": 0.5257}[shape]


def _overlap(box: NDArray[np.bool_], shape: str, corners: Corners | None) -> float:
    """Intersection over union of a part with the shape stretched to the part's box."""
    height, width = box.shape
    full = _stencil(shape, corners)
    stretched = np.asarray(Image.fromarray(full).resize((width, height), Image.Resampling.BOX)) >= 128
    union = (box | stretched).sum()
    return float((box & stretched).sum() / union) if union else 0.0


@lru_cache
def _stencil(shape: str, corners: Corners | None) -> NDArray[np.uint8]:
    """The shape, cut to its own box; `corners` of one that the scenes have not."""
    canvas = Image.new("L", (SIZE * FINE, SIZE * FINE))
    further = NONE if corners is None else {shape: corners}
    paint(ImageDraw.Draw(canvas), Thing("", shape, SIZE / 2, SIZE / 2, SIZE * 0.45), FINE, 255, further)
    return np.asarray(canvas.crop(canvas.getbbox()))
