"""The text encoder and the denoiser of the scenes, trained together on the latents of the autoencoder.

The text encoder has learned to read captions before (`reading`). The network predicts the velocity alpha eps - sigma x0
(Salimans & Ho 2022, arXiv 2202.00512) on Stable Diffusion's noise schedule, at times that are uniform. Some captions
are left empty, for classifier-free guidance, and some are a keyword, for negative prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep import schedules
from fewstep.denoise.convert import Network
from fewstep.recipes.latents import Captioned, latent_pool
from fewstep.recipes.reading import learn_to_read
from fewstep.recipes.threads import limited
from fewstep.training import STUDENT, Denoising, Progress, Role, Run, Settings, train
from fewstep.training.draws import key_of
from fewstep.zoo.scenes.networks import SCHEDULE, new_denoiser, new_text_encoder
from fewstep.zoo.scenes.words import tokenizer

SCENES = Settings(
    steps=9000,
    batch=128,
    rate=1e-3,
    warmup=100,
    decay="trapezoid",
    cooldown=3500,
    optimiser="adamw",
    muon=2e-3,
    weight_decay=0.01,
    width=0.10,
    state_every=100,
)
"""Those of `fewstep train scenes`."""
METHOD = Denoising(times="uniform", dropout=0.1)
READING = "reading"


class TextToImage(nn.Module):
    """Latents (B, 8, 8, 8), times (B,) and tokens `ids` (B, LENGTH) to the velocity; it computes in bfloat16."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            context = self.text_encoder(ids).last_hidden_state
            return self.unet(x, t, context, return_dict=False)[0]


def train_text_to_image(
    settings: Settings,
    autoencoder: Any,
    folder: Path,
    *,
    scenes: int,
    reading: int,
    device: torch.device | str = "cpu",
    threads: int = 2,
    watch: Callable[[Progress], None] = lambda now: None,
) -> TextToImage:
    """Train the text encoder on captions, then it and the denoiser on scenes, and return both.

    In `folder` there are the log, the latents, and the states from which the same call goes on after an interruption;
    those of the first part lie in `folder`/reading.

    Args:
        settings: of the loop; `SCENES` are the usual ones.
        autoencoder: a diffusers AutoencoderKL, on the CPU.
        scenes: how many there are to learn from; `reading`: steps of the first part.
        threads: of the CPU. Another number rounds otherwise.

    Raises:
        InvalidInput: latents or states belong to another run.
        Diverged: a loss is not finite.
    """
    with limited(threads):
        folder.mkdir(parents=True, exist_ok=True)
        pool = latent_pool(autoencoder, scenes, settings.seed, folder / "latents.safetensors")
        tokens = tokenizer()
        model = new_model(tokens, settings.seed, device)
        learn_to_read(
            model.text_encoder, tokens, of_reading(settings, reading), folder / READING, device=device, watch=watch
        )
        model.train()
        network = Network(model, schedules.from_diffusers(SCHEDULE), "v_prediction")
        data = Captioned(pool, tokens, settings.seed, device)
        train(Run(METHOD, {STUDENT: Role(network)}, data, settings, folder, {READING: reading}), watch)
    return model.eval()


def new_model(tokens: Any, seed: int, device: torch.device | str = "cpu") -> TextToImage:
    """The untrained networks."""
    from diffusers.models.attention_processor import AttnProcessor

    unet, text_encoder = new_denoiser(key_of(seed, "denoiser")), new_text_encoder(key_of(seed, "words"), tokens)
    if torch.device(device).type == "cpu":  # where the backward pass of fused attention is half of a step
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    return TextToImage(unet, text_encoder).to(device)


def of_reading(settings: Settings, steps: int) -> Settings:
    """The settings of the first part: so many steps, in the last quarter of which the rate falls."""
    return replace(settings, steps=steps, cooldown=max(1, steps // 4))
