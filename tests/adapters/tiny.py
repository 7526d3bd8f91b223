"""Pipelines of diffusers with tiny random networks: real classes, no download, no tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import diffusers
import torch

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
Make = Callable[..., Any]


def seeded(make: Callable[[], Any]) -> Callable[[], Any]:
    """`make` once, from the same random weights every time, without a trace in the global state."""

    @functools.cache
    def made() -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pipe = make()
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return made


def _unet(cross: int = 16, **more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "block_out_channels": (8, 16), "layers_per_block": 1, "sample_size": 8, "in_channels": 4,
            "out_channels": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": cross,
            "norm_num_groups": 4, "attention_head_dim": 4,
        }
        | more
    ).eval()  # fmt: skip


def vae(channels: int = 4, **more: Any) -> Any:
    return diffusers.AutoencoderKL(
        **{
            "block_out_channels": (8, 8), "in_channels": 3, "out_channels": 3,
            "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": channels, "norm_num_groups": 4, "sample_size": 16,
        }
        | more
    ).eval()  # fmt: skip


def parts(scheduler: Any, **unet: Any) -> dict[str, Any]:
    return {
        "vae": vae(), "text_encoder": None, "tokenizer": None, "unet": _unet(**unet), "scheduler": scheduler,
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
    }  # fmt: skip


@seeded
def stable_diffusion() -> Any:
    return diffusers.StableDiffusionPipeline(**parts(diffusers.DDIMScheduler(**SD, steps_offset=1, clip_sample=False)))


@seeded
def image_to_image() -> Any:
    given = parts(diffusers.DDIMScheduler(**SD, steps_offset=1, clip_sample=False))
    return diffusers.StableDiffusionImg2ImgPipeline(**given)


@seeded
def inpaint() -> Any:
    given = parts(diffusers.DDIMScheduler(**SD, steps_offset=1, clip_sample=False))
    return diffusers.StableDiffusionInpaintPipeline(**given)


@seeded
def sdxl() -> Any:
    unet = _unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 8
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**SD, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )  # fmt: skip


@seeded
def sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=8, out_channels=4,
        pos_embed_max_size=8,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer.eval(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4, shift_factor=0.0), text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


@seeded
def flux() -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, axes_dims_rope=[2, 2, 4],
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        transformer=transformer.eval(), vae=vae(4, shift_factor=0.0), text_encoder=None, tokenizer=None,
        text_encoder_2=None, tokenizer_2=None,
    )  # fmt: skip


@seeded
def pixart() -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=4, caption_channels=16, cross_attention_dim=16, use_additional_conditions=False,
        attention_bias=True, activation_fn="gelu-approximate", norm_type="ada_norm_single", norm_eps=1e-6,
        norm_elementwise_affine=False, num_embeds_ada_norm=1000,
    )  # fmt: skip
    return diffusers.PixArtSigmaPipeline(
        tokenizer=None, text_encoder=None, vae=vae(), transformer=transformer.eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True),
    )  # fmt: skip


@seeded
def dit() -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=4, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    return diffusers.DiTPipeline(
        transformer=transformer.eval(), vae=vae(), scheduler=diffusers.DDIMScheduler(clip_sample=False)
    )


def pixels(**more: Any) -> Any:
    return diffusers.UNet2DModel(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, sample_size=8, in_channels=3,
        out_channels=3, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4, **more,
    ).eval()  # fmt: skip


@seeded
def ddpm() -> Any:
    return diffusers.DDPMPipeline(unet=pixels(), scheduler=diffusers.DDPMScheduler())


@seeded
def consistency() -> Any:
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40)
    return diffusers.ConsistencyModelPipeline(unet=pixels(num_class_embeds=3), scheduler=scheduler)


@seeded
def lcm() -> Any:
    given = parts(diffusers.LCMScheduler(**SD, steps_offset=1, clip_sample=False), time_cond_proj_dim=32)
    return diffusers.LatentConsistencyModelPipeline(**given)


@seeded
def animatediff() -> Any:
    unet = diffusers.UNetMotionModel.from_unet2d(
        _unet(), diffusers.MotionAdapter((8, 16), motion_layers_per_block=1, motion_norm_num_groups=4,
                                         motion_num_attention_heads=2)
    ).eval()  # fmt: skip
    return diffusers.AnimateDiffPipeline(
        vae=vae(), text_encoder=None, tokenizer=None, unet=unet, motion_adapter=None,
        scheduler=diffusers.DDIMScheduler(**SD, steps_offset=1, clip_sample=False),
    )  # fmt: skip


def words(rows: int = 1, length: int = 5, width: int = 16, seed: int = 3) -> torch.Tensor:
    """Embeddings of a prompt that no encoder saw."""
    return torch.randn(rows, length, width, generator=torch.Generator().manual_seed(seed))


def pooled(sign: float = 1.0) -> torch.Tensor:
    return sign * torch.randn(1, 8, generator=torch.Generator().manual_seed(6))


def prompted(**more: Any) -> dict[str, Any]:
    return {"prompt_embeds": words(), "negative_prompt_embeds": words(seed=4), "guidance_scale": 3.0} | more


def picture() -> torch.Tensor:
    """(1, 3, 16, 16) in [0, 1]."""
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def _mask() -> torch.Tensor:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    return mask


_SIZE = {"height": 16, "width": 16, "output_type": "latent"}
_ONES = {"prompt_attention_mask": torch.ones(1, 5), "negative_prompt_attention_mask": torch.ones(1, 5)}
_POOLED = {"pooled_prompt_embeds": pooled()}
_BOTH = _POOLED | {"negative_pooled_prompt_embeds": pooled(-1)}

FIRST: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "StableDiffusion": (stable_diffusion, prompted(**_SIZE)),
    "StableDiffusionImg2Img": (image_to_image, prompted(image=picture(), strength=0.6, output_type="latent")),
    "StableDiffusionInpaint": (inpaint, prompted(image=picture(), mask_image=_mask(), strength=0.8, **_SIZE)),
    "SDXL": (sdxl, prompted(**_BOTH, **_SIZE)),
    "SD3": (sd3, prompted(**_BOTH, **_SIZE)),
    "FLUX": (flux, {"prompt_embeds": words(), **_POOLED, **_SIZE}),
    "PixArt": (
        pixart,
        prompted(prompt=None, negative_prompt=None, use_resolution_binning=False, **_ONES, **_SIZE),
    ),
    "DiT": (dit, {"class_labels": [1], "output_type": "np"}),
    "DDPM": (ddpm, {"output_type": "np"}),
    "Consistency": (consistency, {"class_labels": 1, "output_type": "pt"}),
    "LCM": (lcm, {"prompt_embeds": words(), **_SIZE}),
    "AnimateDiff": (animatediff, prompted(num_frames=2, **_SIZE)),
}
"""Pipelines by name, each with the arguments of a small call."""
