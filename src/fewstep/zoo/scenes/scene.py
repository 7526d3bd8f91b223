"""Scenes of a few coloured shapes: what a caption says of one, and where things lie in it.

A `Description` is what a caption names; what it leaves open is None. `placed` fills the open attributes at random and
gives each thing a place, so that any number of scenes fit one description.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SIZE = 64
"""Pixels of a side."""

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (214, 40, 40),
    "green": (44, 160, 66),
    "blue": (40, 84, 214),
    "yellow": (244, 212, 44),
    "purple": (140, 60, 180),
    "orange": (245, 134, 30),
}
BACKGROUNDS = {"white": (250, 250, 250), "black": (12, 12, 14), "gray": (150, 152, 156), "pink": (250, 200, 214)}
RADII = {"small": (6.5, 7.5), "large": (11.5, 13.0)}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
MARGIN, GAP = 2.0, 3.0
"""Least distance, in pixels, of a thing to the border and of two things to each other."""


@dataclass(frozen=True)
class Group:
    """`count` equal things; an attribute that the caption leaves open is None."""

    count: int
    colour: str | None
    shape: str | None
    size: str | None


@dataclass(frozen=True)
class Description:
    """What a caption names: one or two groups, how the first lies to the second, the background."""

    groups: tuple[Group, ...]
    relation: str | None
    background: str | None

    @property
    def held_out(self) -> bool:
        """Whether this description, whichever of two things comes first, is of the twentieth that no training uses."""
        ways: list[Description] = [self]
        if len(self.groups) == 2:
            ways.append(Description(self.groups[::-1], self.relation and OPPOSITE[self.relation], self.background))
        return hashlib.sha256(min(repr(way) for way in ways).encode()).digest()[0] % 20 == 0


class Thing(NamedTuple):
    """One shape: its centre and the radius of the circle around it, in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float


class Scene(NamedTuple):
    """What there is to draw."""

    background: str
    things: tuple[Thing, ...]


def described(rng: np.random.Generator) -> Description:
    """A random description."""

    def named(names: tuple[str, ...], share: float) -> str | None:
        return names[rng.integers(len(names))] if rng.random() < share else None

    def group(count: int) -> Group:
        colour, shape = named(tuple(COLOURS), 0.9), named(SHAPES, 0.9)
        return Group(count, colour, shape, named(tuple(RADII), 0.5))

    background = named(tuple(BACKGROUNDS), 0.6)
    kind = rng.random()
    if kind < 0.35:
        return Description((group(1),), None, background)
    if kind < 0.55:
        return Description((group(int(rng.integers(2, 4))),), None, background)
    return Description((group(1), group(1)), named(tuple(RELATIONS), 0.8), background)


def draw_description(rng: np.random.Generator, *, held_out: bool) -> Description:
    """A random description of the training or of the held-out part."""
    while (found := described(rng)).held_out != held_out:
        pass
    return found


def placed(description: Description, rng: np.random.Generator) -> Scene:
    """A random scene that the description is true of."""

    def chosen(name: str | None, names: tuple[str, ...]) -> str:
        return name or names[rng.integers(len(names))]

    background = chosen(description.background, tuple(BACKGROUNDS))
    things: list[tuple[str, str, str]] = []
    for group in description.groups:
        one = (
            chosen(group.colour, tuple(COLOURS)),
            chosen(group.shape, SHAPES),
            chosen(group.size, tuple(RADII)),
        )
        things += [one] * group.count
    relation = description.relation
    if relation is None and len(description.groups) == 2:
        relation = chosen(None, tuple(RELATIONS))
    while True:
        radii = [float(rng.uniform(*RADII[size])) for _, _, size in things]
        places = [rng.uniform(MARGIN + r, SIZE - MARGIN - r, 2) for r in radii]
        if _apart(places, radii) and (relation is None or _related(places[0], places[1], relation)):
            break
    return Scene(
        background,
        tuple(
            Thing(colour, shape, float(x), float(y), r)
            for (colour, shape, _), (x, y), r in zip(things, places, radii, strict=True)
        ),
    )


def crowded(rng: np.random.Generator, tries: int = 12) -> Scene:
    """A scene of as many random things as find a place in some tries, for the autoencoder to see much at once."""
    things: list[Thing] = []
    for _ in range(tries):
        radius = float(rng.uniform(*RADII[tuple(RADII)[rng.integers(2)]]))
        place = rng.uniform(MARGIN + radius, SIZE - MARGIN - radius, 2)
        if _apart([place, *(np.array([t.x, t.y]) for t in things)], [radius, *(t.radius for t in things)]):
            colour, shape = tuple(COLOURS)[rng.integers(len(COLOURS))], SHAPES[rng.integers(len(SHAPES))]
            things.append(Thing(colour, shape, float(place[0]), float(place[1]), radius))
    return Scene(tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))], tuple(things))


def _apart(places: list[np.ndarray], radii: list[float]) -> bool:
    return all(
        np.hypot(*(places[i] - places[j])) >= radii[i] + radii[j] + GAP for i in range(len(places)) for j in range(i)
    )


def _related(first: np.ndarray, second: np.ndarray, relation: str) -> bool:
    """Whether the direction is that of the relation, within 40 degrees."""
    along = np.array(RELATIONS[relation])
    offset = first - second
    return float(offset @ along) >= 0.77 * float(np.hypot(*offset))
