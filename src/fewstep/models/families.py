"""What each family of diffusers models needs: its parts, how its network is called, how its text is read.

Every network becomes `x, t, **condition -> output`, where conditions are tensors with the batch first, so that it is a
`fewstep.Network` and guidance can double it. Outputs with a learned variance are cut to the part that predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep import schedules
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.denoise.embedded import scale_embedding
from fewstep.denoise.prediction import PREDICTIONS
from fewstep.denoise.row import NO_ROW, RowFacts
from fewstep.models import encoder

Config = Mapping[str, Any]
Conditions = dict[str, Tensor]


def call_unet(module: Any, x: Tensor, t: Tensor) -> Tensor:
    """An unconditional UNet2DModel."""
    return _first(module(x, t, return_dict=False)[0], x)


def call_sd(
    module: Any,
    x: Tensor,
    t: Tensor,
    *,
    text: Tensor,
    guidance: Tensor | None = None,
    r: Tensor | None = None,
    channels: Tensor | None = None,
) -> Tensor:
    """The UNet of Stable Diffusion 1 and 2, and of the latent consistency models made from it.

    A network that is told a second time `r` has it in the place of the guidance scale.

    `channels` follow the latents where the network was trained to inpaint: the mask and the latents of what is kept.
    """
    x = x if channels is None else torch.cat([x, channels], dim=1)
    told = _told(module, x, t, guidance, r)
    return module(x, t, encoder_hidden_states=text, timestep_cond=told, return_dict=False)[0]


def call_sdxl(
    module: Any,
    x: Tensor,
    t: Tensor,
    *,
    text: Tensor,
    pooled: Tensor,
    time_ids: Tensor,
    guidance: Tensor | None = None,
    r: Tensor | None = None,
    channels: Tensor | None = None,
) -> Tensor:
    """The UNet of SDXL; `time_ids` are its sizes as an input, `r` and `channels` as in `call_sd`."""
    x = x if channels is None else torch.cat([x, channels], dim=1)
    added = {"text_embeds": pooled, "time_ids": time_ids}
    return module(
        x,
        t,
        encoder_hidden_states=text,
        timestep_cond=_told(module, x, t, guidance, r),
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


def call_sd3(module: Any, x: Tensor, t: Tensor, *, text: Tensor, pooled: Tensor) -> Tensor:
    """The transformer of Stable Diffusion 3 and 3.5."""
    return module(x, timestep=t, encoder_hidden_states=text, pooled_projections=pooled, return_dict=False)[0]


def call_flux(
    module: Any, x: Tensor, t: Tensor, *, text: Tensor, pooled: Tensor, guidance: Tensor | None = None
) -> Tensor:
    """The transformer of FLUX.1, which takes patches of 2 x 2 as a sequence and their places as `img_ids`."""
    b, c, h, w = x.shape
    packed = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)
    places = torch.zeros(h // 2, w // 2, 3, device=x.device, dtype=x.dtype)
    places[..., 1] = torch.arange(h // 2, device=x.device)[:, None]
    places[..., 2] = torch.arange(w // 2, device=x.device)[None, :]
    result = module(
        hidden_states=packed,
        timestep=t,
        guidance=guidance,
        pooled_projections=pooled,
        encoder_hidden_states=text,
        txt_ids=x.new_zeros(text.shape[1], 3),
        img_ids=places.reshape(-1, 3),
        return_dict=False,
    )[0]
    return result.reshape(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def call_dit(module: Any, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """The class-conditional DiT."""
    return _first(module(x, timestep=t, class_labels=label, return_dict=False)[0], x)


def call_pixart(module: Any, x: Tensor, t: Tensor, *, text: Tensor, mask: Tensor, **size: Tensor) -> Tensor:
    """The transformer of PixArt-alpha and -sigma; `size` is resolution and aspect_ratio where they are inputs."""
    added = {name: size.get(name) for name in ("resolution", "aspect_ratio")}
    result = module(
        x,
        encoder_hidden_states=text,
        encoder_attention_mask=mask,
        timestep=t,
        added_cond_kwargs=added,
        return_dict=False,
    )[0]
    return _first(result, x)


def call_sana(module: Any, x: Tensor, t: Tensor, *, text: Tensor, mask: Tensor) -> Tensor:
    """The transformer of Sana, with linear attention (arXiv 2410.10629)."""
    result = module(
        x,
        encoder_hidden_states=text,
        encoder_attention_mask=mask,
        timestep=t * module.config.timestep_scale,
        return_dict=False,
    )[0]
    return _first(result, x)


def _first(output: Tensor, x: Tensor) -> Tensor:
    """The channels that predict: the first half where the second is a learned variance."""
    return output[:, : x.shape[1]] if output.shape[1] == 2 * x.shape[1] else output


def _told(module: Any, x: Tensor, t: Tensor, guidance: Tensor | None, r: Tensor | None) -> Tensor | None:
    """A guidance scale (B,) as distilled networks are told it, or a second time (B,), as how far it is from the first.

    The features of the latter are those that the network has of times.
    """
    if r is not None:
        told = (t - r) / 1000
    elif guidance is not None:
        told = (guidance - 1).float()
    else:
        return None
    return scale_embedding(told, module.config.time_cond_proj_dim).to(x.dtype)


def sizes_sdxl(config: Config, batch: int, height: int, width: int) -> Conditions:
    """Original size, crop and target size: a whole picture of the size that is drawn."""
    return {"time_ids": torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32).repeat(batch, 1)}


def sizes_pixart(config: Config, batch: int, height: int, width: int) -> Conditions:
    """Size and aspect ratio, for the networks that were trained to be told."""
    told = config.get("use_additional_conditions")
    if not (config.get("sample_size") == 128 if told is None else told):
        return {}
    return {
        "resolution": torch.tensor([[float(height), float(width)]]).repeat(batch, 1),
        "aspect_ratio": torch.tensor([[height / width]]).repeat(batch, 1),
    }


class NetworkFacts(NamedTuple):
    """What the configuration of a network says of it.

    Attributes:
        channels: of the latents; `extra`: input channels beside them, which a network that inpaints has.
        height, width: of the latents that it was made for; `most`: the largest side, where there is one.
        patch: side of the square of latents that it takes as one.
        distilled: the guidance scale is an input of the network, so guidance costs nothing and has no negative branch.
        guidance: the scale where the caller gives none.
        rows: what it knows of its rows, as networks of `fewstep distill` may.
    """

    channels: int
    extra: int
    height: int
    width: int
    patch: int
    most: int | None
    distilled: bool
    guidance: float
    rows: RowFacts = NO_ROW


@dataclass(frozen=True)
class Family:
    """A family of text-to-image models.

    Attributes:
        part, kind: name and class of the network.
        call: (module, x, t, **condition) -> output.
        read: (readers, text, clip_skip) -> conditions.
        encoders: each text encoder's part, its class, and the most tokens that diffusers gives it, or None for all
            that its tokenizer allows.
        guidance: scale where the caller gives none.
        sizes: (config, batch, height, width) -> conditions that tell the network the size.
        absent: encoders that may be missing.
        time_scale: what the network's time is multiplied by on a flow.
        side: of the latents where the network does not say it.
        lower: whether texts are read in lower case.
        vae: class of the VAE.
    """

    name: str
    part: str
    kind: str
    call: Callable[..., Tensor]
    read: Callable[..., Conditions]
    encoders: Mapping[str, tuple[str, int | None]]
    guidance: float
    sizes: Callable[[Config, int, int, int], Conditions] = lambda *_: {}
    absent: tuple[str, ...] = ()
    time_scale: float = 1.0
    side: int = 128
    lower: bool = False
    vae: str = "AutoencoderKL"

    def reads(self, config: Config) -> Callable[[encoder.Readers, str, int | None], Conditions]:
        """`read` for a network of this configuration."""
        if self.read is not encoder.read_sd3:
            return self.read
        return partial(encoder.read_sd3, width=config["joint_attention_dim"], tokens=256)

    def facts(self, config: Config) -> NetworkFacts:
        """What a configuration of the network says."""
        unet, packed = self.part == "unet", self.name == "flux"
        taken = int(config["in_channels"])
        rows = RowFacts(config.get("second_time", False), config.get("guesses", 1)) if unet else NO_ROW
        channels = int(config["out_channels"]) // rows.guesses if unet else taken // (4 if packed else 1)
        patch = 2 if packed else 1 if unet else int(config.get("patch_size") or 1)
        side, most = config.get("sample_size") or self.side, config.get("pos_embed_max_size")
        height, width = side if isinstance(side, list | tuple) else (side, side)
        scaled = config.get("time_cond_proj_dim") and not rows.second_time
        distilled = bool(config.get("guidance_embeds") or scaled)
        return NetworkFacts(
            channels=channels,
            extra=taken - channels if unet else 0,
            height=int(height),
            width=int(width),
            patch=patch,
            most=None if most is None else int(most) * patch,
            distilled=distilled,
            # FLUX without a guidance embedding was trained to need none.
            guidance=1.0 if packed and not distilled else self.guidance,
            rows=rows,
        )


_CLIP, _POOLED, _T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
SD = Family(
    "sd", "unet", "UNet2DConditionModel", call_sd, encoder.read_sd, {"text_encoder": (_CLIP, None)}, 7.5, side=64
)
SDXL = Family(
    "sdxl",
    "unet",
    "UNet2DConditionModel",
    call_sdxl,
    encoder.read_sdxl,
    {"text_encoder": (_CLIP, None), "text_encoder_2": (_POOLED, None)},
    5.0,
    sizes_sdxl,
    absent=("text_encoder",),
)
SD3 = Family(
    "sd3",
    "transformer",
    "SD3Transformer2DModel",
    call_sd3,
    encoder.read_sd3,
    {"text_encoder": (_POOLED, None), "text_encoder_2": (_POOLED, None), "text_encoder_3": (_T5, 256)},
    7.0,
    absent=("text_encoder_3",),
    time_scale=1000.0,
)
FLUX = Family(
    "flux",
    "transformer",
    "FluxTransformer2DModel",
    call_flux,
    encoder.read_flux,
    {"text_encoder": (_CLIP, None), "text_encoder_2": (_T5, 512)},
    3.5,
)
PIXART_ALPHA = Family(
    "pixart",
    "transformer",
    "PixArtTransformer2DModel",
    call_pixart,
    encoder.read_pixart,
    {"text_encoder": (_T5, 120)},
    4.5,
    sizes_pixart,
    lower=True,
)
PIXART_SIGMA = Family(**{**vars(PIXART_ALPHA), "encoders": {"text_encoder": (_T5, 300)}})
SANA = Family(
    "sana",
    "transformer",
    "SanaTransformer2DModel",
    call_sana,
    encoder.read_pixart,
    {"text_encoder": ("Gemma2Model", 300)},
    4.5,
    time_scale=1000.0,
    side=32,
    lower=True,
    vae="AutoencoderDC",
)
TEXT_FAMILIES = {
    "StableDiffusionPipeline": SD,
    "LatentConsistencyModelPipeline": SD,
    "StableDiffusionInpaintPipeline": SD,
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusionXLInpaintPipeline": SDXL,
    "StableDiffusion3Pipeline": SD3,
    "FluxPipeline": FLUX,
    "PixArtAlphaPipeline": PIXART_ALPHA,
    "PixArtSigmaPipeline": PIXART_SIGMA,
    "SanaPipeline": SANA,
}
"""The text-to-image pipelines of diffusers that are known, by class."""
OTHERS = ("DDPMPipeline", "DDIMPipeline", "DiTPipeline")
"""The pipelines without a text encoder that are known."""


def prediction_of(scheduler: Config, kind: str) -> str:
    """What the network predicts, by its scheduler's configuration and the kind of its noise schedule."""
    named = scheduler.get("prediction_type")
    if kind == "flow":
        return "flow"
    if kind == "edm":
        if named not in (None, "epsilon"):
            raise InvalidInput(f"a scheduler of EDM with prediction_type {named!r} is not known; known is 'epsilon'")
        return "edm"
    if named not in (None, *PREDICTIONS):
        raise unknown_name("prediction_type", str(named), PREDICTIONS)
    return named or "epsilon"


def shift_of(scheduler: Config, tokens: int) -> float:
    """The shift of a flow whose scheduler lets it grow with the number of patches."""
    log_shift = math.log(
        schedules.flow_shift(
            tokens,
            base_tokens=scheduler.get("base_image_seq_len", 256),
            max_tokens=scheduler.get("max_image_seq_len", 4096),
            base_log_shift=scheduler.get("base_shift", 0.5),
            max_log_shift=scheduler.get("max_shift", 1.15),
        )
    )
    return math.exp(log_shift) if scheduler.get("time_shift_type", "exponential") == "exponential" else log_shift
