"""The autoencoder of the scenes: 64 x 64 pixels to 8 x 8 latents of 8 channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewstep.recipes.module import OfModule, role_of
from fewstep.recipes.threads import limited
from fewstep.training import STUDENT, Batch, Draws, Loss, Phase, Progress, Roles, Run, Settings, train
from fewstep.training.draws import key_of
from fewstep.zoo.scenes.networks import new_autoencoder
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import crowded, draw_description, placed

AUTOENCODER = Settings(
    steps=2000,
    batch=32,
    rate=2e-3,
    warmup=100,
    decay="trapezoid",
    cooldown=800,
    optimiser="adamw",
    weight_decay=0.01,
    width=0.10,
    state_every=250,
)
"""Those of `fewstep train autoencoder`."""
MEASURED, PART = 512, 64
"""Pictures whose latents are measured for the scaling factor, and those of a call."""


@dataclass(frozen=True)
class Autoencoding(OfModule):
    """Pictures are to come out as they go in, from latents with a little noise.

    Attributes:
        kl: weight of the divergence of the latents from the unit normal, a mean over them.
        foreground: how much more a pixel of a thing counts than one of the background, of which there are ten times as
            many.
    """

    name: ClassVar[str] = "autoencoding"

    kl: float = 1e-5
    foreground: float = 10.0

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        x, model = batch.data, roles[STUDENT].module
        encode: Any = model.encode
        decode: Any = model.decode
        with torch.autocast(x.device.type, torch.bfloat16):
            latents = encode(x).latent_dist
            noise = draws.normal("latents", latents.mean.shape[1:])
            rebuilt = decode(latents.mean + latents.std * noise).sample
        divergence = 0.5 * (latents.mean.float() ** 2 + latents.var.float() - 1 - latents.logvar.float()).mean()
        error = self.weights(x) * (rebuilt.float() - x).square()
        yield Loss(STUDENT, error.mean() + self.kl * divergence)

    def weights(self, x: Tensor) -> Tensor:
        """How much each pixel of pictures (B, 3, H, W) counts, (B, 1, H, W) of mean 1. The corner is background."""
        things = ((x - x[:, :, :1, :1]).abs().amax(1, keepdim=True) > 0.02).float()
        weight = 1 + self.foreground * F.max_pool2d(things, 3, stride=1, padding=1)
        return weight / weight.mean()


@dataclass(frozen=True)
class Pictures:
    """Random scenes without end, (3, 64, 64) in [-1, 1], every other one crowded."""

    seed: int
    device: torch.device | str = "cpu"

    @property
    def count(self) -> None:
        """There is no end of them."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Their name and seed."""
        return {"name": "pictures of scenes", "seed": self.seed}

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some of them, with the channels last."""
        drawn = torch.from_numpy(np.stack([self.drawn(number) for number in numbers]))
        pixels = drawn.permute(0, 3, 1, 2).float() / 127.5 - 1
        return Batch(pixels.to(self.device, memory_format=torch.channels_last))

    def drawn(self, number: int) -> np.ndarray:
        """(64, 64, 3) of 8 bits."""
        rng = np.random.default_rng(key_of(self.seed, "picture", number))
        return picture(crowded(rng) if number % 2 else placed(draw_description(rng, held_out=False), rng))


def train_autoencoder(
    settings: Settings,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    threads: int = 2,
    watch: Callable[[Progress], None] = lambda now: None,
) -> Any:
    """Train a diffusers AutoencoderKL and return it, with `scaling_factor` set so that latents have unit variance.

    In `folder` there are the log, and the states from which the same call goes on after an interruption.

    Args:
        settings: of the loop; `AUTOENCODER` are the usual ones.
        threads: of the CPU. Another number rounds otherwise.

    Raises:
        InvalidInput: the states belong to another run.
        Diverged: the loss is not finite.
    """
    with limited(threads):
        model: Any = new_autoencoder(key_of(settings.seed, "weights")).to(device).train()
        train(Run(Autoencoding(), {STUDENT: role_of(model)}, Pictures(settings.seed, device), settings, folder), watch)
        model.eval()
        model.register_to_config(scaling_factor=1 / spread_of(model, settings.seed))
    return model


def spread_of(model: Any, seed: int) -> float:
    """The standard deviation of the latents of some pictures."""
    data = Pictures(key_of(seed, "measure"), model.device)
    parts = (data.batch(range(first, first + PART)).data for first in range(0, MEASURED, PART))
    with torch.no_grad():
        return float(torch.cat([model.encode(part).latent_dist.mean for part in parts]).std())
