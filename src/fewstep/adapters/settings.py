"""What a diffusers scheduler configuration says, in fewstep's words: noise schedule, sampler, prediction.

Configurations are read as mappings. diffusers is asked for one thing only: the default settings of its classes, because
a configuration in memory marks those of its values that are only the defaults of the class it was made by.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from fewstep import schedules
from fewstep.core import BetaSchedule, InvalidInput, Plan, Schedule

Settings = Mapping[str, Any]
Choice = tuple[str, dict[str, Any]]

SPACING = (
    "timestep_spacing", "steps_offset", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
    "use_lu_lambdas", "final_sigmas_type", "set_alpha_to_one", "interpolation_type", "original_inference_steps",
    "lambda_min_clipped", "timestep_type",
)  # fmt: skip
"""Settings that say where a scheduler puts its times. Those and no others follow the class of the chosen sampler."""

CLIPPING = ("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")

SETTINGS = {
    *SPACING, *CLIPPING, "num_train_timesteps", "beta_start", "beta_end", "beta_schedule",
    "trained_betas", "rescale_betas_zero_snr", "prediction_type", "variance_type", "sigma_max",
    "sigma_data", "shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal", "use_flow_sigmas",
    "flow_shift", "snr_shift_scale", "clip_denoised", "rho",
}  # fmt: skip
"""Settings that may be changed by name. `sigma_min` is an option of a sampler, too, unless the configuration has it."""

PEERS = {
    "ddpm": "DDPM", "ddim": "DDIM", "pndm": "PNDM", "lcm": "LCM", "tcd": "TCD", "sa": "SASolver",
    "euler": "EulerDiscrete", "euler-a": "EulerAncestralDiscrete", "heun": "HeunDiscrete", "dpm2": "KDPM2Discrete",
    "dpm2-a": "KDPM2AncestralDiscrete", "dpmpp-sde": "DPMSolverSDE",
    "dpm-fast": "DPMSolverSinglestep", "dpmpp-fast": "DPMSolverSinglestep",
    **{f"lms-{n}": "LMSDiscrete" for n in (2, 3, 4)},
    **{f"deis-{n}": "DEISMultistep" for n in (1, 2, 3)},
    **{f"unipc{n}": "UniPCMultistep" for n in ("", "-1", "-2", "-3", "-4")},
    **dict.fromkeys(("dpm-2m", "dpm-3m", "dpmpp-1", "dpmpp-2m", "dpmpp-3m"), "DPMSolverMultistep"),
    **{f"sde-dpmpp-{n}": "DPMSolverMultistep" for n in ("1", "2m", "3m")},
}  # fmt: skip
"""The diffusers class that is each sampler on a beta schedule, without its ending `Scheduler`."""


def _dpm_multistep(config: Settings) -> Choice:
    order, algorithm = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    family = {"dpmsolver": "dpm", "dpmsolver++": "dpmpp", "sde-dpmsolver++": "sde-dpmpp"}.get(algorithm)
    if family is None or order not in (1, 2, 3):
        raise InvalidInput(
            f"no sampler is algorithm_type={algorithm!r} of solver_order={order}; give one, such as sampler='dpmpp-2m'"
        )
    if order == 1:
        return ("sde-dpmpp-1" if family == "sde-dpmpp" else "dpmpp-1"), {}
    options = {"variant": config.get("solver_type", "midpoint")}
    return f"{family}-{order}m", options | _given(config, lower_order_final="lower_order_final")


def _dpm_singlestep(config: Settings) -> Choice:
    order, algorithm = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    if algorithm == "sde-dpmsolver++":
        raise InvalidInput("no sampler is a singlestep sde-dpmsolver++; give one, such as sampler='dpmpp-sde'")
    name = "dpm-fast" if algorithm == "dpmsolver" else "dpmpp-fast"
    return name, {"order": order, "variant": config.get("solver_type", "midpoint"), "lower_order_final": True}


def _unipc(config: Settings) -> Choice:
    same = {"lower_order_final": "lower_order_final", "solver_type": "variant"}
    options = _given(config, **same) | {"prediction": "data" if config.get("predict_x0", True) else "noise"}
    if config.get("disable_corrector"):
        options["disable_corrector"] = list(config["disable_corrector"])
    return f"unipc-{config.get('solver_order', 2)}", options


def _sa_solver(config: Settings) -> Choice:
    options = {"variant": "leading"} | _given(
        config, predictor_order="predictor_order", corrector_order="corrector_order"
    )
    schedule = schedule_of(config)
    if isinstance(schedule, BetaSchedule) and config.get("tau_func") is None:  # noisy where 200 <= t <= 800
        ends = schedule.ratio(np.array([200.0, 800.0]))
        options |= {"tau": 1.0, "tau_min": float(ends[0]), "tau_max": float(ends[1])}
    return "sa", options


def _ddpm(config: Settings) -> Choice:
    variance = str(config.get("variance_type", "fixed_small")).removesuffix("_log")
    if variance not in ("fixed_small", "fixed_large"):
        raise InvalidInput(
            f"variance_type={variance!r} is a variance that the network gives, which no sampler here uses: give a "
            "sampler, such as sampler='ddim'"
        )
    return "ddpm", {"variance": variance}


def _given(config: Settings, **names: str) -> dict[str, Any]:
    """The settings that the configuration has, under our names for them."""
    return {ours: config[theirs] for theirs, ours in names.items() if theirs in config}


_SAMPLERS: dict[str, Callable[[Settings], Choice]] = {
    "DDPM": _ddpm,
    "DDPMParallel": _ddpm,
    "DDIM": lambda _: ("ddim", {}),
    "DDIMParallel": lambda _: ("ddim", {}),
    "CogVideoXDDIM": lambda _: ("ddim", {}),
    "PNDM": lambda c: ("pndm", {"warmup": "multistep"} if c.get("skip_prk_steps") else {}),
    "EulerDiscrete": lambda _: ("euler", {}),
    "EulerAncestralDiscrete": lambda _: ("euler-a", {}),
    "HeunDiscrete": lambda _: ("heun", {}),
    "KDPM2Discrete": lambda _: ("dpm2", {}),
    "KDPM2AncestralDiscrete": lambda _: ("dpm2-a", {}),
    "DPMSolverSDE": lambda _: ("dpmpp-sde", {}),
    "LMSDiscrete": lambda _: ("lms-4", {}),
    "DPMSolverMultistep": _dpm_multistep,
    "DPMSolverSinglestep": _dpm_singlestep,
    "UniPCMultistep": _unipc,
    "DEISMultistep": lambda c: (
        f"deis-{c.get('solver_order', 2)}",
        _given(c, lower_order_final="lower_order_final"),
    ),
    "SASolver": _sa_solver,
    "LCM": lambda c: ("lcm", _given(c, timestep_scaling="timestep_scaling")),
    "TCD": lambda _: ("tcd", {}),
    "CMStochasticIterative": lambda c: ("consistency", {"sigma_min": c.get("sigma_min", 0.002)}),
    "EDMEuler": lambda _: ("euler", {}),
    "EDMDPMSolverMultistep": _dpm_multistep,
    "FlowMatchEulerDiscrete": lambda c: ("consistency" if c.get("stochastic_sampling") else "euler", {}),
    "FlowMatchHeunDiscrete": lambda _: ("heun", {}),
    "FlowMatchLCM": lambda _: ("consistency", {}),
}


def sampler_of(host: str | None, config: Settings) -> Choice:
    """The sampler that the diffusers class `host` is under `config`, and its options.

    Raises `InvalidInput` where the class is not known or is no sampler of fewstep.
    """
    if host is None:
        raise InvalidInput(
            "the configuration does not say which scheduler it belongs to, so the sampler is not known: give one, such "
            "as sampler='dpmpp-2m', or pass the scheduler itself, PlanScheduler.from_config(pipe.scheduler)"
        )
    if host not in _SAMPLERS:
        raise InvalidInput(f"{host}Scheduler is no sampler of fewstep: give one, such as sampler='dpmpp-2m'")
    return _SAMPLERS[host](config)


def host_of(config: Settings) -> str | None:
    """The diffusers class that a configuration belongs to, without its ending `Scheduler`; None where that is open.

    A scheduler made in memory does not write its class down; it is known by having exactly that class's settings.
    """
    name = config.get("_class_name")
    if name:
        return str(name).removesuffix("Scheduler")
    keys = {key for key in config if not key.startswith("_")}
    found = [host for host in _SAMPLERS if keys == set(_defaults(host))]
    samplers = {_SAMPLERS[host](config)[0] for host in found}
    return found[0] if len(samplers) == 1 else None


@cache
def _defaults(host: str) -> Mapping[str, Any]:
    """The settings of a diffusers class with their default values; none where this diffusers has no such class."""
    kind = getattr(importlib.import_module("diffusers"), f"{host}Scheduler", None)
    if kind is None:
        return {}
    parameters = inspect.signature(kind.__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in ("self", "kwargs")}


def as_peer(
    config: Settings,
    sampler: str,
    host: str | None,
    schedule: Schedule,
    defaulted: Iterable[str],
    chosen: Iterable[str],
) -> tuple[str | None, dict[str, Any]]:
    """(class, settings) by which `sampler` is spaced and clipped under the configuration of `host`, as diffusers' own.

    Another class made from a configuration ignores the values that were only defaults of the first (`defaulted`), so
    they are replaced by its own; those that the caller has `chosen` stay. Flow and EDM schedules, and samplers that
    diffusers lacks, keep the configuration's own class.
    """
    peer = PEERS.get(sampler)
    own = not isinstance(schedule, BetaSchedule) and not config.get("use_flow_sigmas")
    if peer is None or peer == host or own or not _defaults(peer):
        return host, dict(config)
    settings, defaults = dict(config), _defaults(peer)
    for name in {*SPACING, *CLIPPING} - set(chosen):
        if name not in defaults:
            settings.pop(name, None)
        elif name not in config or name in defaulted:
            settings[name] = defaults[name]
    return peer, settings


def schedule_of(config: Settings, host: str | None = None) -> Schedule:
    """The noise schedule that the network was trained with.

    `EulerDiscrete` with `timestep_type="continuous"` (Stable Video Diffusion) is trained on EDM's schedule.
    """
    if config.get("timestep_type") == "continuous":
        high, low = config.get("sigma_max"), config.get("sigma_min")
        if high is None or low is None:
            raise InvalidInput(f"timestep_type='continuous' needs sigma_min and sigma_max, got {low} and {high}")
        return schedules.edm(high, low)
    if host == "IPNDM" or config.get("prediction_type") == "trigflow":
        raise InvalidInput(f"{host}Scheduler is not on a noise schedule that fewstep has; give a plan or another host")
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


def config_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the noise schedule of `spec`; `InvalidInput` where diffusers has none."""
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


