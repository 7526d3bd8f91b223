"""Arguments that pipelines give to the `step` of their own schedulers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fewstep.core import InvalidInput, unknown_name

IDLE = {
    "eta": 0.0, "use_clipped_model_output": False, "variance_noise": None, "s_churn": 0.0, "s_tmin": 0.0,
    "s_tmax": math.inf, "s_noise": 1.0, "per_token_timesteps": None, "order": 4,
}  # fmt: skip
"""Arguments of `step` that pipelines give to schedulers of diffusers, at the values that ask for nothing."""


def refuse(host: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for arguments of other schedulers' `step` that ask for something."""
    for name, value in host.items():
        if name not in IDLE:
            raise unknown_name("argument of step", name, IDLE)
        option = options.get(name)
        if value is not None and value not in (IDLE[name], option):
            raise InvalidInput(
                f"{name}={value!r} is not for step: a plan has its options from the start, such as "
                f"PlanScheduler.from_config(config, sampler=.., {name}={value!r})"
            )
