"""Which sampler of ours, with which options and over which grid, is a given peer.

`match` answers for one peer: the plan that ought to have the same table, or the reason why there is none. The grid is the
peer's own, taken verbatim from its response, so what is compared are samplers and not grids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fewstep as fs
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule

from .diffusers_peer import alphas_cumprod
from .peers import Peer, Response

Settings = dict[str, Any]


@dataclass(frozen=True)
class Ours:
    """A sampler of ours; `stages` is how many evaluations of the peer make a step, `timed` asks for its told times."""

    sampler: str
    options: Settings = field(default_factory=dict)
    stages: int = 1
    timed: bool = False
    reverse: bool = False


MULTI = {1: "dpmpp-1", 2: "dpmpp-2m", 3: "dpmpp-3m"}
NOISE = {1: "dpmpp-1", 2: "dpm-2m", 3: "dpm-3m"}
SDE = {1: "sde-dpmpp-1", 2: "sde-dpmpp-2m", 3: "sde-dpmpp-3m"}


def _picked(settings: Settings, **names: str) -> Settings:
    """The settings that are given, under our names for them."""
    return {ours: settings[theirs] for theirs, ours in names.items() if theirs in settings}


def _lms(order: int) -> Ours:
    return Ours("euler") if order == 1 else Ours(f"lms-{order}")


# --- k-diffusion --------------------------------------------------------------------------------------------


def _k(peer: Peer) -> Ours:
    name, options = peer.settings["function"], peer.settings["options"]
    churned = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": float(np.finfo(float).max)} | options
    noise = _picked(options, eta="eta", s_noise="s_noise")
    if name in ("euler", "heun", "dpm_2"):
        stages = 1 if name == "euler" else 2
        if not options:
            return Ours({"dpm_2": "dpm2"}.get(name, name), stages=stages)
        return Ours({"euler": "edm-euler", "heun": "edm", "dpm_2": "edm-dpm2"}[name], churned, stages)
    if name == "lms":
        return _lms(options["order"])
    if name == "dpmpp_2m":
        return Ours("dpmpp-2m", {"lower_order_final": False})
    if name.startswith("dpmpp_") and name.endswith("m_sde"):
        kind = _picked(options, solver_type="variant")
        return Ours(f"sde-dpmpp-{name[6:8]}", {"lower_order_final": False} | noise | kind)
    if name == "dpm_fast":
        return Ours("dpm-fast", {"order": 3, "variant": "paper"})
    ours = {
        "euler_ancestral": Ours("euler-a", noise),
        "dpm_2_ancestral": Ours("dpm2-a", noise, 2),
        "dpmpp_2s_ancestral": Ours("dpmpp-2s-a", noise, 2),
        "dpmpp_sde": Ours("dpmpp-sde", noise | _picked(options, r="r"), 2),
    }
    return ours[name]


# --- diffusers ----------------------------------------------------------------------------------------------


def _dpm_solver(settings: Settings) -> Ours:
    config = settings["config"]
    order, algorithm = config.get("solver_order", 2), config.get("algorithm_type", "dpmsolver++")
    falls = {} if config.get("lower_order_final", True) else {"lower_order_final": False}
    variant = {} if order == 1 else {"variant": config.get("solver_type", "midpoint")}
    if algorithm == "sde-dpmsolver++":
        return Ours(SDE[order], variant | falls)
    names = MULTI if algorithm == "dpmsolver++" else NOISE
    return Ours(names[order], variant | falls)


def _singlestep(settings: Settings) -> Ours:
    config = settings["config"]
    ours = "dpm-fast" if config.get("algorithm_type") == "dpmsolver" else "dpmpp-fast"
    lower = config.get("final_sigmas_type", "zero") == "zero"
    variant = {"variant": config.get("solver_type", "midpoint")}
    return Ours(ours, {"order": config.get("solver_order", 2), "lower_order_final": lower} | variant)


def _unipc(settings: Settings) -> Ours:
    config = settings["config"]
    names = _picked(config, solver_type="variant", disable_corrector="disable_corrector")
    names["lower_order_final"] = config.get("lower_order_final", True)
    names["prediction"] = "data" if config.get("predict_x0", True) else "noise"
    return Ours(f"unipc-{config.get('solver_order', 2)}", names)


def _deis(settings: Settings) -> Ours:
    config = settings["config"]
    falls = {} if config.get("lower_order_final", True) else {"lower_order_final": False}
    return Ours(f"deis-{config.get('solver_order', 2)}", falls)


def _sa(settings: Settings) -> Ours:
    config = settings["config"]
    return Ours(
        "sa",
        {"variant": "leading"} | _picked(config, predictor_order="predictor_order", corrector_order="corrector_order"),
    )


def _lms_diffusers(settings: Settings) -> Ours:
    return _lms(settings["options"].get("order", 4))


def _flow_euler(settings: Settings) -> Ours:
    return Ours("consistency" if settings["config"].get("stochastic_sampling") else "euler")


DIFFUSERS: dict[str, Callable[[Settings], Ours]] = {
    "DDPM": lambda s: Ours("ddpm", _picked(s["config"], variance_type="variance"), timed=True),
    "DDIM": lambda s: Ours("ddim", _picked(s["options"], eta="eta"), timed=True),
    "DDIMInverse": lambda _: Ours("ddim", reverse=True),
    "PNDM": lambda s: Ours("pndm", {"warmup": "multistep"} if s["config"]["skip_prk_steps"] else {}, timed=True),
    "IPNDM": lambda _: Ours("ipndm-4"),
    "EulerDiscrete": lambda _: Ours("euler"),
    "EulerAncestralDiscrete": lambda _: Ours("euler-a"),
    "HeunDiscrete": lambda _: Ours("heun", stages=2),
    "KDPM2Discrete": lambda _: Ours("dpm2", stages=2),
    "KDPM2AncestralDiscrete": lambda _: Ours("dpm2-a", stages=2),
    "DPMSolverSDE": lambda _: Ours("dpmpp-sde", stages=2),
    "LMSDiscrete": _lms_diffusers,
    "EDMEuler": lambda _: Ours("euler"),
    "EDMDPMSolverMultistep": _dpm_solver,
    "DPMSolverMultistep": _dpm_solver,
    "DPMSolverSinglestep": _singlestep,
    "UniPCMultistep": _unipc,
    "DEISMultistep": _deis,
    "SASolver": _sa,
    "LCM": lambda _: Ours("lcm", timed=True),
    "TCD": lambda s: Ours("tcd", _picked(s["options"], eta="eta"), timed=True),
    "CMStochasticIterative": lambda _: Ours("consistency", {"sigma_min": 0.002}),
    "FlowMatchEulerDiscrete": _flow_euler,
    "FlowMatchHeunDiscrete": lambda _: Ours("heun", stages=2),
    "FlowMatchLCM": lambda _: Ours("consistency"),
}


def ours_for(peer: Peer) -> Ours:
    """The sampler of ours that `peer` ought to be."""
    if "function" in peer.settings:
        return _k(peer)
    return DIFFUSERS[peer.settings["scheduler"]](peer.settings)


# --- its plan over the peer's own grid ----------------------------------------------------------------------


def schedule_of(peer: Peer, table: Response) -> Schedule:
    """The noise schedule of a peer: its own table of alphas where it has one."""
    if peer.coordinates == "flow":
        return fs.schedules.flow()
    if peer.coordinates == "ve":
        return fs.schedules.edm(sigma_max=1000.0)
    if peer.settings["scheduler"] == "IPNDM":
        return fs.schedules.from_alphas_cumprod(np.sort(table.alphas[table.alphas > 0] ** 2)[::-1])
    return fs.schedules.from_alphas_cumprod(alphas_cumprod(peer))


def tau_window(peer: Peer, table: Response) -> Settings:
    """The options of our SA-Solver that switch its noise on where the peer's function of the told time does."""

    def standard(t):
        return float(200 <= t <= 800)

    tau = peer.settings["config"].get("tau_func", standard)
    strength = np.array([tau(t) for t in table.times])
    ratio = (table.sigmas / table.alphas)[strength > 0]
    if not ratio.size:
        return {"tau": 0.0}
    return {"tau": strength.max(), "tau_min": ratio.min() * (1 - 1e-9), "tau_max": ratio.max() * (1 + 1e-9)}


