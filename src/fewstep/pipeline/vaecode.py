"""From pictures to latents: the VAE's encoder, whose results are kept by content.

    latents = (z - mean) scaling_factor / std      or, without mean and std,      latents = (z - shift) scaling_factor

z is the mean of the encoder's distribution, where it gives one, and no draw from it: one picture has one latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from fewstep.pipeline.cache import TensorCache, key_of
from fewstep.pipeline.decode import Decoder


def scaled(decoder: Decoder, z: Tensor) -> Tensor:
    """Latents as the network was trained on, from those that the VAE knows; the inverse of `Decoder.unscaled`."""
    config = decoder.vae.config
    scale, mean, std = config.scaling_factor, config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (z.new_tensor(v).reshape(1, -1, 1, 1) for v in (mean, std))
        return (z - mean) * scale / std
    return (z - (config.get("shift_factor") or 0.0)) * scale


def digest_of(pixels: Tensor) -> str:
    """Sixteen hexadecimal digits over a picture's tensor and its shape."""
    state = hashlib.sha256(str(tuple(pixels.shape)).encode())
    state.update(pixels.contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


def encode(decoder: Decoder, cache: TensorCache, pixels: Tensor) -> Tensor:
    """Latents (1, c, H, W), float32 on the host, of a picture (1, 3, factor H, factor W) in [-1, 1].

    Kept in `cache` under the digests of the VAE's files and of the pixels; shared, so nobody may write to it.
    """

    def make() -> Mapping[str, Tensor]:
        weight = next(decoder.vae.parameters())
        with torch.no_grad():
            code = decoder.vae.encode(pixels.to(weight.device, weight.dtype), return_dict=False)[0]
        z = code if isinstance(code, Tensor) else code.mode()
        return {"latents": scaled(decoder, z.float()).cpu()}

    if not decoder.digest:  # whose weights they are is not known
        return make()["latents"]
    return cache.get_or_make(key_of("vae", decoder.digest, digest_of(pixels)), make)["latents"]
