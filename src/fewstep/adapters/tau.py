"""The noise of SA-Solver by the time that the network is told: `tau_func` of diffusers, as an interval of ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fewstep.adapters.noise_schedule import schedule_of
from fewstep.core import BetaSchedule, InvalidInput

USUAL = (200, 800)
"""Where diffusers' own SASolver draws noise, in told times, ends included."""


def tau_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """`tau`, `tau_min` and `tau_max` of the sampler "sa" under a configuration of `SASolver`.

    Raises `InvalidInput` for a `tau_func` that is not one value in one interval of times and 0 elsewhere.
    """
    total = int(config.get("num_train_timesteps", 1000))
    strength, first, last = _interval(config.get("tau_func"), total)
    if strength == 0:
        return {"tau": 0.0}
    truncated = any(config.get(f"use_{name}_sigmas") for name in ("exponential", "beta", "flow"))
    low, high = (first, last + 1 - 1e-9) if truncated else (first - 0.5, last + 0.5)
    schedule = schedule_of(config)
    if isinstance(schedule, BetaSchedule):
        # what is said at the last time holds for all noisier states, too, and at the first for all cleaner ones
        ends = np.clip([low, high], schedule.t_min, schedule.t_max)
        least, most = (float(r) for r in schedule.ratio(ends))
        return {
            "tau": strength,
            "tau_min": 0.0 if first == 0 else least,
            "tau_max": _LARGEST if last >= total - 1 or not np.isfinite(most) else most,
        }
    low, high = low / total, high / total
    return {
        "tau": strength,
        "tau_min": max(0.0, low) / (1 - max(0.0, low)),
        "tau_max": high / (1 - high) if high < 1 else _LARGEST,
    }


_LARGEST = 1e300


def _interval(function: Any, total: int) -> tuple[float, int, int]:
    """(strength, first, last): the one value above 0 of `function`, and the whole times where it has it."""
    if function is None:
        return (1.0, USUAL[0], min(USUAL[1], total - 1)) if total > USUAL[0] else (0.0, 0, 0)
    values = np.array([float(function(t)) for t in range(total)])
    noisy = np.flatnonzero(values)
    if not noisy.size:
        return 0.0, 0, 0
    first, last = int(noisy[0]), int(noisy[-1])
    inside = values[first : last + 1]
    if np.any(inside != inside[0]):
        raise InvalidInput(
            "tau_func must be one value in one interval of times and 0 elsewhere: give tau, tau_min and tau_max, in "
            "sigma / alpha, as options of sampler='sa'"
        )
    return float(inside[0]), first, last
