"""Networks that are told the guidance scale, and such a network made from one that is not.

The scale is fewstep's: 1 is the conditional model, s is 1 + w with the w of Ho & Salimans 2022 (arXiv 2207.12598). The
new input is an embedding of s - 1 through a layer whose weights are zero at first, added to that of the time (Meng et
al. 2023, arXiv 2210.03142, section 3.1), so that the network begins as what it was made from, whatever it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.denoise.convert import Network
from fewstep.zoo.network import UNet, skeleton

SIZE = 256
"""Of the embedding in a UNet2DConditionModel, as latent consistency models have it."""
Scales = tuple[float, float]
"""The interval of guidance scales that a network is told."""


def takes_scale(network: Network) -> bool:
    """Whether a network is told a guidance scale, by its configuration."""
    module = network.module
    if isinstance(module, UNet):
        return module.config.guidance
    config = getattr(module, "config", None)
    if not isinstance(config, Mapping) or network.rows.second_time:  # which is told that time there
        return False
    return bool(config.get("guidance_embeds") or config.get("time_cond_proj_dim"))


def with_scale(network: Network) -> Network:
    """The same denoiser with weights of its own and the scale as an input, `guidance` (B,).

    Raises `InvalidInput` for a network of another class than the project's own and diffusers' UNet2DConditionModel.
    """
    module: Any = network.module
    if isinstance(module, UNet):
        empty: Any = skeleton(replace(module.config, guidance=True))
    elif type(module).__name__ == "UNet2DConditionModel":
        stated = {name: value for name, value in module.config.items() if not name.startswith("_")}
        with torch.device("meta"):
            empty = type(module)(**{**stated, "time_cond_proj_dim": SIZE})
    else:
        raise InvalidInput(
            f"the guidance scale becomes an input of a UNet2DConditionModel or of fewstep's own network, and this is a "
            f"{type(module).__name__}: give it one scale"
        )
    other, inner = with_new_weight(empty, module), network.network
    found = network.given(network.condition)
    found.network = (
        partial(inner.func, other, *inner.args[1:], **inner.keywords) if isinstance(inner, partial) else other
    )
    found.module = other
    return found


def at_scale(network: Network, scale: float) -> Network:
    """The same denoiser, always told one scale."""
    inner = network.network

    def call(x: Tensor, t: Tensor, **condition: Any) -> Any:
        return inner(x, t, **{**condition, "guidance": torch.full((len(x),), scale, device=x.device)})

    found = network.given(network.condition)
    found.network, found.module = call, network.module
    return found


def with_new_weight(empty: Any, module: nn.Module) -> nn.Module:
    """A network without weights filled with copies of those of another, and with zeros where that has none."""
    given = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    like = next(tensor for tensor in given.values() if tensor.is_floating_point())
    new = {name: like.new_zeros(tensor.shape) for name, tensor in empty.state_dict().items() if name not in given}
    empty.load_state_dict({**given, **new}, assign=True)
    return empty


def checked(scales: Any) -> Scales:
    """An interval of scales. Raises `InvalidInput` for what is not one."""
    numbers = isinstance(scales, tuple) and all(type(one) in (int, float) for one in scales)
    if not numbers or len(scales) != 2 or not 0 <= scales[0] < scales[1] < float("inf"):
        raise InvalidInput(f"guidance scales are told from a lowest to a higher one, at least 0, got {scales!r}")
    return float(scales[0]), float(scales[1])
