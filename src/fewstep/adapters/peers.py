"""Which sampler a scheduler of diffusers is, and what its settings are as options of that sampler."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from functools import cache
from itertools import product
from typing import Any

from fewstep.adapters.tau import tau_options
from fewstep.core import InvalidInput
from fewstep.solvers import solver_of

Settings = Mapping[str, Any]
Choice = tuple[str, dict[str, Any]]

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

IDENTITY = ("solver_order", "algorithm_type", "stochastic_sampling")
"""Settings that say which sampler a class is."""

SOLVING = {
    *IDENTITY, "solver_type", "lower_order_final", "euler_at_final", "predict_x0", "disable_corrector", "solver_p",
    "predictor_order", "corrector_order", "tau_func", "skip_prk_steps", "timestep_scaling", "s_noise",
}  # fmt: skip
"""Settings of the step itself. Only a sampler whose class has them can honour them."""

_VARIANCE = ("variance_type",)


def sampler_of(host: str | None, config: Settings) -> Choice:
    """The sampler that the diffusers class `host` is under `config`, and its options.

    Raises `InvalidInput` where the class is not known or has no sampler here.
    """
    if host is None:
        raise InvalidInput(
            "the configuration does not say which scheduler it belongs to, so the sampler is not known: give one, such "
            "as sampler='dpmpp-2m', or pass the scheduler itself, PlanScheduler.from_config(pipe.scheduler)"
        )
    if host not in SAMPLERS_OF:
        raise InvalidInput(f"fewstep has no sampler for {host}Scheduler: give one, such as sampler='dpmpp-2m'")
    return SAMPLERS_OF[host](config)


def peer_of(sampler: str | None, host: str | None) -> str | None:
    """The diffusers class that is `sampler`: the host's own where that is this sampler, too; None for none."""
    if sampler is not None and sampler in _NAMES.get(host, ()):
        return host
    return PEERS.get(sampler or "")


def options_of(
    sampler: str, host: str | None, config: Settings, explicit: Collection[str], *, whole: bool
) -> dict[str, Any]:
    """The options of a named sampler that settings of its diffusers class give it.

    With `whole`, all settings of a host of that class count. Else, and for a host of another class, those that are
    `explicit` do, and not the mere defaults of a class.
    """
    peer = peer_of(sampler, host)
    if peer is None:
        return {}
    theirs, counting = defaults_of(peer), {*explicit}
    if whole and peer == host:
        config, counting = {**theirs, **config}, {*theirs}
    left_out = {*SOLVING, *_VARIANCE} - (counting & theirs.keys())
    settings = {name: value for name, value in config.items() if name not in left_out} | _implied(sampler, peer)
    if str(settings.get("variance_type")).removesuffix("_log") not in ("fixed_small", "fixed_large"):
        settings.pop("variance_type", None)  # a sampler that is named does not use the variance of a network
    _, options = SAMPLERS_OF[peer](settings)
    return {name: value for name, value in options.items() if name in solver_of(sampler)[1]}


def for_steps(options: Settings, host: str | None, steps: int) -> dict[str, Any]:
    """The options of a run of so many steps: a singlestep host ends lower where its groups do not fill the steps."""
    if host == "DPMSolverSinglestep" and options.get("lower_order_final") is False and steps % options.get("order", 3):
        return {**options, "lower_order_final": True}
    return dict(options)


def check_identity(sampler: str, host: str | None, settings: Settings) -> None:
    """Raise `InvalidInput` where `settings` of this call make the class of `sampler` another one."""
    peer = peer_of(sampler, host)
    given = {name: settings[name] for name in _identity(peer) if name in settings}
    if peer is None or not given:
        return
    name, _ = SAMPLERS_OF[peer](_implied(sampler, peer) | given)
    if name != sampler:
        words = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise InvalidInput(f"{words} makes it sampler={name!r}, and sampler={sampler!r} was given: give one of them")


def _identity(peer: str | None) -> tuple[str, ...]:
    """The settings of a class that say which sampler it is."""
    named = IDENTITY[1:] if peer == "DPMSolverSinglestep" else IDENTITY
    return tuple(name for name in named if name in defaults_of(peer or ""))


@cache
def _implied(sampler: str, peer: str) -> dict[str, Any]:
    """The values of those settings by which the class is `sampler`."""
    values = {
        "solver_order": (1, 2, 3, 4),
        "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
        "stochastic_sampling": (False, True),
    }
    names = _identity(peer)
    for chosen in product(*(values[name] for name in names)):
        settings = dict(zip(names, chosen, strict=True))
        try:
            if SAMPLERS_OF[peer](settings)[0] == sampler:
                return settings
        except InvalidInput:  # no sampler has these values
            continue
    return {}


@cache
def defaults_of(host: str) -> Mapping[str, Any]:
    """The settings of a diffusers class with their default values; none where this diffusers has no such class."""
    kind = getattr(importlib.import_module("diffusers"), f"{host}Scheduler", None)
    if kind is None:
        return {}
    parameters = inspect.signature(kind.__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in ("self", "kwargs")}


# --- one function a family ------------------------------------------------------------------------------------


def _dpm_multistep(config: Settings) -> Choice:
    order, algorithm = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    known = {"dpmsolver": "dpm", "dpmsolver++": "dpmpp", "sde-dpmsolver++": "sde-dpmpp", "deis": "dpmpp"}
    if algorithm not in known or order not in (1, 2, 3):
        raise InvalidInput(
            f"no sampler has algorithm_type={algorithm!r} with solver_order={order}: give one, such as "
            "sampler='dpmpp-2m'"
        )
    family = known[algorithm]
    if order == 1:
        return ("sde-dpmpp-1" if family == "sde-dpmpp" else "dpmpp-1"), {}
    options = _variant(config) | _lowered(config) | _given(config, euler_at_final="euler_at_final")
    return f"{family}-{order}m", options


