"""A small class-conditional U-Net for square images, with continuous time.

The image is brought to a coarse resolution and back (Ronneberger et al. 2015, arXiv:1505.04597), in residual
blocks that the time and the class modulate by scale and shift (FiLM: Perez et al. 2018, arXiv:1709.07871),
with one self-attention layer where the image is smallest. Time enters as sines and cosines (Vaswani et al.
2017, arXiv:1706.03762, section 3.5), so any real time is allowed, not only integers.

What the output means (epsilon, x0, v) is not the network's business: it is written in the checkpoint's spec.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.core.errors import InvalidInput, is_finite, shown

#: Bounds of every size in a config, so that a file from elsewhere cannot ask for absurd amounts of memory.
LIMITS: dict[str, tuple[int, int]] = {
    "channels": (1, 64),
    "size": (2, 512),
    "classes": (1, 100_000),
    "width": (8, 4096),
    "levels": (1, 6),
    "blocks": (1, 8),
    "embedding": (8, 4096),
    "heads": (1, 64),
    "guesses": (1, 64),
}


HIGHEST = 10_000.0
"""Of the frequencies that a config may ask for."""
NEWER: dict[str, Any] = {"guidance": False, "frequency": 1.0, "second_time": False, "guesses": 1}
"""Fields of a config that older files lack, which mean this there."""
SCALED = 100.0
"""What a guidance scale above 1 counts in the units of time, whose features it has."""


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a `UNet`. The defaults are those of the shipped digits model.

    Attributes:
        channels: channels of the image, 1 to 64.
        size: height and width of the image in pixels, 2 to 512, divisible by 2 ** (len(widths) - 1).
        classes: number of classes; label `classes` is the null class (no condition).
        widths: feature channels at each resolution, finest first; each next one has half the resolution.
        blocks: residual blocks on each side of each resolution, 1 to 8.
        embedding: length of the vector that carries time and class, even, 8 to 4096.
        heads: attention heads at the coarsest resolution, a divisor of widths[-1].
        guidance: whether the guidance scale is an input.
        frequency: the highest of the sines and cosines of time, 1 to 10,000. 1 suits times from 0 to 1,000; EDM's
            log(sigma) / 4, from -1.6 to 1.1, needs more.
        second_time: whether the time that a row leads to is an input.
        guesses: outputs in one call, 1 to 64, as so many times the channels; see `fewstep.denoise.row`.
    """

    channels: int = 1
    size: int = 8
    classes: int = 10
    widths: tuple[int, ...] = (32, 56)
    blocks: int = 1
    embedding: int = 64
    heads: int = 2
    guidance: bool = False
    frequency: float = 1.0
    second_time: bool = False
    guesses: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths) if isinstance(self.widths, list) else self.widths)
        if not isinstance(self.widths, tuple):
            raise InvalidInput(f"widths is {self.widths!r}; give a list of whole numbers, one for each resolution")
        for name in ("channels", "size", "classes", "blocks", "embedding", "heads", "guesses"):
            _check_whole(name, name, getattr(self, name))
        _check_whole("len(widths)", "levels", len(self.widths))
        for position, width in enumerate(self.widths):
            _check_whole(f"widths[{position}]", "width", width)
        if self.size % 2 ** (len(self.widths) - 1):
            raise InvalidInput(
                f"size is {self.size}, which cannot be halved {len(self.widths) - 1} times; "
                f"give a multiple of {2 ** (len(self.widths) - 1)}, or fewer widths"
            )
        for name in ("guidance", "second_time"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"{name} is {getattr(self, name)!r}; it has to be true or false")
        if not is_finite(self.frequency) or not 1 <= self.frequency <= HIGHEST:
            raise InvalidInput(f"frequency is {shown(self.frequency)}; it has to be a number from 1 to {HIGHEST:,.0f}")
        object.__setattr__(self, "frequency", float(self.frequency))
        if self.embedding % 2:
            raise InvalidInput(f"embedding is {self.embedding}; it has to be even (half sines, half cosines)")
        if self.widths[-1] % self.heads:
            raise InvalidInput(f"heads is {self.heads}; it has to divide the last width, {self.widths[-1]}")

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(channels, size, size) of one image."""
        return (self.channels, self.size, self.size)

    @property
    def null_class(self) -> int:
        """The label that means "no condition"."""
        return self.classes

    def to_json(self) -> dict[str, Any]:
        """The config as plain JSON values, as older files have them where it says no more than these."""
        found = {**asdict(self), "widths": list(self.widths)}
        return {name: value for name, value in found.items() if name not in NEWER or value != NEWER[name]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> UNetConfig:
        """The config from JSON values; every field but those of `NEWER` has to be there, and no other."""
        if not isinstance(values, Mapping):
            raise InvalidInput(f"the network config is {values!r}; it has to be a JSON object")
        known = {field.name for field in fields(cls)}
        if set(values) | set(NEWER) != known:
            missing, unknown = sorted(known - set(values) - set(NEWER)), sorted(map(str, set(values) - known))
            raise InvalidInput(
                f"the network config lacks {missing} and has unknown {unknown}; the fields are {sorted(known)}"
            )
        return cls(**values)


def _check_whole(shown: str, limit: str, value: object) -> None:
    low, high = LIMITS[limit]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidInput(f"{shown} is {value!r}; it has to be a whole number from {low} to {high}")


def time_features(t: Tensor, length: int, highest: float = 1.0) -> Tensor:
    """Sines and cosines of `t` at `length / 2` frequencies, spaced geometrically from the highest to 1/10,000 of it.

    Args:
        t: float, shape (B,), about 0 to 1000 / highest.
        length: even.

    Returns:
        shape (B, length).
    """
    half = length // 2
    step = -math.log(10_000.0) / half
    frequencies = highest * torch.exp(step * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(width, 8), width)


class ResidualBlock(nn.Module):
    """x + conv(FiLM(conv(x))), both convolutions 3x3 after group norm and SiLU. (B, entry, h, w) -> (B,
    width, h, w)."""

    def __init__(self, entry: int, width: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(entry), nn.Conv2d(entry, width, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width)
        self.norm2, self.conv2 = _norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Identity() if entry == width else nn.Conv2d(entry, width, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(functional.silu(h))


class Stack(nn.ModuleList):
    """Residual blocks one after another; the first brings `entry` channels to `width`."""

    def __init__(self, blocks: int, entry: int, width: int, embedding: int) -> None:
        entries = [entry] + [width] * (blocks - 1)
        super().__init__(ResidualBlock(each, width, embedding) for each in entries)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self:
            x = block(x, condition)
        return x


class Attention(nn.Module):
    """x + self-attention among the h * w places of the image. (B, width, h, w) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        split = (batch, 3, self.heads, width // self.heads, height * breadth)
        q, k, v = self.query_key_value(self.norm(x)).reshape(split).transpose(-1, -2).unbind(1)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(-1, -2).reshape(x.shape))


