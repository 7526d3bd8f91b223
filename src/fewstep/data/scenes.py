"""The project's scenes: coloured shapes with a caption each, drawn by number and never the same again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fewstep.core.errors import InvalidInput
from fewstep.data.source import Sample, Told
from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import draw_description, placed

USUAL = 16_384


@dataclass(frozen=True)
class Scenes:
    """So many scenes of 64 x 64 pixels; held-out prompts are none of them."""

    count: int = USUAL
    seed: int = 0

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 1 or type(self.seed) is not int or self.seed < 0:
            raise InvalidInput(f"scenes need a count of at least 1 and a seed from 0, got {self.count} and {self.seed}")

    @property
    def told(self) -> Told:
        """Captions."""
        return "prompts"

    @property
    def classes(self) -> int:
        """None."""
        return 0

    @property
    def identity(self) -> Mapping[str, Any]:
        """By count and seed."""
        return {"kind": "scenes", "count": self.count, "seed": self.seed}

    def name(self, number: int) -> str:
        """The number of the scene."""
        return f"scene {number}"

    def read(self, number: int) -> Sample:
        """A scene and one way to say it."""
        rng = np.random.default_rng((self.seed, number))
        description = draw_description(rng, held_out=False)
        return Sample(Image.fromarray(picture(placed(description, rng))), caption(description, rng))
