"""From latents to pictures: the VAE's decoder, with the scale that the model's latents have.

z = latents std / scaling_factor + mean      or, without mean and std,      z = latents / scaling_factor + shift
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Decoder:
    """The VAE of a model.

    Attributes:
        vae: a module of diffusers with `decode`.
        factor: pixels of a picture for one of the latents, along each side.
        digest: over the VAE's files, or empty where they are not known.
    """

    vae: Any
    factor: int
    digest: str = ""

    @staticmethod
    def of(vae: Any, digest: str = "") -> Decoder:
        """The decoder of a VAE; each level but the last halves the picture."""
        levels = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
        return Decoder(vae, 2 ** (len(levels) - 1), digest)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    def pixels(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape (C, H, W) of the picture of latents of `shape`."""
        _, height, width = shape
        colours = self.vae.config.get("out_channels") or self.vae.config["in_channels"]
        return int(colours), height * self.factor, width * self.factor

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents as the VAE knows them, from those that the network was trained on."""
        config = self.vae.config
        scale, mean, std = config.scaling_factor, config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            mean, std = (latents.new_tensor(v).reshape(1, -1, 1, 1) for v in (mean, std))
            return latents * std / scale + mean
        return latents / scale + (config.get("shift_factor") or 0.0)

    def __call__(self, latents: Tensor, *, sliced: bool = False, tiled: bool = False) -> Tensor:
        """Pictures (B, C, factor H, factor W) in about [-1, 1], float32 on the host, of latents (B, c, H, W).

        Args:
            sliced: one image at a time, which takes the memory of one.
            tiled: in overlapping tiles that are blended, which takes the memory of a tile and changes pixels slightly.
        """
        vae = self._tiling() if tiled else self.vae
        dtype, device = next(self.vae.parameters()).dtype, next(self.vae.parameters()).device
        z = self.unscaled(latents.to(device)).to(dtype)
        with torch.no_grad():
            parts = [vae.decode(part, return_dict=False)[0] for part in (z.split(1) if sliced else (z,))]
        return torch.cat(parts).to("cpu", torch.float32)

    def _tiling(self) -> Any:
        """A copy of the VAE that tiles and shares its weights: the one that others use stays as it is."""
        if not hasattr(self.vae, "enable_tiling"):
            raise InvalidInput(f"{type(self.vae).__name__} cannot decode in tiles: use sliced, or fewer pixels")
        other = copy.copy(self.vae)
        other.enable_tiling()
        return other