class UNet(nn.Module):
    """The network of a `UNetConfig`. Make it with `build`, which initialises it from a seed of its own."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        embedding, widths = config.embedding, config.widths
        self.time1, self.time2 = nn.Linear(embedding, embedding), nn.Linear(embedding, embedding)
        self.label = nn.Embedding(config.classes + 1, embedding)
        self.scale = nn.Linear(embedding, embedding, bias=False) if config.guidance else None
        self.interval = nn.Linear(embedding, embedding, bias=False) if config.second_time else None
        self.enter = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        finer = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(
            Stack(config.blocks, entry, width, embedding) for entry, width in zip(finer, widths, strict=True)
        )
        self.attention = Attention(widths[-1], config.heads)
        self.middle = Stack(config.blocks, widths[-1], widths[-1], embedding)
        self.up = nn.ModuleList(
            Stack(config.blocks, coarse + fine, fine, embedding) for fine, coarse in pairwise(widths)
        )
        self.norm = _norm(widths[0])
        self.leave = nn.Conv2d(widths[0], config.channels * config.guesses, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        guidance: Tensor | None = None,
        r: Tensor | None = None,
    ) -> Tensor:
        """The network's output (what it predicts is said by the checkpoint's spec).

        Args:
            x: noisy images, shape (B, channels, size, size), float32.
            t: model time, shape (B,), float (0 to 999 for a schedule of 1000 betas; not only integers; for EDM's
                preconditioning log(sigma) / 4).
            label: class, shape (B,), int64, 0 to `classes`; `classes` is the null class, and None means it
                for all.
            guidance: the scale, shape (B,), 1 for the conditional model; of a network that has it as an input.
            r: the second time, shape (B,), a model time as t; of a network that has it as an input.

        Returns:
            the shape of x, with `guesses` times as many channels.
        """
        if x.shape[1:] != self.config.sample_shape or t.shape != x.shape[:1]:
            raise InvalidInput(
                f"x has shape {tuple(x.shape)} and t {tuple(t.shape)}; this network takes x (B, "
                f"{', '.join(map(str, self.config.sample_shape))}) and t (B,)"
            )
        if label is None:
            label = torch.full(t.shape, self.config.null_class, dtype=torch.int64, device=x.device)
        features = time_features(t, self.config.embedding, self.config.frequency).to(self.time1.weight.dtype)
        condition = self.time2(functional.silu(self.time1(features))) + self.label(label)
        condition = functional.silu(self._told(condition, t, guidance, r))
        h, kept = self.enter(x), []
        for level, blocks in enumerate(self.down):
            if level:
                kept.append(h)
                h = functional.avg_pool2d(h, 2)
            h = blocks(h, condition)
        h = self.middle(self.attention(h), condition)
        for blocks in reversed(self.up):
            h = torch.cat([functional.interpolate(h, scale_factor=2.0, mode="nearest"), kept.pop()], dim=1)
            h = blocks(h, condition)
        return self.leave(functional.silu(self.norm(h)))

    def _told(self, condition: Tensor, t: Tensor, guidance: Tensor | None, r: Tensor | None) -> Tensor:
        """The condition with those of the guidance scale and of the second time, where these are inputs."""
        if (self.scale is None) != (guidance is None):
            missing = "is told its guidance scale: give guidance" if guidance is None else "is not told guidance"
            raise InvalidInput(f"this network {missing}")
        if (self.interval is None) != (r is None):
            missing = "is told where its row leads: give r" if r is None else "is not told a second time r"
            raise InvalidInput(f"this network {missing}")
        if self.scale is not None and guidance is not None:
            features = time_features(SCALED * (guidance - 1), self.config.embedding)
            condition = condition + self.scale(features.to(self.scale.weight.dtype))
        if self.interval is not None and r is not None:
            features = time_features(t - r, self.config.embedding, self.config.frequency)
            condition = condition + self.interval(features.to(self.interval.weight.dtype))
        return condition


def skeleton(config: UNetConfig) -> UNet:
    """The network without memory for its weights (all on torch's `meta` device): to learn names and shapes,
    or to load into with `load_state_dict(..., assign=True)`."""
    with torch.device("meta"):
        return UNet(config)


def build(config: UNetConfig, seed: int) -> UNet:
    """A freshly initialised network. The weights depend on `seed` alone; torch's global generator is not
    touched.

    Weights are normal with variance 1 / fan-in, except those that end a residual branch or the network: those
    start at zero, so that every block is the identity at first.
    """
    generator = torch.Generator().manual_seed(seed)
    network = skeleton(config).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            owner = name.rsplit(".", 2)[-2]
            if "norm" in owner:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias") or owner in ("conv2", "out", "leave", "film", "scale", "interval"):
                parameter.zero_()
            else:
                fan_in = 1 if owner == "label" else parameter[0].numel()
                parameter.normal_(0.0, fan_in**-0.5, generator=generator)
    return network
