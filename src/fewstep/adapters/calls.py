"""Arguments that pipelines give to the `step` of their own schedulers: what is honoured, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fewstep.core import InvalidInput, unknown_name
from fewstep.solvers import SAMPLERS, solver_of

IDLE = {
    "s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0, "per_token_timesteps": None, "order": None,
}  # fmt: skip
"""Arguments of `step` that pipelines give to schedulers of diffusers, at the values that ask for nothing."""

BY_CALL = ("ddim", "tcd")
"""Samplers whose class in diffusers takes `eta` in each step. Their rows are at the same times for every eta."""


def refuse(host: Mapping[str, Any], sampler: str, options: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for arguments of other schedulers' `step` that ask for something."""
    for name, value in host.items():
        if name not in IDLE:
            raise unknown_name("argument of step", name, [*IDLE, "eta", "use_clipped_model_output", "variance_noise"])
        if name == "order" and value is not None and sampler != f"lms-{value}":
            raise InvalidInput(f"step does not take order={value!r}: make the scheduler with sampler='lms-{value}'")
        asks = value is not None and (isinstance(value, Tensor) or value not in (IDLE[name], options.get(name)))
        if name != "order" and asks:
            raise _from_the_start(name, value)


def eta_by_call(eta: float | None, sampler: str, options: Mapping[str, Any], fixed: bool) -> float | None:
    """The eta of one step where the host's call gives it; None keeps that of the plan.

    Pipelines give 0.0 where nobody asked for anything. So 0.0 counts only for samplers that take their eta from the
    call in diffusers, too, and only where the scheduler was made without one.

    Raises `InvalidInput` where `eta` asks for something that is not done: for a plan that is `fixed`, for another
    sampler, and beside another eta of the scheduler.
    """
    if eta is None:
        return None
    own = options.get("eta")
    if sampler in BY_CALL and own is None and not fixed:
        return float(eta)
    usual = solver_of(sampler)[1].get("eta") if sampler in SAMPLERS else None
    if eta in (0.0, usual if own is None else own):
        return None
    if own is not None:
        raise InvalidInput(f"the call gives eta={eta!r}, and the scheduler was made with eta={own!r}: give one of them")
    raise _from_the_start("eta", eta)


def check_clipped(use_clipped: bool, sampler: str) -> None:
    """Raise `InvalidInput` where a sampler has no noise that could be taken from the clipped estimate."""
    if use_clipped and sampler != "ddim":
        raise InvalidInput(
            f"use_clipped_model_output=True is for sampler='ddim', and this is {sampler!r}: leave it out"
        )


def _from_the_start(name: str, value: Any) -> InvalidInput:
    return InvalidInput(
        f"step does not take {name}={value!r:.60}: give options when you make the scheduler, such as "
        f"PlanScheduler.from_config(config, sampler=.., {name}=..)"
    )
