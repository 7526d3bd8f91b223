"""Descriptions in English, in many ways of saying the same."""

from __future__ import annotations

import numpy as np

from fewstep.zoo.scenes.scene import OPPOSITE, Description, Group

COUNTS = {1: ("a", "one"), 2: ("two", "2"), 3: ("three", "3")}
SIZES = {"small": ("small", "little"), "large": ("large", "big")}
ANY = ("shape", "object")
SAME = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
INTRODUCTIONS = ("", "", "", "there is ", "a picture of ", "a drawing of ", "an image of ")
BEHIND = ("on a {} background", "on {}", "against a {} background", ", {} background")


def caption(description: Description, rng: np.random.Generator | None = None) -> str:
    """One way to say it; without `rng` the plainest, such as "a small red circle left of a blue square on white"."""

    def one_of(ways: tuple[str, ...]) -> str:
        return ways[0 if rng is None else rng.integers(len(ways))]

    def said(group: Group) -> str:
        noun = one_of(ANY) if group.shape is None else group.shape
        words = [
            one_of(COUNTS[group.count]),
            "" if group.size is None else one_of(SIZES[group.size]),
            group.colour or "",
            noun + ("s" if group.count > 1 else ""),
        ]
        if words[0] == "a" and next(word for word in words[1:] if word)[0] in "aeiou":
            words[0] = "an"
        return " ".join(word for word in words if word)

    first, *others = map(said, description.groups)
    text, relation = first, description.relation
    if others and relation is None:
        pair = [first, *others]
        text = " and ".join(pair if rng is None or rng.random() < 0.5 else pair[::-1])
    elif others and relation is not None:
        pair = [first, *others]
        if rng is not None and rng.random() < 0.3:
            pair, relation = pair[::-1], OPPOSITE[relation]
        text = f"{pair[0]} {one_of(SAME[relation])} {pair[1]}"
    text = one_of(INTRODUCTIONS) + text
    if description.background is not None:
        behind = one_of(BEHIND).format(description.background)
        text += behind if behind.startswith(",") else f" {behind}"
    return text


def keyword(description: Description, rng: np.random.Generator) -> str:
    """A colour, a shape or both, as people put into a negative prompt: such as "red", "stars" or "blue square". Empty
    where the description names neither."""
    named = [group for group in description.groups if group.colour or group.shape]
    if not named:
        return ""
    group = named[rng.integers(len(named))]
    shape = None if group.shape is None else group.shape + ("s" if group.count > 1 else "")
    words = [word for word in (group.colour, shape) if word]
    if len(words) == 2 and rng.random() < 2 / 3:
        words = [words[rng.integers(2)]]
    return " ".join(words)
