"""Which settings of diffusers schedulers mean something here, and the refusal of those that would change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewstep.adapters.peers import SOLVING, check_identity, defaults_of, peer_of
from fewstep.core import InvalidInput

SPACING = (
    "timestep_spacing", "steps_offset", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
    "use_lu_lambdas", "final_sigmas_type", "set_alpha_to_one", "interpolation_type", "original_inference_steps",
    "lambda_min_clipped", "timestep_type",
)  # fmt: skip
"""Settings that say where a scheduler puts its times. Those and no others follow the class of the chosen sampler."""

CLIPPING = ("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")

NETWORK = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type", "variance_type", "sigma_max", "sigma_data", "snr_shift_scale", "clip_denoised", "rho",
    "use_flow_sigmas",
}  # fmt: skip
"""Settings of the network, its noise schedule and its data, which hold for every sampler."""

FLOW = {"shift", "flow_shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal", "invert_sigmas"}
"""Settings of flow schedules."""

WITH_BETAS = {
    "timestep_spacing", "steps_offset", "set_alpha_to_one", "use_lu_lambdas", "lambda_min_clipped",
    "interpolation_type", "timestep_type", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "rescale_betas_zero_snr", "snr_shift_scale",
}  # fmt: skip
"""Settings that mean nothing on a flow schedule."""

CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
KNOWN = {*SPACING, *CLIPPING, *NETWORK, *FLOW, *SOLVING}


@dataclass(frozen=True)
class Use:
    """What settings are given for: a configuration and its class, and a sampler, or a plan where that is None."""

    base: Mapping[str, Any]
    host: str | None
    sampler: str | None
    grid: str | None


def check_used(settings: Mapping[str, Any], use: Use) -> None:
    """Raise `InvalidInput` for a setting of a call that would change nothing, or that contradicts the sampler."""
    theirs = defaults_of(peer_of(use.sampler, use.host) or "") if use.sampler else {}
    for name, value in settings.items():
        told = f"{name}={value!r:.60}"
        if name in use.base and use.base[name] == value:
            continue
        if use.sampler is None and name in (*SOLVING, *SPACING):
            raise InvalidInput(f"{told} is for a sampler, and a plan has a sampler and times of its own: leave it out")
        if name in SOLVING and name not in theirs:
            raise InvalidInput(f"{told} means nothing to sampler={use.sampler!r}: leave it out or take another sampler")
        if name in SPACING:
            _check_spacing(name, told, theirs, use)
        if name not in theirs and name not in use.base:
            _check_schedule(name, told, use, _flows({**use.base, **settings}))
    if use.sampler is not None:
        check_identity(use.sampler, use.host, settings)


def _check_spacing(name: str, told: str, theirs: Mapping[str, Any], use: Use) -> None:
    if use.grid is not None:
        raise InvalidInput(f"{told} places the times, and grid={use.grid!r} does, too: give one of them")
    if name in ("interpolation_type", "original_inference_steps") and name not in theirs:
        raise InvalidInput(f"{told} means nothing to sampler={use.sampler!r}: leave it out, or give a grid")


def _check_schedule(name: str, told: str, use: Use, flow: bool) -> None:
    """Raise `InvalidInput` for a setting that neither this class nor this noise schedule reads."""
    peer = peer_of(use.sampler, use.host) if use.sampler else None
    if flow and name in WITH_BETAS:
        raise InvalidInput(f"{told} is for noise schedules with betas, and this one is a flow: leave it out")
    if not flow and name in FLOW:
        raise InvalidInput(f"{told} is for flow schedules, and this one has betas: leave it out")
    if name in ("sigma_min", "sigma_max"):
        raise InvalidInput(f"{told} bounds the levels of EulerDiscrete, UniPC and EDM only: give a grid with options")
    if not flow and peer in ("LCM", "TCD") and name in (*CURVES, "final_sigmas_type"):
        raise InvalidInput(
            f"{told} has no effect on sampler={use.sampler!r}, which takes the times of its distillation"
        )
    if peer in ("DEISMultistep", "SASolver") and name in ("final_sigmas_type", "set_alpha_to_one"):
        raise InvalidInput(f"{told} has no effect on sampler={use.sampler!r}, as its class in diffusers has one end")


def _flows(config: Mapping[str, Any]) -> bool:
    return bool(config.get("use_flow_sigmas")) or config.get("beta_schedule") is None