def _cosine(config: Settings) -> Choice:
    return _dpm_multistep({**config, "algorithm_type": "sde-dpmsolver++"})


def _dpm_singlestep(config: Settings) -> Choice:
    algorithm = config.get("algorithm_type", "dpmsolver++")
    if algorithm == "sde-dpmsolver++":
        raise InvalidInput("there is no singlestep sde-dpmsolver++: give a sampler, such as sampler='dpmpp-sde'")
    options = _given(config, solver_order="order") | _variant(config)
    if "lower_order_final" in config:
        ends = config.get("final_sigmas_type", "zero") == "zero"
        options["lower_order_final"] = bool(config["lower_order_final"]) or ends
    return ("dpm-fast" if algorithm == "dpmsolver" else "dpmpp-fast"), options


def _unipc(config: Settings) -> Choice:
    if config.get("solver_p") is not None:
        raise InvalidInput("solver_p, another scheduler as the predictor of UniPC, is not in fewstep: give None")
    options = _given(config, lower_order_final="lower_order_final")
    if config.get("solver_type") in ("bh1", "bh2"):
        options["variant"] = config["solver_type"]
    if "predict_x0" in config:
        options["prediction"] = "data" if config["predict_x0"] else "noise"
    if config.get("disable_corrector"):
        options["disable_corrector"] = list(config["disable_corrector"])
    return f"unipc-{config.get('solver_order', 2)}", options


def _deis(config: Settings) -> Choice:
    return f"deis-{config.get('solver_order', 2)}", _lowered(config)


def _sa_solver(config: Settings) -> Choice:
    if config.get("algorithm_type", "data_prediction") == "noise_prediction":
        raise InvalidInput("algorithm_type='noise_prediction' of SASolver is not in fewstep: use 'data_prediction'")
    same = {name: name for name in ("predictor_order", "corrector_order", "lower_order_final")}
    options = _given(config, **same)
    if "tau_func" in config:  # all settings of the class, which has its own weights and its own interval of noise
        options |= {"variant": "leading"} | tau_options(config)
    return "sa", options


def _ddpm(config: Settings) -> Choice:
    variance = str(config.get("variance_type") or "fixed_small").removesuffix("_log")
    if variance not in ("fixed_small", "fixed_large"):
        raise InvalidInput(
            f"variance_type={variance!r} is a variance that the network gives, which no sampler here uses: give a "
            "sampler, such as sampler='ddim'"
        )
    return "ddpm", {"variance": variance}


def _consistency(config: Settings) -> Choice:
    return "consistency", _given(config, sigma_min="sigma_min", s_noise="s_noise")


def _flow_euler(config: Settings) -> Choice:
    return ("consistency" if config.get("stochastic_sampling") else "euler"), {}


def _flow_lcm(config: Settings) -> Choice:
    if config.get("scale_factors"):
        raise InvalidInput("scale_factors, which enlarge the picture between steps, are not in fewstep: give None")
    return "consistency", {}


def _given(config: Settings, **names: str) -> dict[str, Any]:
    """The settings that the configuration has, under our names for them."""
    return {ours: config[theirs] for theirs, ours in names.items() if theirs in config}


def _variant(config: Settings) -> dict[str, Any]:
    """`solver_type`; the names of other families mean the default, as in diffusers."""
    if "solver_type" not in config:
        return {}
    return {"variant": "heun" if config["solver_type"] == "heun" else "midpoint"}


def _lowered(config: Settings) -> dict[str, Any]:
    """`lower_order_final` of the multistep DPM-Solvers and DEIS: True means below 15 steps only."""
    if "lower_order_final" not in config:
        return {}
    return {"lower_order_final": None if config["lower_order_final"] else False}


SAMPLERS_OF: dict[str, Callable[[Settings], Choice]] = {
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
    "DEISMultistep": _deis,
    "SASolver": _sa_solver,
    "LCM": lambda c: ("lcm", _given(c, timestep_scaling="timestep_scaling")),
    "TCD": lambda _: ("tcd", {}),
    "CMStochasticIterative": _consistency,
    "EDMEuler": lambda _: ("euler", {}),
    "EDMDPMSolverMultistep": _dpm_multistep,
    "CosineDPMSolverMultistep": _cosine,
    "FlowMatchEulerDiscrete": _flow_euler,
    "FlowMatchHeunDiscrete": lambda _: ("heun", {}),
    "FlowMatchLCM": _flow_lcm,
}
"""The samplers that classes of diffusers are."""

_DPM_MULTISTEP = tuple(name for name, peer in PEERS.items() if peer == "DPMSolverMultistep")
_NAMES: dict[str | None, tuple[str, ...]] = {
    "DDPMParallel": ("ddpm",),
    "DDIMParallel": ("ddim",),
    "CogVideoXDDIM": ("ddim",),
    "CMStochasticIterative": ("consistency",),
    "EDMEuler": ("euler",),
    "EDMDPMSolverMultistep": _DPM_MULTISTEP,
    "CosineDPMSolverMultistep": _DPM_MULTISTEP,
    "FlowMatchEulerDiscrete": ("euler", "consistency"),
    "FlowMatchHeunDiscrete": ("heun",),
    "FlowMatchLCM": ("consistency",),
}
"""Samplers of classes that are not the first of their name."""
