"""From a method of guidance by name to the denoiser that guides by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.attention import self_attention
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.factors import factors_of
from fewstep.denoise.guided import Guided
from fewstep.denoise.methods import method_of
from fewstep.denoise.scale import Weight
from fewstep.pipeline.guidance import EVERYWHERE, Guidance

Conditions = Mapping[str, Any]


def steered(
    settings: Guidance,
    network: Network,
    condition: Conditions,
    negative: Conditions | None,
    *,
    scale: Weight | Sequence[Weight] | None = None,
    weaker: Network | None = None,
    module: nn.Module | None = None,
    plan: Plan | None = None,
) -> Denoiser:
    """A network under a condition, guided as `settings` say.

    Args:
        network: its own condition is replaced.
        condition, negative: keyword arguments of the network, tensors with the batch first; None is no negative branch.
        scale: of one image each, in place of that of `settings`.
        weaker: the network of autoguidance, with its condition.
        module: where the self-attention layers of perturbed attention are.
        plan: that is run; where it was tuned with guidance by row, "cfg" follows it.

    Raises:
        InvalidInput: the method cannot be used with this network or at this scale.
    """
    w: Any = settings.weight if scale is None else scale
    if factors_of(plan) is not None and settings.method != "cfg" and settings.acts:
        raise InvalidInput(
            f"the plan was tuned with guidance by row, which classifier-free guidance alone follows, and the method is "
            f"{settings.method}: leave the guidance method out, or tune with --constant-guidance"
        )
    if settings.method == "pag" and not self_attention(module):
        raise InvalidInput(
            f"perturbed attention needs self-attention layers as those of diffusers, and this network "
            f"({type(network.network if module is None else module).__name__}) has none; attention over text and "
            'image together is none: use guidance_method="cfg" or "apg"'
        )
    if settings.method == "autoguidance":
        if weaker is None:
            raise InvalidInput("autoguidance moves away from a weaker model: give weak=")
        negative = None
    elif negative is None:
        if settings.method != "pag":
            return network.given(condition)
        w = 1.0
    rescale = {"rescale": settings.rescale} if settings.method == "cfg" else {}
    guided = Guided(
        network,
        condition,
        negative,
        w,
        method=method_of(settings.method, {**settings.options, **rescale}),
        interval=settings.interval,
        weaker=weaker,
        module=module,
    )
    return guided if plan is None else guided.following(plan)


def check_steering(
    settings: Guidance,
    network: Network,
    plan: Plan | None,
    *,
    weaker: Network | None = None,
    module: nn.Module | None = None,
) -> None:
    """Raise `InvalidInput` where a method cannot be used with a network or a plan, before any condition is there."""
    everywhere = replace(settings, interval=EVERYWHERE)  # of an interval that no row is in a run warns
    negative = None if settings.method == "pag" and settings.scale == 1 else {}
    denoiser = steered(everywhere, network, {}, negative, weaker=weaker, module=module, plan=plan)
    if plan is not None:
        denoiser.check(plan)


def module_of(network: Callable[..., Any]) -> nn.Module | None:
    """The torch module behind a network as pipelines call it, where there is one."""
    inner = network.args[0] if isinstance(network, partial) and network.args else network
    return inner if isinstance(inner, nn.Module) else None
