"""The training of the digits classifier: seconds, seeded, the same bits every time.

The images that are held out are those that the digits model never saw either, so what is measured on them says
something of both. A step draws images, each moved by up to one pixel and with a little noise on it: the features are to
read what a sampler draws, which is not on a raster of 16 levels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.core.errors import InvalidInput, positive
from fewstep.zoo import digits
from fewstep.zoo.classifier import ClassifierFeatures, DigitsClassifier, save
from fewstep.zoo.dataset import ImageSet

HELD_OUT, SPLIT_SEED = 0.1, 0
"""The share, and the seed, of the digits model's own split."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What decides the weights. The defaults made the shipped classifier.

    Attributes:
        seed: of the first weights, the batches, the moves and the noise.
        steps: steps of AdamW, of `batch` images; its rate falls from `learning_rate` to 0 as a half cosine.
        weight_decay: AdamW's.
        noise: the largest standard deviation of the noise on an image; each draws its own below.
    """

    seed: int = 0
    steps: int = 800
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    noise: float = 0.2

    def __post_init__(self) -> None:
        for name, high in (("seed", 2**63 - 1), ("steps", 10**6), ("batch", 2**16)):
            value = getattr(self, name)
            if type(value) is not int or not (0 if name == "seed" else 1) <= value <= high:
                raise InvalidInput(f"{name} must be a whole number up to {high:,}, got {value!r}")
        positive("learning_rate", self.learning_rate)


def train(
    config: ClassifierConfig,
    out: str | os.PathLike[str],
    *,
    data: ImageSet | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> ClassifierFeatures:
    """Train a classifier, write it to `out` and return it.

    Args:
        data: labelled images; the digits of scikit-learn when None.
        progress: called after each step with its number and loss; what it raises ends the run, and nothing is written.

    Raises:
        InvalidInput: the data are not digits of 8x8, or `out` cannot be a .safetensors file.
    """
    out = Path(out)
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise InvalidInput(f"cannot write {out}; give a path that ends in .safetensors, in a folder that exists")
    data = digits.load() if data is None else data
    if tuple(data.images.shape[1:]) != (1, 8, 8) or data.classes != 10:
        raise InvalidInput(
            f"the classifier reads images (1, 8, 8) of 10 classes, {data.name!r} are {tuple(data.images.shape[1:])} of "
            f"{data.classes}"
        )
    kept, held = data.split(HELD_OUT, SPLIT_SEED)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over threads round differently
    try:
        network = _fitted(config, kept, progress)
        accuracy = float((network(held.images).argmax(1) == held.labels).double().mean())
    finally:
        torch.set_num_threads(threads)
    facts = {**asdict(config), "data": {"name": data.name, "digest": data.digest}, "accuracy": accuracy}
    return save(out, network, facts)


def _fitted(
    config: ClassifierConfig, kept: ImageSet, progress: Callable[[int, float], None] | None
) -> DigitsClassifier:
    draw = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = DigitsClassifier()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        chosen = torch.randint(len(kept), (config.batch,), generator=draw)
        images = _varied(kept.images[chosen], config.noise, draw)
        loss = functional.cross_entropy(network(images), kept.labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress is not None:
            progress(step + 1, float(loss.detach()))
    return network.eval().requires_grad_(False)


def _varied(images: Tensor, noise: float, draw: torch.Generator) -> Tensor:
    """`images` (B, 1, H, W), each moved by -1, 0 or 1 pixel in either direction, with noise of its own strength."""
    batch, _, height, width = images.shape
    wide = functional.pad(images, (1, 1, 1, 1), value=-1.0)
    down, right = torch.randint(0, 3, (2, batch, 1, 1), generator=draw)
    rows, columns = torch.arange(height)[None, :, None] + down, torch.arange(width)[None, None] + right
    moved = wide[torch.arange(batch)[:, None, None], 0, rows, columns][:, None]
    strength = noise * torch.rand(batch, 1, 1, 1, generator=draw)
    return moved + strength * torch.randn(moved.shape, generator=draw)
