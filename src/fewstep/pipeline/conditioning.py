"""How words steer a text-to-image model: from prompts to conditions, and from these to the denoiser of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.guidance import Guided
from fewstep.pipeline.families import Conditions
from fewstep.pipeline.recipe import Guidance

if TYPE_CHECKING:
    from fewstep.pipeline.text import TextPipeline

Pair = tuple[str, str | None]
"""A prompt and its negative prompt."""


class NoEffect(UserWarning):
    """Something that the caller gave cannot act."""


def chosen_guidance(
    pipe: TextPipeline,
    guidance: float | None,
    negatives: Sequence[str | None],
    interval: tuple[float, float],
    rescale: float,
) -> Guidance:
    """The guidance that a caller chose, None for the model's usual scale; warns of negatives that cannot act."""
    settings = Guidance(pipe.guidance if guidance is None else guidance, None, interval, rescale)
    if any(text is not None for text in negatives) and not _guided(pipe, settings):
        why = "is told its guidance scale" if pipe.distilled else "is not guided at scale 1"
        warnings.warn(
            f"the negative prompt has no effect: {pipe.name} {why}, so nothing is guided away from",
            NoEffect,
            stacklevel=3,
        )
    return settings


def embed(
    pipe: TextPipeline, pairs: Sequence[Pair], settings: Guidance, clip_skip: int | None, warn: bool = False
) -> dict[Pair, tuple[Conditions, Conditions]]:
    """The conditions of each pair of a prompt and a negative prompt, each text encoded once."""
    encoder, guided = pipe.encoder, _guided(pipe, settings)
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    others = list(dict.fromkeys(negative for _, negative in pairs)) if guided else []
    for text in [*prompts, *(text for text in others if text)] if warn else []:
        encoder.warn(text)
    positive = {text: encoder(text, clip_skip) for text in prompts}
    zeros = {name: torch.zeros_like(value) for name, value in positive[prompts[0]].items()}
    negative: dict[str | None, Conditions] = {
        text: zeros if text is None and pipe.zero_negative else encoder(text or "") for text in others
    }
    return {(p, n): (positive[p], negative[n] if guided else positive[p]) for p, n in pairs}


def conditioned(
    pipe: TextPipeline,
    network: Callable[..., Any],
    embedded: Mapping[Pair, tuple[Conditions, Conditions]],
    pairs: Sequence[Pair],
    settings: Guidance,
    size: tuple[int, int],
    channels: Tensor | None = None,
) -> Denoiser:
    """The denoiser of a batch with these pairs at `size`, (height, width); `channels` are those beside the latents."""
    if (channels is None) != (pipe.family.extra(pipe.config) == 0):
        raise InvalidInput(f"{pipe.name} was trained to inpaint and needs a picture and a mask: use inpaint")
    base = Network(
        network,
        pipe.schedule,
        pipe.prediction,
        dtype=pipe.dtype,
        time_scale=pipe.family.time_scale,
        sigma_data=float(pipe.scheduler.get("sigma_data", 0.5)),
    )
    more = pipe.family.sizes(pipe.config, len(pairs), *size)
    if pipe.distilled:
        more["guidance"] = torch.full((len(pairs),), settings.scale)
    if channels is not None:
        more["channels"] = channels.expand(len(pairs), -1, -1, -1)

    def stacked(branch: int) -> Conditions:
        rows = [embedded[pair][branch] for pair in pairs]
        joined = {name: torch.cat([row[name] for row in rows]) for name in rows[0]} | more
        return {name: _placed(pipe, name, value) for name, value in joined.items()}

    positive = stacked(0)
    if not _guided(pipe, settings):
        return base.given(positive)
    return Guided(base, positive, stacked(1), settings.scale, interval=settings.interval, rescale=settings.rescale)


def _placed(pipe: TextPipeline, name: str, value: Tensor) -> Tensor:
    """A condition where the network is and in its dtype; masks stay whole numbers, and a scale float32."""
    exact = name == "guidance" or not value.is_floating_point()
    return value.to(pipe.device) if exact else value.to(pipe.device, pipe.dtype)


def _guided(pipe: TextPipeline, settings: Guidance) -> bool:
    """Whether guidance doubles the network's evaluations."""
    return settings.scale != 1 and not pipe.distilled
