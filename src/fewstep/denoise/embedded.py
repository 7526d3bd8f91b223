"""Guidance-distilled networks: the scale is an input of the network, and a row costs one evaluation.

FLUX.1-dev takes the scale itself, as `guidance`. LCM networks (Luo et al. 2023, arXiv 2310.04378, after Meng et al.
2023, arXiv 2210.03142) take a sinusoidal embedding of it, as `timestep_cond`: with w = scale - 1 and d its size,

    sin(1000 w f_j), cos(1000 w f_j),    f_j = 10000^(-j / (d / 2 - 1)),    j = 0 .. d / 2 - 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.denoise.convert import Network, check_network

ARGUMENTS = ("guidance", "timestep_cond")


def scale_embedding(w: Tensor, size: int) -> Tensor:
    """The embedding (n, size) of w = scale - 1, (n,), as LCM networks know it; an odd size ends with a zero."""
    if size < 4:
        raise InvalidInput(f"the embedding of a guidance scale has 4 values or more, got {size}")
    half = size // 2
    # Rounded as in diffusers: at 1,000 radians for each unit of w, one bit of a frequency is seen in a picture.
    step = torch.tensor(10000.0, dtype=w.dtype, device=w.device).log() / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=w.dtype, device=w.device) * -step)
    angles = 1000 * w[:, None] * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, size % 2))


def embedded_guidance(
    network: Network,
    scale: float | Sequence[float],
    *,
    argument: str | None = None,
    size: int | None = None,
) -> Network:
    """`network` told a guidance scale, which is added to its condition.

    It has no negative branch, so a negative prompt cannot act: see `check_negative`. Around it, `Guided` is a second,
    true guidance at two evaluations a row; give it the `condition` of what this returns.

    Args:
        scale: as the pipelines of diffusers count, with 1 for no guidance in LCM; one for all images or one for each.
        argument: "guidance" or "timestep_cond"; None reads it from the network's own configuration, which in diffusers
            says `guidance_embeds` or `time_cond_proj_dim`.
        size: of the embedding, for timestep_cond; None reads `time_cond_proj_dim`.

    Raises:
        InvalidInput: for a network that takes no scale, and a scale that is not finite.
    """
    config = getattr(check_network(network).network, "config", None)

    def read(name: str) -> Any:
        return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)

    if network.rows.second_time:
        raise InvalidInput("this network is told where its row leads in the place of a guidance scale: leave that out")
    if argument is None:
        argument = "guidance" if read("guidance_embeds") else "timestep_cond" if read("time_cond_proj_dim") else None
        if argument is None:
            raise InvalidInput(
                f"the configuration of {type(network.network).__name__} has neither guidance_embeds nor "
                "time_cond_proj_dim, so it takes no guidance scale: use fewstep.Guided, or name argument= if it does"
            )
    if argument not in ARGUMENTS:
        raise unknown_name("argument of a distilled network", argument, ARGUMENTS)
    try:
        w = torch.as_tensor(scale, dtype=torch.float32, device=_device(network)).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"a guidance scale is a finite number, or one for each image, got {scale!r}") from error
    if not len(w) or not bool(torch.isfinite(w).all()):
        raise InvalidInput(f"a guidance scale is a finite number, or one for each image, got {scale!r}")
    if argument == "timestep_cond":
        size = size or read("time_cond_proj_dim")
        if not size:
            raise InvalidInput("timestep_cond is an embedding: give its size=, the network's time_cond_proj_dim")
        w = scale_embedding(w - 1, size).to(network.dtype or torch.float32)
    elif size is not None:
        raise InvalidInput("the argument guidance is the scale itself and has no size: leave size= out")
    return network.given({**network.condition, argument: w})


def _device(network: Network) -> torch.device | None:
    """Where the network's first parameter is."""
    module = network.network
    parameters = module.parameters() if isinstance(module, torch.nn.Module) else iter(())
    return next((p.device for p in parameters), None)
