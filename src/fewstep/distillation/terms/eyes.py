"""Frozen networks whose features of pictures a discriminator looks at, from files on the disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.distillation.terms.heads import DEPTHS, heard
from fewstep.measure.backbones import backbone
from fewstep.zoo import classifier

KINDS = ("clip", "dinov2")
SERIES = re.compile(r"(.*\.)?layers?\.\d+")
"""Names of a backbone's blocks, one after another."""


@dataclass(frozen=True, eq=False)
class Eyes:
    """A frozen network on pictures (B, C, H, W) in [-1, 1], and the layers of it whose outputs count."""

    features: Any
    layers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of all that decides what it sees."""
        return self.features.digest

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """The outputs of the layers."""
        with heard(self.features.network, self.layers) as found:
            self.features(pictures)
        return found


def eyes_of(where: str, layers: Sequence[str] = ()) -> Eyes:
    """The network that is named: `clip:FOLDER`, `dinov2:FOLDER`, or the file of a classifier of digits.

    Raises `InvalidInput` where it is not there, or has no such layers.
    """
    kind, colon, path = where.partition(":")
    if colon and kind in KINDS:
        features: Any = backbone(kind, path)
    elif Path(where).is_file():
        features = classifier.load(where)
    else:
        raise InvalidInput(
            f"features are those of the teacher, of clip:FOLDER or dinov2:FOLDER, or of a file of a classifier of "
            f"digits, and {where!r} is none of these"
        )
    return Eyes(features, tuple(layers) or usual_layers(features.network))


def usual_layers(network: nn.Module) -> tuple[str, ...]:
    """Half way, three quarters and at the end of a series of blocks, or all convolutions where there is none."""
    names = [name for name, _ in network.named_modules()]
    series = [name for name in names if SERIES.fullmatch(name)]
    if series:
        return tuple(dict.fromkeys(series[max(0, round(depth * len(series)) - 1)] for depth in DEPTHS))
    return tuple(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
