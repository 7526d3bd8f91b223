"""All pipelines of the tests, and how to draw with one; those here are made from the parts of `tiny`."""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import torch

from . import tiny
from .tiny import SD, seeded


def _others(pipe: Any, kind: Any, absent: tuple[str, ...], **more: Any) -> Any:
    """A pipeline of another task with the parts of `pipe`."""
    parts = {name: part for name, part in pipe.components.items() if part is not None}
    return kind(**{**dict.fromkeys(absent), **parts, **more})


@seeded
def sdxl_image_to_image() -> Any:
    absent = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return _others(tiny.sdxl(), diffusers.StableDiffusionXLImg2ImgPipeline, absent, add_watermarker=False)


@seeded
def sd3_image_to_image() -> Any:
    absent = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    return _others(tiny.sd3(), diffusers.StableDiffusion3Img2ImgPipeline, absent)


@seeded
def flux_image_to_image() -> Any:
    absent = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return _others(tiny.flux(), diffusers.FluxImg2ImgPipeline, absent)


@seeded
def ddim() -> Any:
    return diffusers.DDIMPipeline(unet=tiny.pixels(), scheduler=diffusers.DDIMScheduler())


@seeded
def instruct() -> Any:
    given = tiny.parts(diffusers.EulerAncestralDiscreteScheduler(**SD, timestep_spacing="leading"), in_channels=8)
    return diffusers.StableDiffusionInstructPix2PixPipeline(**given)


@seeded
def controlled() -> Any:
    control = diffusers.ControlNetModel(
        block_out_channels=(8, 16), layers_per_block=1, in_channels=4, cross_attention_dim=16, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
        conditioning_embedding_out_channels=(4, 8),
    )  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(**SD)
    return diffusers.StableDiffusionControlNetPipeline(**tiny.parts(scheduler), controlnet=control.eval())


@seeded
def latent_upscale() -> Any:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=8, out_channels=5,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, norm_num_groups=4, attention_head_dim=4, time_cond_proj_dim=128 + 8,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(**SD, prediction_type="sample")
    return diffusers.StableDiffusionLatentUpscalePipeline(
        vae=tiny.vae(), text_encoder=None, tokenizer=None, unet=unet.eval(), scheduler=scheduler
    )


@seeded
def stable_audio() -> Any:
    transformer = diffusers.StableAudioDiTModel(
        sample_size=4, in_channels=3, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        num_key_value_attention_heads=2, out_channels=3, cross_attention_dim=4, time_proj_dim=8,
        global_states_input_dim=8, cross_attention_input_dim=4,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, at the way in which this class normalises weights
        coder = diffusers.AutoencoderOobleck(
            encoder_hidden_size=6, downsampling_ratios=[1, 2], decoder_channels=3, decoder_input_channels=3,
            audio_channels=2, channel_multiples=[2, 4], sampling_rate=4,
        )  # fmt: skip
    projection = diffusers.StableAudioProjectionModel(text_encoder_dim=4, conditioning_dim=4, min_value=0, max_value=32)
    return diffusers.StableAudioPipeline(
        vae=coder.eval(), text_encoder=None, projection_model=projection.eval(), tokenizer=None,
        transformer=transformer.eval(), scheduler=diffusers.CosineDPMSolverMultistepScheduler(),
    )  # fmt: skip


@seeded
def sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=16,
        sample_size=8,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    coder = diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1), downsample_block_type="conv",
        upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu",
    )  # fmt: skip
    return diffusers.SanaPipeline(
        tokenizer=None, text_encoder=None, vae=coder.eval(), transformer=transformer.eval(), scheduler=scheduler
    )


def _latents() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(8))


_SIZE = {"height": 16, "width": 16, "output_type": "latent"}
_PICTURE = {"image": tiny.picture(), "strength": 0.6, "output_type": "latent"}
_POOLED = {"pooled_prompt_embeds": tiny.pooled()}
_BOTH = {**_POOLED, "negative_pooled_prompt_embeds": tiny.pooled(-1)}
_EMBEDDED = {"prompt_embeds": tiny.words(), "negative_prompt_embeds": tiny.words(seed=4)}
_AUDIO = {
    "prompt_embeds": tiny.words(width=4), "negative_prompt_embeds": tiny.words(width=4, seed=4),
    "attention_mask": torch.ones(1, 5), "negative_attention_mask": torch.ones(1, 5), "audio_end_in_s": 1.0,
    "guidance_scale": 3.0, "output_type": "latent",
}  # fmt: skip

MORE: dict[str, tuple[Any, dict[str, Any]]] = {
    "SDXLImg2Img": (sdxl_image_to_image, tiny.prompted(**_BOTH, **_PICTURE)),
    "SD3Img2Img": (sd3_image_to_image, tiny.prompted(**_BOTH, **_PICTURE, height=16, width=16)),
    "FluxImg2Img": (
        flux_image_to_image,
        {"prompt_embeds": tiny.words(), **_POOLED, **_PICTURE, "height": 16, "width": 16},
    ),
    "DDIM": (ddim, {"output_type": "np", "eta": 0.5}),
    "InstructPix2Pix": (instruct, tiny.prompted(image=tiny.picture(), image_guidance_scale=1.5, output_type="latent")),
    "ControlNet": (controlled, tiny.prompted(image=tiny.picture(), **_SIZE)),
    "LatentUpscale": (
        latent_upscale,
        {
            "prompt": None, "image": _latents(), **_EMBEDDED, "pooled_prompt_embeds": tiny.pooled(),
            "negative_pooled_prompt_embeds": tiny.pooled(-1), "guidance_scale": 2.0, "output_type": "latent",
        },
    ),
    "StableAudio": (stable_audio, _AUDIO),
    "Sana": (
        sana,
        {
            **tiny.prompted(negative_prompt=None, use_resolution_binning=False, clean_caption=False),
            "height": 32, "width": 32, "output_type": "latent",
            "prompt_attention_mask": torch.ones(1, 5), "negative_prompt_attention_mask": torch.ones(1, 5),
        },
    ),
}  # fmt: skip
PIPELINES = tiny.FIRST | MORE
"""Pipelines by name, each with the arguments of a small call."""


def draw(name: str, scheduler: Any = None, steps: int = 4, seed: int = 0, **more: Any) -> torch.Tensor:
    """What pipeline `name` makes with `scheduler`, or with its own."""
    make, arguments = PIPELINES[name]
    pipe = make()
    own = pipe.scheduler
    pipe.scheduler = own if scheduler is None else scheduler
    try:
        return call(pipe, seed, **{"num_inference_steps": steps, **arguments, **more})
    finally:
        pipe.scheduler = own


def call(pipe: Any, seed: int = 0, **arguments: Any) -> torch.Tensor:
    """What a pipeline makes, as one tensor."""
    made = pipe(**{"generator": torch.Generator().manual_seed(seed), **arguments})
    if hasattr(made, "audios"):
        return torch.as_tensor(made.audios).float()
    return torch.as_tensor(made.frames if hasattr(made, "frames") else made[0]).float()
