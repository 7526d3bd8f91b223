"""A discriminator on what a network sees inside: small heads on the outputs of some of its layers.

The network has learnt what matters at every level of noise, so heads of some thousand weights tell its own kind of
features of data from those of drawings (Sauer et al. 2024, arXiv 2403.12015; Yin et al. 2024, arXiv 2405.14867). A head
answers for every place of a layer, positive for data, and all places of all layers count alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Denoiser, Level
from fewstep.denoise.convert import Network
from fewstep.training import Role
from fewstep.training.draws import key_of

CRITIC = "critic"
"""The role of a discriminator."""
WIDTH = 64
MIDDLES = ("middle", "mid_block")
"""Of U-Nets: the project's own, and those of diffusers."""
BLOCKS = ("transformer_blocks", "blocks", "single_transformer_blocks")
DEPTHS = (0.5, 0.75, 1.0)


def layers_of(module: nn.Module, named: Sequence[str] = ()) -> tuple[str, ...]:
    """The layers that heads stand on: those `named`, the middle of a U-Net, or three blocks of a transformer.

    Raises `InvalidInput` where there are none.
    """
    own = dict(module.named_modules())
    unknown = [name for name in named if name not in own]
    if unknown:
        raise InvalidInput(
            f"a {type(module).__name__} has no layer {unknown[0]!r}: name such as {', '.join(list(own)[1:6])}"
        )
    if named:
        return tuple(named)
    for name in MIDDLES:
        if name in own:
            return (name,)
    for name in BLOCKS:
        count = len(list(own[name].children())) if name in own else 0
        if count:
            return tuple(dict.fromkeys(f"{name}.{math.ceil(depth * count) - 1}" for depth in DEPTHS))
    raise InvalidInput(
        f"a {type(module).__name__} has neither a middle nor blocks for a discriminator to look at: name its layers, "
        f"such as layers={list(own)[1]},{list(own)[-1]}"
    )


@contextmanager
def heard(module: nn.Module, layers: Sequence[str]) -> Iterator[list[Tensor]]:
    """Within it, the outputs of some layers of a module are kept as it is called.

    A compiled module runs as it is written here: compiled code keeps the hooks that it was made with, and none of ours.
    """
    found: list[Tensor] = []

    def keep(layer: nn.Module, given: Any, output: Any) -> None:
        # A block of two streams returns that of the text first; one of a U-Net a tensor alone.
        parts = output if isinstance(output, tuple) else (output,)
        found.append([part for part in parts if isinstance(part, Tensor)][-1])

    hooks = [module.get_submodule(name).register_forward_hook(keep) for name in layers]
    compiled, module._compiled_call_impl = module._compiled_call_impl, None
    try:
        yield found
    finally:
        module._compiled_call_impl = compiled
        for hook in hooks:
            hook.remove()


def features_of(
    network: Network, denoiser: Denoiser, x: Tensor, level: Level, layers: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """The estimate of the data (B, ..) by a denoiser of a network, and the outputs of layers on the way."""
    module = network.module
    assert module is not None
    with heard(module, layers) as found:
        estimate = denoiser.estimate(x, level)[0]
    return estimate, found[: len(layers)]


class Head(nn.Module):
    """What a layer's output (B, C, h, w) or (B, places, C) is taken for: (B, places)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = math.gcd(WIDTH, 8)
        self.enter, self.inside, self.leave = (
            nn.Conv2d(channels, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 1, 1),
        )  # fmt: skip
        self.first, self.second = nn.GroupNorm(groups, WIDTH), nn.GroupNorm(groups, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        grid = features if features.ndim == 4 else as_grid(features)
        h = functional.silu(self.first(self.enter(grid.to(self.enter.weight.dtype))))
        return self.leave(functional.silu(self.second(self.inside(h)))).flatten(1)


def as_grid(features: Tensor) -> Tensor:
    """(B, C, h, w) of the tokens (B, places, C) of a picture, square where they are as many as a square has."""
    batch, places, channels = features.shape
    side = math.isqrt(places)
    height = side if side * side == places else 1
    return features.transpose(1, 2).reshape(batch, channels, height, places // height)


class Heads(nn.Module):
    """A head for each of some layers, whose outputs have so many channels. The last layer of each is zero at first."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(map(Head, channels))
        for parameter in (parameter for head in self.heads for parameter in head.leave.parameters()):  # type: ignore[union-attr]
            nn.init.zeros_(parameter)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, places) of all layers: above 0 what is taken for data."""
        return torch.cat([head(part) for head, part in zip(self.heads, features, strict=True)], dim=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadsRole(Role):
    """The role of a discriminator, which looks at a network of another role."""

    heads: Heads

    @property
    def module(self) -> Heads:
        return self.heads


def heads_on(network: Network, features: Sequence[Tensor], rate: float | None) -> HeadsRole:
    """A discriminator for features such as these."""
    channels = [part.shape[1] if part.ndim == 4 else part.shape[2] for part in features]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of("heads"))
        heads = Heads(channels)
    return HeadsRole(network, rate=rate, heads=heads.to(features[0].device))


def heads_of(roles: Any) -> Heads:
    """The discriminator among some roles."""
    role = roles[CRITIC]
    assert isinstance(role, HeadsRole)
    return role.heads
