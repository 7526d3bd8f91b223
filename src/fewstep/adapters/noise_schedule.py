"""The noise schedule of a diffusers configuration, and a configuration for a noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fewstep import schedules
from fewstep.core import BetaSchedule, InvalidInput, Schedule

Settings = Mapping[str, Any]


def schedule_of(config: Settings, host: str | None = None) -> Schedule:
    """The noise schedule that the network was trained with.

    `EulerDiscrete` with `timestep_type="continuous"` (Stable Video Diffusion) is trained on EDM's schedule.
    """
    if config.get("timestep_type") == "continuous":
        high, low = config.get("sigma_max"), config.get("sigma_min")
        if high is None or low is None:
            raise InvalidInput(f"timestep_type='continuous' needs sigma_min and sigma_max, got {low} and {high}")
        return schedules.edm(high, low)
    if host == "CosineDPMSolverMultistep":
        return schedules.edm(config.get("sigma_max", 500.0), config.get("sigma_min", 0.3))
    if host == "IPNDM" or config.get("prediction_type") == "trigflow":
        raise InvalidInput(f"fewstep does not have the noise schedule of {host}Scheduler: give a plan or another host")
    name = None if host is None else f"{host}Scheduler"
    schedule = schedules.from_diffusers({**config, "_class_name": name})
    shift = config.get("snr_shift_scale")
    if isinstance(schedule, BetaSchedule) and shift not in (None, 1.0):  # CogVideoX
        plain = schedules.from_diffusers({**config, "_class_name": name, "rescale_betas_zero_snr": False})
        assert isinstance(plain, BetaSchedule)
        bar = np.array(plain.alphas_cumprod)
        zero_snr = bool(config.get("rescale_betas_zero_snr", False))
        return schedules.from_alphas_cumprod(bar / (shift + (1 - shift) * bar), zero_snr=zero_snr)
    return schedule


def config_of(spec: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A configuration with the noise schedule of `spec`.

    Raises `InvalidInput` where diffusers has none, and where `settings` do not say what the network predicts.
    """
    if "prediction_type" not in settings:
        raise InvalidInput(
            "a plan does not say what the network predicts: give from_plan(plan, pipe.scheduler), or "
            "prediction_type='epsilon', 'v_prediction', 'sample' or 'flow_prediction'"
        )
    params = dict(spec)
    kind, zero_snr = params.pop("kind"), params.pop("zero_snr", False)
    if kind == "flow":
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": params["shift"], "num_train_timesteps": 1000}
    if kind == "edm":
        return {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5, **params}
    names = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
    base = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": zero_snr, "prediction_type": "epsilon"}
    if kind in names and params.get("max_beta", 0.999) == 0.999:
        params.pop("max_beta", None)
        return {**base, "beta_schedule": names[kind], **params}
    if kind == "betas":
        return {**base, "trained_betas": list(params["betas"]), "num_train_timesteps": len(params["betas"])}
    raise InvalidInput(
        f"no configuration of diffusers has the noise schedule {kind!r}: give one, from_plan(plan, config)"
    )
