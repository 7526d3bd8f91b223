"""Labelled images in memory as data to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewstep.training import Batch
from fewstep.zoo.dataset import ImageSet


@dataclass(frozen=True, eq=False)
class Labelled:
    """The images of a set by their places in it, with `label`; the empty condition is the null class."""

    images: ImageSet

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.images)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Their name, and the digest of pixels and labels."""
        return {"name": self.images.name, "digest": self.images.digest}

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some of them."""
        chosen = list(numbers)
        labels = self.images.labels[chosen]
        null = {"label": torch.full_like(labels, self.images.classes)}
        return Batch(self.images.images[chosen], None, {"label": labels}, null)
