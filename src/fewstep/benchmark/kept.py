"""What is kept of the images that a guidance scale drew, so that they are never drawn twice.

FOLDER/guidance/KEY.safetensors holds those of one scale. The figures of a bench are a line of numbers each. To compare
two scales image by image takes what was read of every image, so these lie in files of their own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.measure import stored

KIND = "images at a guidance scale"


@dataclass
class KeptImages:
    """What was read of images, in the order of their numbers.

    Attributes:
        values: (n, d) of a yardstick; 0 for images that were not finite, whose places are in `lost`.
        saturated: (n,) share of pixels at the ends of the range.
        evaluations: (n,) network evaluations of each.
    """

    values: Tensor
    saturated: Tensor
    evaluations: Tensor
    lost: Tensor

    def __len__(self) -> int:
        return len(self.values)

    @staticmethod
    def none() -> KeptImages:
        """Of no image."""
        empty = torch.empty(0, dtype=torch.float64)
        return KeptImages(torch.empty(0, 0, dtype=torch.float64), empty, empty, torch.empty(0, dtype=torch.bool))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> KeptImages:
        """Read a file of `save`. Raises `InvalidInput` where it is none, and says what to do."""
        try:
            tensors, _ = stored.read(path, KIND, ("values", "saturated", "evaluations", "lost"), ())
        except InvalidInput as error:
            raise InvalidInput(f"{error}. Delete {path}, and it is measured again") from error
        found = KeptImages(*(tensors[name] for name in ("values", "saturated", "evaluations", "lost")))
        if len({len(tensor) for tensor in tensors.values()}) != 1 or found.values.ndim != 2:
            raise InvalidInput(f"{path} does not hold the same number of images throughout: delete it")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them, whole or not at all."""
        stored.write(path, KIND, dict(vars(self)), {})

    def first(self, count: int) -> KeptImages:
        """The first so many of them."""
        return KeptImages(*(tensor[:count] for tensor in vars(self).values()))

    def followed_by(self, other: KeptImages) -> KeptImages:
        """These and others."""
        if not len(self):
            return other
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return KeptImages(*(torch.cat(pair) for pair in pairs))
