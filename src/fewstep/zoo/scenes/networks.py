"""The networks of the scenes: an autoencoder, a text encoder and a denoiser, in the formats of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.zoo.scenes.words import LENGTH

AUTOENCODER: dict[str, Any] = {
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
"""From 64 x 64 pixels to 8 x 8 latents of 8 channels."""
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
SHIPPED = Path(__file__).parents[1] / "weights" / "scenes" / "vae"
"""The trained autoencoder that comes with the package, in half precision."""


def new_autoencoder(seed: int) -> Any:
    """An untrained diffusers AutoencoderKL, its kernels with the channels last."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(**AUTOENCODER).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_autoencoder(folder: Path = SHIPPED) -> Any:
    """An autoencoder that was trained, from the folder that it was saved to; in float32."""
    if not (folder / "config.json").is_file():
        raise InvalidInput(f"{folder} holds no autoencoder: run `fewstep train autoencoder` first, or name another")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    how: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, **how).eval()


def new_text_encoder(seed: int, tokens: Any) -> Any:
    """An untrained transformers CLIPTextModel for the words of a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    special = {
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPTextModel(CLIPTextConfig(vocab_size=len(tokens), **TEXT, **special))


def new_denoiser(seed: int) -> Any:
    """An untrained diffusers UNet2DConditionModel."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(**UNET)
