"""How words steer a text-to-image model: from prompts to conditions, and from these to the denoiser of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.factors import factors_of
from fewstep.pipeline.draw import Counted
from fewstep.pipeline.families import Conditions
from fewstep.pipeline.guidance import GivenScale, Guidance
from fewstep.pipeline.steer import check_steering, steered

if TYPE_CHECKING:
    from fewstep.pipeline.text import TextPipeline

Pair = tuple[str, str | None]
"""A prompt and its negative prompt."""


class NoEffect(UserWarning):
    """Something that the caller gave cannot act."""


class Embedding(NamedTuple):
    """The conditions of a prompt and of its negative prompt; `weak`: of the prompt, as the weaker model reads it."""

    positive: Conditions
    negative: Conditions
    weak: Conditions


def chosen_guidance(
    pipe: TextPipeline,
    negatives: Sequence[str | None],
    plan: Plan | None = None,
    *,
    guidance: GivenScale,
    method: str,
    options: Mapping[str, Any] | None,
    weak: TextPipeline | None,
    interval: tuple[float, float],
    rescale: float,
) -> Guidance:
    """The guidance that a caller chose, checked; a scale of None is the usual one of the method or of the model."""
    settings = Guidance.given(
        guidance, plan, pipe.guidance, interval=interval, rescale=rescale, method=method, options=options, weak=weak
    )
    check_guidance(pipe, settings, negatives, plan, weak)
    return settings


def check_guidance(
    pipe: TextPipeline,
    settings: Guidance,
    negatives: Sequence[str | None] = (),
    plan: Plan | None = None,
    weak: TextPipeline | None = None,
) -> None:
    """Warn of negatives that cannot act. Raises `InvalidInput` where the model or the plan cannot be guided so."""
    if pipe.distilled and settings.method not in ("cfg", "pag"):
        raise InvalidInput(
            f"{pipe.name} is told its guidance scale, so that {settings.method} has nothing to guide: leave the "
            "guidance method out"
        )
    if pipe.distilled and isinstance(settings.scale, tuple):
        raise InvalidInput(
            f"{pipe.name} is told its guidance scale, one for all rows, and got {len(settings.scale)} by row: give one"
        )
    if pipe.distilled and factors_of(plan) is not None:
        raise InvalidInput(
            f"{pipe.name} is told its guidance scale, and the plan was tuned with guidance by row, which needs a "
            "negative branch: tune with --constant-guidance"
        )
    weaker = None if weak is None else _network(weak)
    alone = replace(settings, scale=1.0) if pipe.distilled else settings
    check_steering(alone, _network(pipe), plan, weaker=weaker, module=pipe.module)
    if any(text is not None for text in negatives) and not _guided(pipe, settings):
        if pipe.distilled:
            why = "is told its guidance scale"
        elif settings.method == "autoguidance":
            why = "is guided away from the weaker model instead"
        else:
            why = "is not guided at scale 1"
        warnings.warn(
            f"the negative prompt has no effect: {pipe.name} {why}, so nothing is guided away from",
            NoEffect,
            stacklevel=4,
        )


def embed(
    pipe: TextPipeline,
    pairs: Sequence[Pair],
    settings: Guidance,
    clip_skip: int | None,
    weak: TextPipeline | None = None,
    warn: bool = False,
) -> dict[Pair, Embedding]:
    """The conditions of each pair of a prompt and a negative prompt, each text encoded once by each model."""
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
    theirs = positive if weak is None else {text: weak.encoder(text, clip_skip) for text in prompts}
    return {(p, n): Embedding(positive[p], negative[n] if guided else positive[p], theirs[p]) for p, n in pairs}


def conditioned(
    pipe: TextPipeline,
    embedded: Mapping[Pair, Embedding],
    pairs: Sequence[Pair],
    settings: Guidance,
    size: tuple[int, int],
    *,
    channels: Tensor | None = None,
    weak: TextPipeline | None = None,
    counted: Counted = lambda network: network,
    plan: Plan | None = None,
) -> Denoiser:
    """The denoiser of a batch with these pairs.

    Args:
        size: (height, width) of the pictures.
        channels: those beside the latents, (1, c, h, w).
        weak: the weaker model of autoguidance.
        counted: makes a network one whose evaluations are counted.
        plan: that is run, whose guidance by row is followed where it has one.
    """
    if (channels is None) != (pipe.family.extra(pipe.config) == 0):
        raise InvalidInput(f"{pipe.name} was trained to inpaint and needs a picture and a mask: use inpaint")
    found = [embedded[pair] for pair in pairs]

    def stacked(model: TextPipeline, rows: Sequence[Conditions]) -> Conditions:
        more = model.family.sizes(model.config, len(rows), *size)
        if model.distilled:
            more["guidance"] = torch.full((len(rows),), settings.weights[0])
        if channels is not None:
            more["channels"] = channels.expand(len(rows), -1, -1, -1)
        joined = {name: torch.cat([row[name] for row in rows]) for name in rows[0]} | more
        return {name: _placed(model, name, value) for name, value in joined.items()}

    return steered(
        settings,
        _network(pipe, counted),
        stacked(pipe, [e.positive for e in found]),
        stacked(pipe, [e.negative for e in found]) if _guided(pipe, settings) else None,
        weaker=None if weak is None else _network(weak, counted).given(stacked(weak, [e.weak for e in found])),
        module=pipe.module,
        plan=plan,
    )


def _network(pipe: TextPipeline, counted: Counted = lambda network: network) -> Network:
    return Network(
        counted(pipe._network),
        pipe.schedule,
        pipe.prediction,
        dtype=pipe.dtype,
        time_scale=pipe.family.time_scale,
        sigma_data=float(pipe.scheduler.get("sigma_data", 0.5)),
    )


def _placed(pipe: TextPipeline, name: str, value: Tensor) -> Tensor:
    """A condition where the network is and in its dtype; masks stay whole numbers, and a scale float32."""
    exact = name == "guidance" or not value.is_floating_point()
    return value.to(pipe.device) if exact else value.to(pipe.device, pipe.dtype)


def _guided(pipe: TextPipeline, settings: Guidance) -> bool:
    """Whether there is a negative branch, another evaluation of the network."""
    return settings.uses_negative and not pipe.distilled
