"""Random draws of a training step, each keyed by (seed, purpose, step, sample) and never by the order of drawing.

So no random state is kept: a run that was interrupted goes on to the same bits, and a sample meets the same noise
whoever shares its batch and however many processes share the step. The generator is that of `fewstep.run.noise`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.run.noise import Source, unit_noise

Float = NDArray[np.float64]


def key_of(*parts: object) -> int:
    """A 63-bit key of some words and numbers, unrelated to that of any others."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_generators(seed: int) -> None:
    """Seed torch's global generators of the host and of every card, as `torch.manual_seed` does.

    Where there is no card, that would write down the stack of calls three times, which takes longer than a step of a
    small network.
    """
    if torch.cuda.is_available() or torch.xpu.is_available() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@dataclass(frozen=True)
class Draws:
    """What is random in one step.

    Attributes:
        seed: of the run; `step`: 0, 1 ..
        samples: the number of each sample of the batch, any whole numbers from 0.
        places: where each stands in the batch of the whole step, 0 .. total - 1, however the step is shared out.
        total: samples of the whole step.
    """

    seed: int
    step: int
    samples: Sequence[int]
    places: Sequence[int]
    total: int
    device: torch.device | str = "cpu"

    def normal(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Unit noise (B, *shape), float32."""
        like = torch.empty((len(self.samples), *shape), device=self.device)
        return unit_noise(self.samples, key_of(self.seed, purpose, self.step), like)

    def uniform(self, purpose: str) -> Float:
        """(B,) in [0, 1), float64 on the host."""
        source = Source(key_of(self.seed, purpose, self.step))
        return np.array([source.of(number).random() for number in self.samples])

    def spread(self, purpose: str) -> Float:
        """(B,) in [0, 1), one in each of `total` equal shares over the whole step, in random places.

        A mean over a batch varies less so than with independent draws (Kingma et al. 2021, arXiv 2107.00630, appendix
        I.1).
        """
        draw = np.random.Generator(np.random.Philox(key=[self.step, key_of(self.seed, purpose)]))
        first, order = draw.random(), draw.permutation(self.total)
        return np.mod((order[list(self.places)] + first) / self.total, 1.0)

    def key(self, purpose: str) -> int:
        """A seed for a generator of the caller's, such as that of a network's dropout: the same for all losses of these
        places of the step, another for the places of other parts and processes.
        """
        first = min(self.places, default=0)
        return key_of(self.seed, purpose, self.step, *([first] if first else []))
