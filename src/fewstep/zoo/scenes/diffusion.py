"""The text encoder and the denoiser of the scenes, trained together on the latents of the autoencoder.

The network predicts the velocity alpha eps - sigma x0 (Salimans & Ho 2022, arXiv 2202.00512) on Stable Diffusion's
noise schedule. Times are drawn so that lambda is logistic around 0, a quarter of them uniform in time instead. Some
captions are dropped, for classifier-free guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewstep import schedules
from fewstep.zoo import container
from fewstep.zoo.objective import logistic_times
from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import Description, draw_description, placed
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
DROPPED, SPREAD, UNIFORM = 0.1, 1.2, 0.25


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


def latent_pool(autoencoder: Any, count: int, seed: int, path: Path) -> tuple[Tensor, list[Description]]:
    """`count` scenes as scaled latents (count, 8, 8, 8) and what they show; the latents stay in a file at `path`."""
    rng = np.random.default_rng((seed, 2))
    found: list[Description] = []
    latents: list[Tensor] = []
    ready = container.read(path, 1 << 32).tensors()["latents"] if path.exists() else None
    for _ in range(0, count, 256):
        scenes = []
        for _ in range(256):
            found.append(draw_description(rng, held_out=False))
            scenes.append(placed(found[-1], rng))
        if ready is None:
            x = torch.from_numpy(np.stack([picture(scene) for scene in scenes]))
            with torch.no_grad():
                mean = autoencoder.encode(x.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean
            latents.append((mean * autoencoder.config.scaling_factor).half())
    if ready is None:
        ready = torch.cat(latents)
        container.write(path, {"latents": ready}, {})
    return ready, found


def encoded(text_encoder: Any, tokens: Any, texts: Sequence[str]) -> Tensor:
    """Embeddings (B, LENGTH, 128) of texts, as StableDiffusionPipeline makes them."""
    ids = tokens(list(texts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    return text_encoder(ids.to(text_encoder.device)).last_hidden_state


def train_text_to_image(
    settings: Settings,
    autoencoder: Any,
    scenes: int,
    folder: Path,
    report: Callable[[int, float, float], None] | None = None,
) -> nn.ModuleDict:
    """Train the denoiser and the text encoder on `scenes` scenes and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    latents, descriptions = latent_pool(autoencoder, scenes, settings.seed, folder / "latents.safetensors")
    tokens = tokenizer()
    model = networks(settings.seed, tokens)
    schedule = schedules.from_diffusers(SCHEDULE)

    def loss(draws: Draws) -> Tensor:
        rng, batch = draws.scenes, settings.batch
        members = rng.integers(len(descriptions), size=batch)
        texts = ["" if rng.random() < DROPPED else caption(descriptions[i], rng) for i in members]
        share = (np.arange(batch) + rng.random()) / batch
        t = logistic_times(schedule, rng.permutation(share), SPREAD)
        uniform = rng.random(batch) < UNIFORM
        t[uniform] = rng.uniform(schedule.t_min, schedule.t_max, int(uniform.sum())).astype(np.float32)
        noise = torch.randn((batch, *latents.shape[1:]), generator=draws.noise)
        alpha, sigma = (torch.from_numpy(f(t)).float()[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
        x0, noise, alpha, sigma, times = (
            value.to(settings.device) for value in (latents[members].float(), noise, alpha, sigma, torch.from_numpy(t))
        )
        with torch.autocast(torch.device(settings.device).type, torch.bfloat16):
            context = encoded(model["text_encoder"], tokens, texts)
            x = alpha * x0 + sigma * noise
            v = model["unet"](x, times.float(), context, return_dict=False)[0]
        return (v.float() - (alpha * noise - sigma * x0)).square().mean()

    train(model, loss, settings, folder, {"part": "text-to-image", "scenes": scenes}, report)
    return model
