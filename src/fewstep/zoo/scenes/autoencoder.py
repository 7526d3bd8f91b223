"""The autoencoder of the scenes: 64 x 64 pixels to 8 x 8 latents of 8 channels, as a diffusers AutoencoderKL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import crowded, draw_description, placed
from fewstep.zoo.scenes.training import Draws, Settings, train

CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 64, 64),
    "layers_per_block": 1,
    "latent_channels": 8,
    "norm_num_groups": 8,
    "sample_size": 64,
    "mid_block_add_attention": False,
}
SHIPPED = Path(__file__).parents[1] / "weights" / "scenes" / "vae"
"""The trained autoencoder that comes with the package, in half precision."""
KL, FOREGROUND = 1e-5, 10.0
"""Weight of the divergence from the unit normal, a mean over latents; how much more a pixel of a thing counts than one
of the background, of which there are ten times as many.
"""


def pictures(count: int, rng: np.random.Generator) -> Tensor:
    """`count` random scenes as (count, 3, 64, 64) in [-1, 1], every other one crowded."""
    drawn = [
        picture(crowded(rng) if i % 2 else placed(draw_description(rng, held_out=False), rng)) for i in range(count)
    ]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1


def weights(x: Tensor) -> Tensor:
    """How much each pixel of pictures (B, 3, H, W) counts, (B, 1, H, W) of mean 1. The corner is background."""
    things = ((x - x[:, :, :1, :1]).abs().amax(1, keepdim=True) > 0.02).float()
    weight = 1 + FOREGROUND * F.max_pool2d(things, 3, stride=1, padding=1)
    return weight / weight.mean()


def train_autoencoder(
    settings: Settings, folder: Path, report: Callable[[int, float, float], None] | None = None
) -> Any:
    """Train the autoencoder and return it, with `scaling_factor` set so that latents have unit variance."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: Any = AutoencoderKL(**CONFIG)
    model.to(memory_format=torch.channels_last)

    def loss(draws: Draws) -> Tensor:
        x = pictures(settings.batch, draws.scenes).to(settings.device, memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            latents = model.encode(x).latent_dist
            noise = torch.randn(latents.mean.shape, generator=draws.noise).to(x.device)
            rebuilt = model.decode(latents.mean + latents.std * noise).sample
        divergence = 0.5 * (latents.mean.float() ** 2 + latents.var.float() - 1 - latents.logvar.float()).mean()
        return (weights(x) * (rebuilt.float() - x).square()).mean() + KL * divergence

    train(model, loss, settings, folder, {"part": "autoencoder"}, report)
    with torch.no_grad():
        x = pictures(512, np.random.default_rng((settings.seed, 1)))
        latents = torch.cat([model.encode(part.to(model.device)).latent_dist.mean for part in x.split(64)])
    model.register_to_config(scaling_factor=float(1 / latents.std()))
    return model


def load_autoencoder(folder: Path = SHIPPED) -> Any:
    """What `train_autoencoder` returned, from the folder it was saved to; in float32."""
    if not (folder / "config.json").is_file():
        raise InvalidInput(f"{folder} holds no autoencoder: run `fewstep train autoencoder` first, or name another")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    how: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, **how).eval()
