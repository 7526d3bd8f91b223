"""Prompts of training and prompts that no training saw, and how many of the pictures drawn for them are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.scene import Description, draw_description


class Prompt(NamedTuple):
    """A caption and what it names."""

    text: str
    description: Description


def held_out_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """`count` prompts of the held-out part, in varied English; the first ones of a longer list are the same."""
    return _prompts(count, np.random.default_rng((seed, 3)), held_out=True)


def training_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """`count` prompts of the part that training draws from; the first ones of a longer list are the same."""
    return _prompts(count, np.random.default_rng((seed, 4)), held_out=False)


def _prompts(count: int, rng: np.random.Generator, held_out: bool) -> list[Prompt]:
    descriptions = (draw_description(rng, held_out=held_out) for _ in range(count))
    return [Prompt(caption(description, rng), description) for description in descriptions]


def adherence(pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[Prompt]) -> float:
    """Share of the pictures, each (64, 64, 3) of 8 bits, that are right in every attribute that their prompt names."""
    if len(pictures) != len(prompts) or not prompts:
        raise InvalidInput(f"give one picture for each prompt, got {len(pictures)} pictures for {len(prompts)} prompts")
    right = [
        adheres(read_picture(pixels), prompt.description) for pixels, prompt in zip(pictures, prompts, strict=True)
    ]
    return float(np.mean(right))
