"""Averages of the weights over a training, with a power function as their profile, of which any other can be made.

After n steps the weights of step i count as i^g (Karras et al. 2024, arXiv 2312.02696, section 3.1):

    average <- beta_n average + (1 - beta_n) weights,     beta_n = (1 - 1 / n)^(g + 1)

The width of a profile is its standard deviation as a share of the training: 5% and 10% are usual. Unlike an average of
constant decay it forgets the beginning of a short run as of a long one. From averages of two widths at a few steps, one
of any other width is a linear combination, by least squares between the profiles (algorithm 3 there).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput

WIDTHS = (0.05, 0.10)
WIDEST = 0.28
"""The width of a plain mean over all steps is 1 / sqrt(12) = 0.289."""


@cache
def exponent(width: float) -> float:
    """g of a profile whose standard deviation is `width` of the training: 16.97 for 5%, 6.94 for 10%."""
    if not 0.001 <= width <= WIDEST:
        raise InvalidInput(f"the width of an average lies from 0.001 to {WIDEST}, a share of the training, got {width}")
    # (g + 1) / ((g + 2)^2 (g + 3)) = width^2 has one root above 0
    roots = np.roots([1.0, 7.0, 16.0 - width**-2, 12.0 - width**-2])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-9))


def share(width: float, step: int) -> float:
    """How much of the weights after `step` (1, 2 ..) goes into the average: 1 - beta."""
    return 1.0 - (1.0 - 1.0 / step) ** (exponent(width) + 1.0)


class Averages:
    """Averages of several widths of the weights of one module, float32, by width and by name; `updates` are those so
    far.
    """

    def __init__(self, weights: Mapping[str, Tensor], widths: Sequence[float] = WIDTHS) -> None:
        self.updates = 0
        self.by_width = {width: {name: copied(tensor) for name, tensor in weights.items()} for width in widths}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after one more step of their own: not all that is trained moves at every step."""
        self.updates += 1
        for width, average in self.by_width.items():
            amount = share(width, self.updates)
            for name, tensor in weights.items():
                average[name].lerp_(tensor.detach().to(average[name].dtype), amount)


def copied(tensor: Tensor) -> Tensor:
    """A copy in float32, or in float64 where the weights are."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


class Snapshot(NamedTuple):
    """An average of some width that was kept after `step` steps."""

    step: int
    width: float


def combination(kept: Sequence[Snapshot], wanted: Snapshot) -> np.ndarray:
    """The coefficients (n,) of kept averages whose sum is nearest to the average that is wanted; they sum to 1.

    Raises `InvalidInput` where nothing is kept, or what is wanted is later than all that is.
    """
    if not kept or wanted.step > max(one.step for one in kept):
        raise InvalidInput(f"an average at step {wanted.step} needs one kept at that step or later, got {list(kept)}")
    gram = np.array([[overlap(a, b) for b in kept] for a in kept])
    right = np.array([overlap(a, wanted) for a in kept])
    found = np.linalg.lstsq(gram, right, rcond=1e-12)[0]
    return found / found.sum()


def overlap(a: Snapshot, b: Snapshot) -> float:
    """The integral of the product of two profiles, each (g + 1) t^g / T^(g + 1) on 0 .. T."""
    if a.step > b.step:
        a, b = b, a
    g, h = exponent(a.width), exponent(b.width)
    return (g + 1) * (h + 1) / ((g + h + 1) * b.step) * math.exp(h * math.log(a.step / b.step))
