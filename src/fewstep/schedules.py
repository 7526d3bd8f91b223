"""The noise schedules, as `fewstep.schedules`."""

from fewstep.core.schedule import (
    Schedule,
    cosine,
    edm,
    flow,
    flow_shift,
    from_alphas_cumprod,
    from_betas,
    from_diffusers,
    from_spec,
    linear,
    scaled_linear,
)

__all__ = [
    "Schedule",
    "cosine",
    "edm",
    "flow",
    "flow_shift",
    "from_alphas_cumprod",
    "from_betas",
    "from_diffusers",
    "from_spec",
    "linear",
    "scaled_linear",
]
