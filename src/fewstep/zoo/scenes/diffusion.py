"""The text encoder and the denoiser of the scenes, trained together on the latents of the autoencoder.

The text encoder has learned to read captions before (`reading`). The network predicts the velocity alpha eps - sigma x0
(Salimans & Ho 2022, arXiv 2202.00512) on Stable Diffusion's noise schedule, at times that are uniform and spread evenly
over a batch. Some captions are left empty, for classifier-free
guidance, and some are a keyword, for negative prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.zoo import container
from fewstep.zoo.checkpoint import weights_digest
from fewstep.zoo.scenes.caption import caption, keyword
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.reading import learn_to_read, token_ids
from fewstep.zoo.scenes.scene import Description, Scene, draw_description, placed
from fewstep.zoo.scenes.training import Draws, Settings, train
from fewstep.zoo.scenes.words import LENGTH, tokenizer

SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
}
"""Configuration of the scheduler that is shipped with the model."""
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "block_out_channels": (96, 96),
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}
TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "projection_dim": 128,
}
DROPPED, SHORT = 0.1, 0.05
"""Shares of the captions that are left empty, and that are a keyword."""


def networks(seed: int, tokens: Any) -> nn.ModuleDict:
    """The untrained `unet` (a diffusers UNet2DConditionModel) and `text_encoder` (a transformers CLIPTextModel)."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    special = {
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**UNET)
        text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokens), **TEXT, **special))
    return nn.ModuleDict({"unet": unet, "text_encoder": text})


class Pool(NamedTuple):
    """Scaled latents (count, 8, 8, 8) of scenes, what these show, and the digest of the autoencoder."""

    latents: Tensor
    descriptions: list[Description]
    digest: str


def latent_pool(autoencoder: Any, count: int, seed: int, path: Path) -> Pool:
    """`count` scenes; their latents stay in a file at `path`. Raises `InvalidInput` where that holds other ones."""
    config = {name: value for name, value in autoencoder.config.items() if not name.startswith("_")}
    digest = weights_digest(autoencoder.state_dict(), json.dumps(config, sort_keys=True))
    what = {"autoencoder": digest, "count": count, "seed": seed}
    ready: Tensor | None = None
    if path.exists():
        file = container.read(path, 1 << 32)
        if json.loads(file.metadata.get("pool", "null")) != what:
            raise InvalidInput(
                f"{path} holds the latents of other scenes or of another autoencoder: remove it, or name another folder"
            )
        ready = file.tensors()["latents"]
    rng = np.random.default_rng((seed, 2))
    found: list[Description] = []
    latents: list[Tensor] = []
    for done in range(0, count, 256):
        scenes: list[Scene] = []
        for _ in range(min(256, count - done)):
            found.append(draw_description(rng, held_out=False))
            scenes.append(placed(found[-1], rng))
        if ready is None:
            x = torch.from_numpy(np.stack([picture(scene) for scene in scenes]))
            with torch.no_grad():
                mean = autoencoder.encode(x.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean
            latents.append((mean * autoencoder.config.scaling_factor).half())
    if ready is None:
        ready = torch.cat(latents)
        container.write(path, {"latents": ready}, {"pool": what})
    return Pool(ready, found, digest)


def said(description: Description, rng: np.random.Generator) -> str:
    """What the network is told of a scene."""
    kind = rng.random()
    if kind < DROPPED:
        return ""
    return keyword(description, rng) if kind < DROPPED + SHORT else caption(description, rng)


def train_text_to_image(
    settings: Settings,
    autoencoder: Any,
    scenes: int,
    reading: int,
    folder: Path,
    report: Callable[[int, float, float], None] | None = None,
) -> nn.ModuleDict:
    """Train the text encoder on captions for `reading` steps, then it and the denoiser on `scenes` scenes, and return
    them. The state of the first part is in `folder`/reading."""
    from diffusers.models.attention_processor import AttnProcessor

    folder.mkdir(parents=True, exist_ok=True)
    pool = latent_pool(autoencoder, scenes, settings.seed, folder / "latents.safetensors")
    tokens = tokenizer()
    model = networks(settings.seed, tokens)
    unet: Any = model["unet"]
    text_encoder: Any = model["text_encoder"]
    if torch.device(settings.device).type == "cpu":  # where the backward pass of fused attention is half of a step
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    model.to(settings.device)
    learn_to_read(text_encoder, tokens, settings, reading, folder / "reading", report)
    schedule = schedules.from_diffusers(SCHEDULE)

    def loss(draws: Draws) -> Tensor:
        rng, batch = draws.scenes, settings.batch
        members = rng.integers(len(pool.descriptions), size=batch)
        texts = [said(pool.descriptions[i], rng) for i in members]
        share = (np.arange(batch) + rng.random()) / batch
        span = schedule.t_max - schedule.t_min
        t = (schedule.t_min + span * rng.permutation(share)).astype(np.float32).astype(np.float64)
        noise = torch.randn((batch, *pool.latents.shape[1:]), generator=draws.noise)
        alpha, sigma = (torch.from_numpy(f(t)).float()[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
        x0, noise, alpha, sigma, times = (
            value.to(settings.device)
            for value in (pool.latents[members].float(), noise, alpha, sigma, torch.from_numpy(t))
        )
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16):
            context = text_encoder(token_ids(tokens, texts).to(settings.device)).last_hidden_state
            x = alpha * x0 + sigma * noise
            v = unet(x, times.float(), context, return_dict=False)[0]
        return (v.float() - (alpha * noise - sigma * x0)).square().mean()

    what = {"part": "text-to-image", "scenes": scenes, "reading": reading, "autoencoder": pool.digest}
    train(model, loss, settings, folder, what, report)
    return model