def plan_for(peer: Peer, table: Response) -> Plan:
    ours = ours_for(peer)
    schedule = schedule_of(peer, table)
    options = dict(ours.options)
    if ours.sampler == "sa":
        options |= tau_window(peer, table)
    levels = np.vstack([table.levels[:-1][:: ours.stages], table.end])
    if "sigmas" in peer.settings and "function" in peer.settings and peer.settings["function"] != "dpm_fast":
        grid = np.array(peer.settings["sigmas"])
    elif ours.timed:
        end = -1.0 if table.end[1] == 0 else float(np.round(schedule.time_of_sigma(table.end[1] / table.end[0])))
        times = list(table.times) + [end]
        keep = [i for i in range(len(times)) if i == 0 or times[i] != times[i - 1]]
        return fs.compile(ours.sampler, schedule=schedule, times=[times[i] for i in keep], **options)
    else:
        grid = levels[:, 1] / (levels[:, 0] if peer.coordinates == "vp" else 1)
    if ours.reverse:
        return fs.compile(ours.sampler, schedule=schedule, sigmas=[*np.unique(grid)[::-1], 0], reverse=True, **options)
    if grid[-1] == grid[-2]:
        grid[-1] *= 1 - 1e-11
    return fs.compile(ours.sampler, schedule=schedule, sigmas=grid, **options)