OWN = ("sampler", "options", "grid", "grid_options", "plan", "init_noise", "round_times", "shift_sigmas")
HOST = ("host", "defaulted", "chosen")


def arguments_of(
    config: Settings,
    sampler: str | None,
    grid: str | None,
    grid_options: Mapping[str, Any] | None,
    given: dict[str, Any],
) -> dict[str, Any]:
    """The arguments of a `PlanScheduler` from a configuration, another's or its own, and what the caller has `given`:
    arguments, settings to change, and options of the sampler.
    """
    kept = {name: config[name] for name in (*OWN, *HOST) if name in config}
    base = {name: value for name, value in config.items() if name not in kept and not name.startswith("_")}
    own = {name: given[name] for name in OWN if name in given}
    rest = {name: value for name, value in given.items() if name not in own}
    changed = {name: value for name, value in rest.items() if name in base or name in SETTINGS}
    options = {**(own.pop("options", None) or {}), **{k: v for k, v in rest.items() if k not in changed}}
    base |= changed
    planned = own.get("plan") is not None
    if kept:  # of a PlanScheduler
        if sampler is None and not planned:
            sampler, own["plan"] = kept["sampler"], kept["plan"]
        if sampler is not None and sampler == kept["sampler"]:
            options = {**kept["options"], **options}
        if grid is None and not planned:
            grid, grid_options = kept["grid"], grid_options or kept["grid_options"]
        own = {name: kept[name] for name in ("init_noise", "round_times", "shift_sigmas")} | own
        host, defaulted, chosen = kept["host"], kept["defaulted"], kept["chosen"]
    else:
        host, defaulted, chosen = host_of(config), config.get("_use_default_values", ()), ()
        if sampler is None and not planned:
            sampler, defaults = sampler_of(host, base)
            options = {**defaults, **options}
        elif host is not None and sampler is not None and PEERS.get(sampler) == host:
            name, defaults = sampler_of(host, base)
            options = {**(defaults if name == sampler else {}), **options}
    memory = {"host": host, "defaulted": sorted({*defaulted} - {*changed}), "chosen": sorted({*chosen, *changed})}
    named = {"sampler": sampler, "options": options, "grid": grid, "grid_options": grid_options}
    return {**base, **own, **memory, **named}


def check_fit(plan: Plan, schedule: Schedule) -> None:
    """Raise `InvalidInput` where the plan was compiled for another noise schedule, or guides by row."""
    if plan.recipe.schedule_fingerprint != schedule.fingerprint:
        raise InvalidInput(
            f"the plan was compiled for the noise schedule {json.dumps(dict(plan.recipe.schedule))[:100]}, this "
            f"configuration has {schedule.kind!r} ({schedule.fingerprint}): compile it with "
            "schedule=fewstep.schedules.from_diffusers(pipe.scheduler.config)"
        )
    if plan.guidance_factors is not None:
        raise InvalidInput(
            f"the plan {plan.digest} was tuned with guidance by row, and a scheduler cannot set the guidance of its "
            "pipeline: use fewstep.adapters.byrow.GuidanceByRow, a callback of pipelines that does; tune with "
            "`fewstep tune --constant-guidance`; or draw with fewstep.load"
        )
