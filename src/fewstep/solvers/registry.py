"""The samplers by their usual names: data only, so that listing them loads no solver and no torch.

A sampler is a solver function with options. `order` is the order of convergence of the method in the probability-flow
ODE (for stochastic samplers, in the deterministic limit); `evaluations` is per step of the grid once the sampler has
warmed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Sampler(NamedTuple):
    """One row of the table that `fewstep samplers` prints."""

    solver: str  # module:function inside fewstep.solvers
    options: Mapping[str, Any]
    order: int
    evaluations: int
    stochastic: bool
    source: str
    summary: str
    defaults: Mapping[str, Any] = MappingProxyType({})  # of options that a caller may give, where not the solver's own


DDPM = "Ho et al. 2020, arXiv 2006.11239"
DDIM = "Song et al. 2020, arXiv 2010.02502"
EDM = "Karras et al. 2022, arXiv 2206.00364"
DPM = "Lu et al. 2022, arXiv 2206.00927"
RK = "Hairer, Norsett, Wanner 1993, Solving Ordinary Differential Equations I, II.1"
DPMPP = "Lu et al. 2022, arXiv 2211.01095"
LMS = "Crowson 2022, k-diffusion; also arXiv 2204.13902, rho-AB"
DEIS = "Zhang & Chen 2022, arXiv 2204.13902"
PNDM = "Liu et al. 2022, arXiv 2202.09778"
UNIPC = "Zhao et al. 2023, arXiv 2302.04867"
RESTART = "Xu et al. 2023, arXiv 2306.14878"
SA = "Xue et al. 2023, arXiv 2309.05019"
CM = "Song et al. 2023, arXiv 2303.01469"
LCM = "Luo et al. 2023, arXiv 2310.04378"
TCD = "Zheng et al. 2024, arXiv 2402.19159"

RHO = {"variable": "rho", "lower_order_final": False}  # of k-diffusion's LMS: full order up to clean data

# fmt: off
SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler("ddim:ddpm", {}, 1, 1, True, DDPM, "ancestral sampling of the forward process's posterior"),
    "ddim": Sampler("ddim:ddim", {}, 1, 1, False, DDIM, "keeps the predicted data and noise; eta adds noise"),
    "euler": Sampler("stochastic:euler_ancestral", {"eta": 0.0, "s_noise": 1.0}, 1, 1, False, EDM, "Euler's method; the same table as DDIM"),
    "heun": Sampler("rungekutta:runge_kutta", {"tableau": "heun"}, 2, 2, False, EDM, "Heun's method"),
    "midpoint": Sampler("rungekutta:runge_kutta", {"tableau": "midpoint"}, 2, 2, False, RK, "explicit midpoint"),
    "ralston": Sampler("rungekutta:runge_kutta", {"tableau": "ralston"}, 2, 2, False, RK, "Ralston's second-order method"),
    "rk3": Sampler("rungekutta:runge_kutta", {"tableau": "rk3"}, 3, 3, False, RK, "Heun's third-order method"),
    "rk4": Sampler("rungekutta:runge_kutta", {"tableau": "rk4"}, 4, 4, False, RK, "the classical fourth-order method"),
    "dpm2": Sampler("exponential:singlestep", {"order": 2, "prediction": "noise", "r1": 0.5, "r2": 2 / 3}, 2, 2, False, EDM, "midpoint at the geometric mean of sigma (k-diffusion)"),
    "dpm-2s": Sampler("exponential:singlestep", {"order": 2, "prediction": "noise"}, 2, 2, False, DPM, "DPM-Solver-2"),
    "dpm-3s": Sampler("exponential:singlestep", {"order": 3, "prediction": "noise"}, 3, 3, False, DPM, "DPM-Solver-3"),
    "dpm-2m": Sampler("exponential:multistep", {"order": 2, "prediction": "noise"}, 2, 1, False, DPM, "multistep DPM-Solver"),
    "dpm-3m": Sampler("exponential:multistep", {"order": 3, "prediction": "noise"}, 2, 1, False, DPM, "multistep DPM-Solver as published; curvature='exact' makes it order 3"),
    "dpmpp-1": Sampler("exponential:multistep", {"order": 1}, 1, 1, False, DPMPP, "DPM-Solver++ of order 1, equal to DDIM"),
    "dpmpp-2m": Sampler("exponential:multistep", {"order": 2}, 2, 1, False, DPMPP, "DPM-Solver++(2M)"),
    "dpmpp-3m": Sampler("exponential:multistep", {"order": 3}, 2, 1, False, DPMPP, "DPM-Solver++(3M) as published; curvature='exact' makes it order 3"),
    "dpmpp-2s": Sampler("exponential:singlestep", {"order": 2}, 2, 2, False, DPMPP, "DPM-Solver++(2S)"),
    "dpmpp-3s": Sampler("exponential:singlestep", {"order": 3}, 3, 3, False, DPMPP, "DPM-Solver++(3S)"),
    "dpm-fast": Sampler("exponential:grouped", {"prediction": "noise"}, 3, 1, False, DPM, "singlesteps over groups of grid times"),
    "dpmpp-fast": Sampler("exponential:grouped", {}, 3, 1, False, DPMPP, "singlesteps over groups of grid times"),
    "belm": Sampler("invertible:belm", {}, 2, 1, False, "Wang et al. 2024, arXiv 2410.07273", "two-step and exactly invertible"),
    **{f"lms-{n}": Sampler("adams:deis", {"order": n, **RHO}, n, 1, False, LMS, "the noise a polynomial of sigma") for n in (2, 3, 4)},
    **{f"deis-{n}": Sampler("adams:deis", {"order": n}, n, 1, False, DEIS, "the noise a polynomial of lambda") for n in (1, 2, 3, 4)},
    **{f"ipndm-{n}": Sampler("adams:ipndm", {"order": n}, min(n, 2), 1, False, DEIS, "the weights of even steps") for n in (1, 2, 3, 4)},
    "pndm": Sampler("adams:pndm", {}, 2, 1, False, PNDM, "three Runge-Kutta steps, then ipndm-4"),
    **{f"unipc-{n}": Sampler("unipc:unipc", {"order": n}, n + 1, 1, False, UNIPC, f"UniPC of order {n}") for n in (1, 2, 3, 4)},
    "unipc": Sampler("unipc:unipc", {"order": "auto"}, 4, 1, False, UNIPC, "UniPC, its order by the steps"),
    "euler-a": Sampler("stochastic:euler_ancestral", {}, 1, 1, True, DDIM, "Euler down, then noise"),
    "dpm2-a": Sampler("stochastic:two_stage_ancestral", {"prediction": "noise"}, 2, 2, True, EDM, "DPM-2 down, then noise"),
    "dpmpp-2s-a": Sampler("stochastic:two_stage_ancestral", {"prediction": "data"}, 2, 2, True, DPMPP, "DPM-Solver++(2S) down, then noise"),
    "dpmpp-sde": Sampler("stochastic:dpmpp_sde", {}, 2, 2, True, DPMPP, "singlestep with one Brownian motion (k-diffusion)"),
    "sde-dpmpp-1": Sampler("exponential:multistep", {"order": 1, "prediction": "data"}, 1, 1, True, DPMPP, "SDE-DPM-Solver++(1)", {"eta": 1.0}),
    "sde-dpmpp-2m": Sampler("exponential:multistep", {"order": 2, "prediction": "data"}, 2, 1, True, DPMPP, "SDE-DPM-Solver++(2M)", {"eta": 1.0}),
    "sde-dpmpp-3m": Sampler("exponential:multistep", {"order": 3, "prediction": "data"}, 2, 1, True, DPMPP, "SDE-DPM-Solver++(3M) as published; curvature='exact' makes it order 3", {"eta": 1.0, "variant": "heun"}),
    "edm": Sampler("edm:edm", {"method": "heun"}, 2, 2, True, EDM, "Heun with churn: s_churn, s_tmin, s_tmax"),
    "edm-euler": Sampler("edm:edm", {"method": "euler"}, 1, 1, True, EDM, "Euler with churn"),
    "edm-dpm2": Sampler("edm:edm", {"method": "dpm2"}, 2, 2, True, EDM, "DPM-2 with churn (k-diffusion)"),
    "restart": Sampler("edm:restart", {}, 2, 2, True, RESTART, "Heun that goes back up to noise and down again"),
    "sa": Sampler("sa:sa_solver", {}, 2, 1, True, SA, "SA-Solver: stochastic Adams, predictor and corrector"),
    "consistency": Sampler("consistency:consistency", {}, 1, 1, True, CM, "data, then all noise anew"),
    "lcm": Sampler("consistency:lcm", {}, 1, 1, True, LCM, "consistency with LCM's boundary scalings"),
    "tcd": Sampler("consistency:tcd", {}, 1, 1, True, TCD, "DDIM to below, then noise: strategic"),
}
# fmt: on
