"""A small set of labelled images, and a small network for it, for the tests of recipes."""

from __future__ import annotations

from dataclasses import replace

import torch

from fewstep.recipes import DigitsRecipe
from fewstep.zoo.dataset import ImageSet
from fewstep.zoo.network import UNetConfig

NETWORK = UNetConfig(size=4, classes=2, widths=(8, 16), embedding=16)
TINY = DigitsRecipe(
    network=NETWORK,
    settings=replace(DigitsRecipe().settings, steps=60, batch=16, rate=5e-3, warmup=5, state_every=20, log_every=25),
)


def stripes(count: int = 40) -> ImageSet:
    """Horizontal (class 0) and vertical (class 1) stripes of 4x4 pixels with some noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    stripe = torch.tensor([0.8, -0.8, 0.8, -0.8]).expand(4, 4)
    images = torch.where((labels == 1)[:, None, None], stripe, stripe.T)[:, None]
    return ImageSet("stripes", images + 0.1 * torch.rand(images.shape, generator=generator), labels, 2)
