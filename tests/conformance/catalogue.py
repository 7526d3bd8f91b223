"""Which sampler of ours, with which options and over which grid, a peer is; and which peers are none of ours, and why.

The grid is the peer's own, taken verbatim from its response: what is compared are samplers, not grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import fewstep as fs
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule

from .departures import departure_of
from .diffusers_cases import diffusers_cases
from .diffusers_peer import alphas_cumprod
from .k_diffusion_peer import k_diffusion_cases
from .peers import Peer, Response

Settings = dict[str, Any]
STILL = 1e-13
"""A peer that repeats its last level is compared with a step that lowers it by this part: ours never stand still."""


@dataclass(frozen=True)
class Ours:
    """A sampler of ours and its options.

    `stages` is how many evaluations of the peer make a step; `timed` takes the grid from the times that the peer
    tells the network, not from its levels; `reverse` runs from the least noise up.
    """

    sampler: str
    options: Settings = field(default_factory=dict)
    stages: int = 1
    timed: bool = False
    reverse: bool = False


def peers() -> Iterator[Peer]:
    """Every case of both libraries: diffusers with its tables in float64 and as it is, k-diffusion in float64."""
    yield from diffusers_cases()
    yield from diffusers_cases("float32")
    yield from k_diffusion_cases()


def ours_for(peer: Peer) -> Ours | None:
    """The sampler of ours that `peer` is; None where there is none."""
    departure = departure_of(peer)
    if departure and departure.absent:
        return None
    if "function" in peer.settings:
        return _k_diffusion(peer.settings)
    return _DIFFUSERS[peer.settings["scheduler"]](peer.settings)


def _named(settings: Settings, **names: str) -> Settings:
    """The settings that are given, under our names for them."""
    return {ours: settings[theirs] for theirs, ours in names.items() if theirs in settings}


# --- k-diffusion --------------------------------------------------------------------------------------------

_ALWAYS = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": 1e9}  # k-diffusion has no limits of churn unless they are given


def _k_diffusion(settings: Settings) -> Ours:
    name, options = settings["function"], settings["options"]
    noise = _named(options, eta="eta", s_noise="s_noise")
    final = {"lower_order_final": False}
    if name in ("euler", "heun", "dpm_2"):
        plain, churned = {"euler": ("euler", "edm-euler"), "heun": ("heun", "edm"), "dpm_2": ("dpm2", "edm-dpm2")}[name]
        return Ours(churned, _ALWAYS | options) if options else Ours(plain)
    if name in ("dpmpp_2m_sde", "dpmpp_3m_sde"):
        return Ours(f"sde-dpmpp-{name[6:8]}", final | noise | _named(options, solver_type="variant"))
    return {
        "lms": lambda: _lms(options["order"]),
        "euler_ancestral": lambda: Ours("euler-a", noise),
        "dpm_2_ancestral": lambda: Ours("dpm2-a", noise),
        "dpmpp_2s_ancestral": lambda: Ours("dpmpp-2s-a", noise),
        "dpmpp_sde": lambda: Ours("dpmpp-sde", noise | _named(options, r="r")),
        "dpmpp_2m": lambda: Ours("dpmpp-2m", final),
        "dpm_fast": lambda: Ours("dpm-fast", {"variant": "paper", "lower_order_final": True}),
    }[name]()


def _lms(order: int) -> Ours:
    return Ours("euler") if order == 1 else Ours(f"lms-{order}")


# --- diffusers ----------------------------------------------------------------------------------------------


def _dpm_multistep(settings: Settings) -> Ours:
    config = settings["config"]
    order, algorithm = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    if order == 1 and not algorithm.startswith("sde"):
        return Ours("dpmpp-1")  # the two predictions have the same first order
    family = {"dpmsolver": "dpm", "dpmsolver++": "dpmpp", "sde-dpmsolver++": "sde-dpmpp"}[algorithm]
    options = {"variant": config.get("solver_type", "midpoint")} | _named(config, lower_order_final="lower_order_final")
    return Ours(f"{family}-1", {}) if order == 1 else Ours(f"{family}-{order}m", options)


def _dpm_singlestep(settings: Settings) -> Ours:
    config = settings["config"]
    order, algorithm = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    if algorithm == "sde-dpmsolver++":
        return Ours("sde-dpmpp-1")
    lower = config.get("final_sigmas_type", "zero") == "zero" or settings["num_inference_steps"] % order > 0
    options = {"order": order, "variant": config.get("solver_type", "midpoint"), "lower_order_final": lower}
    return Ours("dpm-fast" if algorithm == "dpmsolver" else "dpmpp-fast", options)


def _unipc(settings: Settings) -> Ours:
    config = {"solver_order": 2, "lower_order_final": True, "predict_x0": True} | settings["config"]
    same = {name: name for name in ("disable_corrector", "lower_order_final")}
    prediction = {"prediction": "data" if config["predict_x0"] else "noise"}
    return Ours(f"unipc-{config['solver_order']}", _named(config, solver_type="variant", **same) | prediction)


def _deis(settings: Settings) -> Ours:
    config = settings["config"]
    return Ours(f"deis-{config.get('solver_order', 2)}", _named(config, lower_order_final="lower_order_final"))


def _sa_solver(settings: Settings) -> Ours:
    orders = {name: name for name in ("predictor_order", "corrector_order")}
    return Ours("sa", {"variant": "leading"} | _named(settings["config"], **orders))


def _pndm(settings: Settings) -> Ours:
    if settings["config"]["skip_prk_steps"]:
        return Ours("pndm", {"warmup": "multistep"}, timed=True)
    return Ours("pndm", timed=True)


def _flow_euler(settings: Settings) -> Ours:
    return Ours("consistency" if settings["config"].get("stochastic_sampling") else "euler")


_DIFFUSERS: dict[str, Callable[[Settings], Ours]] = {
    "DDPM": lambda s: Ours("ddpm", _named(s["config"], variance_type="variance"), timed=True),
    "DDPMParallel": lambda s: Ours("ddpm", _named(s["config"], variance_type="variance"), timed=True),
    "DDIMParallel": lambda s: Ours("ddim", _named(s["options"], eta="eta"), timed=True),
    "DDIM": lambda s: Ours("ddim", _named(s["options"], eta="eta"), timed=True),
    "CogVideoXDDIM": lambda _: Ours("ddim", timed=True),
    "DDIMInverse": lambda _: Ours("ddim", reverse=True),
    "PNDM": _pndm,
    "IPNDM": lambda _: Ours("ipndm-4"),
    "EulerDiscrete": lambda _: Ours("euler"),
    "EulerAncestralDiscrete": lambda _: Ours("euler-a"),
    "HeunDiscrete": lambda _: Ours("heun", stages=2),
    "KDPM2Discrete": lambda _: Ours("dpm2", stages=2),
    "KDPM2AncestralDiscrete": lambda _: Ours("dpm2-a", stages=2),
    "DPMSolverSDE": lambda _: Ours("dpmpp-sde", stages=2),
    "LMSDiscrete": lambda s: _lms(s["options"].get("order", 4)),
    "EDMEuler": lambda _: Ours("euler"),
    "EDMDPMSolverMultistep": _dpm_multistep,
    "CosineDPMSolverMultistep": lambda s: _dpm_multistep(
        s | {"config": s["config"] | {"algorithm_type": "sde-dpmsolver++"}}
    ),
    "DPMSolverMultistep": _dpm_multistep,
    "DPMSolverMultistepInverse": lambda s: replace(_dpm_multistep(s), reverse=True),
    "DPMSolverSinglestep": _dpm_singlestep,
    "UniPCMultistep": _unipc,
    "DEISMultistep": _deis,
    "SASolver": _sa_solver,
    "LCM": lambda _: Ours("lcm", timed=True),
    "TCD": lambda s: Ours("tcd", _named(s["options"], eta="eta"), timed=True),
    "CMStochasticIterative": lambda _: Ours("consistency", {"sigma_min": 0.002}),
    "FlowMatchEulerDiscrete": _flow_euler,
    "FlowMatchHeunDiscrete": lambda _: Ours("heun", stages=2),
    "FlowMatchLCM": lambda _: Ours("consistency"),
}


# --- the plan over the peer's own grid ----------------------------------------------------------------------


def plan_for(peer: Peer, ours: Ours, table: Response) -> Plan:
    """Our plan at the times (or levels) that the peer used."""
    schedule, options = _schedule(peer, table), dict(ours.options)
    if ours.sampler == "sa":
        options |= _tau(peer, table)
    if ours.timed:
        times = _told_times(peer, table, schedule)
        return fs.compile(ours.sampler, schedule=schedule, times=times, **options)
    if peer.settings.get("function", "dpm_fast") != "dpm_fast":
        return fs.compile(ours.sampler, schedule=schedule, sigmas=peer.settings["sigmas"], **options)
    levels = np.vstack([table.levels[:-1][:: ours.stages], table.end])
    with np.errstate(divide="ignore"):
        sigmas = levels[:, 1] / (levels[:, 0] if peer.coordinates == "vp" else 1.0)
    if sigmas[-1] == sigmas[-2]:
        sigmas[-2 if ours.reverse else -1] *= 1 - STILL
    if ours.reverse:
        return fs.compile(ours.sampler, schedule=schedule, sigmas=sigmas[::-1], reverse=True, **options)
    return fs.compile(ours.sampler, schedule=schedule, sigmas=sigmas, **options)


def _schedule(peer: Peer, table: Response) -> Schedule:
    if peer.coordinates == "flow":
        return fs.schedules.flow()
    if peer.coordinates == "ve":
        return fs.schedules.edm(sigma_max=1000.0)
    if peer.settings["scheduler"] == "IPNDM":  # it has no table of alphas: its grid is its schedule
        return fs.schedules.from_alphas_cumprod(np.unique(table.alphas**2)[::-1])
    return fs.schedules.from_alphas_cumprod(alphas_cumprod(peer))


def _told_times(peer: Peer, table: Response, schedule: Schedule) -> list[float]:
    """One time a step, and the end. PNDM evaluates the second time twice, or makes three steps of four evaluations."""
    told = [float(t) for t in table.times]
    if peer.settings["scheduler"] == "PNDM":
        told = told[:2] + told[3:] if peer.settings["config"]["skip_prk_steps"] else told[:12:4] + told[12:]
    alpha, sigma = table.end
    end = schedule.t_clean if sigma == 0 else round(float(schedule.time_of_sigma(sigma / alpha)))
    return [*told, end - STILL if end == told[-1] else end]


def _tau(peer: Peer, table: Response) -> Settings:
    """The interval of ratios in which our SA-Solver is to be noisy, from the peer's function of the told time."""
    strength = peer.settings["config"].get("tau_func", lambda t: float(200 <= t <= 800))
    moves = np.any(np.diff(table.levels, axis=0), axis=1)
    taus = np.array([strength(t) for t in table.times])
    noisy = (table.sigmas / table.alphas)[moves & (taus > 0)]
    if not noisy.size:
        return {"tau": 0.0}
    return {"tau": taus.max(), "tau_min": noisy.min() * (1 - 1e-5), "tau_max": noisy.max() * (1 + 1e-5)}
