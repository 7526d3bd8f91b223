"""From states to pixels and back: a VAE with the scale of the model's latents, or nothing where states are pixels.

    z = latents std / scaling_factor + mean      or, without mean and std,      z = latents / scaling_factor + shift

For a picture, z is the mean of the encoder's distribution, and not a draw from it, so one picture has one latent.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.drawing import Decode, Drawing, Estimate
from fewstep.models.cache import TensorCache, key_of


class Codec(Protocol):
    """What lies between the states of a run and pictures.

    Attributes:
        factor: pixels of a picture for one value of a state, along each side.
        value_range: least and greatest value of pictures.
    """

    @property
    def factor(self) -> int: ...

    @property
    def value_range(self) -> tuple[float, float]: ...

    def pixel_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(C, H, W) of the picture of a state of `shape`."""
        ...

    def decode(self, states: Tensor, how: Decode = ...) -> Tensor:
        """Pictures (B, C, H, W), float32 on the host, of states (B, c, h, w)."""
        ...

    def decoding_bytes(self, shape: Sequence[int], images: int, how: Decode = ...) -> int:
        """Bytes that decoding some states of `shape` (c, h, w) takes on their device at least."""
        ...

    def encode(self, pixels: Tensor, cache: TensorCache) -> Tensor:
        """The state (1, c, h, w), float32 on the host, of a picture (1, C, H, W)."""
        ...

    def check(self, name: str, drawing: Drawing) -> None:
        """Raise `InvalidInput` where states of the model `name` cannot be projected or decoded as asked."""
        ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """States that are the pictures themselves."""

    value_range: tuple[float, float] = (-1.0, 1.0)
    factor: int = 1

    def pixel_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape)

    def decode(self, states: Tensor, how: Decode = Decode()) -> Tensor:  # noqa: B008  # it is frozen
        return states.to("cpu", torch.float32)

    def decoding_bytes(self, shape: Sequence[int], images: int, how: Decode = Decode()) -> int:  # noqa: B008
        return 0

    def encode(self, pixels: Tensor, cache: TensorCache) -> Tensor:
        return pixels

    def check(self, name: str, drawing: Drawing) -> None:
        if drawing.decode.tiled:
            raise InvalidInput(f"{name} draws pixels, which no VAE decodes in tiles: leave tiled out")


@dataclass(frozen=True, eq=False)
class Latents:
    """States that a VAE makes pictures of.

    Attributes:
        vae: a module of diffusers with `decode` and `encode`.
        factor: pixels of a picture for one of the latents, along each side.
        digest: over the VAE's files, or empty where they are not known.
        decoder: what decodes in place of the VAE's own, but in tiles; None is that.
    """

    vae: Any
    factor: int
    digest: str = ""
    decoder: Callable[[Tensor], Tensor] | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)

    @staticmethod
    def of(vae: Any, digest: str = "") -> Latents:
        """The codec of a VAE; each level but the last halves the picture."""
        levels = vae.config.get("block_out_channels") or vae.config["encoder_block_out_channels"]
        return Latents(vae, 2 ** (len(levels) - 1), digest)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    def pixel_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        _, height, width = shape
        colours = self.vae.config.get("out_channels") or self.vae.config["in_channels"]
        return int(colours), height * self.factor, width * self.factor

    def decode(self, states: Tensor, how: Decode = Decode()) -> Tensor:  # noqa: B008  # it is frozen
        """Sliced, it takes the memory of one image; tiled, that of a tile, and it changes pixels slightly."""
        vae, weight = self._tiling() if how.tiled else self.vae, next(self.vae.parameters())
        own = None if how.tiled else self.decoder
        z = states.to(weight.device)
        scale, mean, std = self._scales(z)
        z = z * std / scale + mean if std is not None else z / scale + mean
        z = z.to(weight.dtype)
        with torch.no_grad():
            each = z.split(1) if how.sliced else (z,)
            parts = [own(part) if own else vae.decode(part, return_dict=False)[0] for part in each]
        return torch.cat(parts).to("cpu", torch.float32)

    def decoding_bytes(self, shape: Sequence[int], images: int, how: Decode = Decode()) -> int:  # noqa: B008
        """What its last level holds: its input and its output, of the first width at the size of the picture."""
        widths = self.vae.config.get("block_out_channels") or self.vae.config["decoder_block_out_channels"]
        _, height, width = self.pixel_shape(shape)
        each = 2 * int(widths[0]) * height * width * next(self.vae.parameters()).element_size()
        return 0 if how.tiled else each * (1 if how.sliced else images)

    def encode(self, pixels: Tensor, cache: TensorCache) -> Tensor:
        """Kept in `cache` under the digests of the VAE's files and of the pixels; shared, so nobody may write to it."""

        def make() -> Mapping[str, Tensor]:
            weight = next(self.vae.parameters())
            with torch.no_grad():
                code = self.vae.encode(pixels.to(weight.device, weight.dtype), return_dict=False)[0]
            z = (code if isinstance(code, Tensor) else code.mode()).float()
            scale, mean, std = self._scales(z)
            return {"latents": ((z - mean) * scale / std if std is not None else (z - mean) * scale).cpu()}

        if not self.digest:  # whose weights they are is not known
            return make()["latents"]
        return cache.get_or_make(key_of("vae", self.digest, digest_of(pixels)), make)["latents"]

    def check(self, name: str, drawing: Drawing) -> None:
        if drawing.estimate != Estimate():
            what = "clip" if drawing.estimate.clip else "dynamic thresholding"
            raise InvalidInput(
                f"{what} is for pixels, and {name} draws latents, which have no range: leave it out, or use rescale or "
                "the guidance method apg against colours that are too strong"
            )

    def _scales(self, like: Tensor) -> tuple[float, Any, Any]:
        """(scale, mean, std), the last None where the latents have a shift in place of both."""
        config = self.vae.config
        scale, mean, std = config.scaling_factor, config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return scale, config.get("shift_factor") or 0.0, None
        return scale, like.new_tensor(mean).reshape(1, -1, 1, 1), like.new_tensor(std).reshape(1, -1, 1, 1)

    def _tiling(self) -> Any:
        """A copy of the VAE that tiles and shares its weights: the one that others use stays as it is."""
        if not hasattr(self.vae, "enable_tiling"):
            raise InvalidInput(f"{type(self.vae).__name__} cannot decode in tiles: use sliced, or fewer pixels")
        other = copy.copy(self.vae)
        other.enable_tiling()
        return other


def digest_of(pixels: Tensor) -> str:
    """Sixteen hexadecimal digits over a picture's tensor and its shape."""
    state = hashlib.sha256(str(tuple(pixels.shape)).encode())
    state.update(pixels.contiguous().numpy().tobytes())
    return state.hexdigest()[:16]
