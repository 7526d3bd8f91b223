"""The samplers by their usual names: data only, so that listing them loads no solver and no torch.

A sampler is a solver function with options. `order` is the order of convergence of the method in the probability-flow
ODE (for stochastic samplers, in the deterministic limit); `evaluations` is per step of the grid once the sampler has
warmed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

EMPTY: Mapping[str, Any] = MappingProxyType({})


class Sampler(NamedTuple):
    """A row of the table that `fewstep samplers` prints.

    `solver` is module:function inside fewstep.solvers, and `options` fix what makes it this sampler. `defaults` are the
    values of other options, where they are not the solver's own.
    """

    solver: str
    source: str
    summary: str
    order: int
    evaluations: int = 1
    stochastic: bool = False
    options: Mapping[str, Any] = EMPTY
    defaults: Mapping[str, Any] = EMPTY


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
BELM = "Wang et al. 2024, arXiv 2410.07273"
RESTART = "Xu et al. 2023, arXiv 2306.14878"
SA = "Xue et al. 2023, arXiv 2309.05019"
CM = "Song et al. 2023, arXiv 2303.01469"
LCM = "Luo et al. 2023, arXiv 2310.04378"
TCD = "Zheng et al. 2024, arXiv 2402.19159"

RUNGE_KUTTA = "rungekutta:runge_kutta"
SINGLESTEP = "exponential:singlestep"
MULTISTEP = "exponential:multistep"

RHO = {"variable": "rho", "lower_order_final": False}  # of k-diffusion's LMS: full order up to clean data

SAMPLERS: dict[str, Sampler] = {
    # DDPM, DDIM and Euler
    "ddpm": Sampler(
        "ddim:ddpm", DDPM, "ancestral sampling of the forward process's posterior", order=1, stochastic=True
    ),
    "ddim": Sampler("ddim:ddim", DDIM, "keeps the predicted data and noise; eta adds noise", order=1),
    "euler": Sampler(
        "stochastic:euler_ancestral",
        EDM,
        "Euler's method; the same table as DDIM",
        order=1,
        options={"eta": 0.0, "s_noise": 1.0},
    ),
    # Runge-Kutta methods
    "heun": Sampler(RUNGE_KUTTA, EDM, "Heun's method", order=2, evaluations=2, options={"tableau": "heun"}),
    "midpoint": Sampler(RUNGE_KUTTA, RK, "explicit midpoint", order=2, evaluations=2, options={"tableau": "midpoint"}),
    "ralston": Sampler(
        RUNGE_KUTTA, RK, "Ralston's second-order method", order=2, evaluations=2, options={"tableau": "ralston"}
    ),
    "rk3": Sampler(RUNGE_KUTTA, RK, "Heun's third-order method", order=3, evaluations=3, options={"tableau": "rk3"}),
    "rk4": Sampler(
        RUNGE_KUTTA, RK, "the classical fourth-order method", order=4, evaluations=4, options={"tableau": "rk4"}
    ),
    # exponential integrators: DPM-Solver and DPM-Solver++
    "dpm2": Sampler(
        SINGLESTEP,
        EDM,
        "midpoint at the geometric mean of sigma (k-diffusion)",
        order=2,
        evaluations=2,
        options={"order": 2, "prediction": "noise", "r1": 0.5, "r2": 2 / 3},
    ),
    "dpm-2s": Sampler(
        SINGLESTEP, DPM, "DPM-Solver-2", order=2, evaluations=2, options={"order": 2, "prediction": "noise"}
    ),
    "dpm-3s": Sampler(
        SINGLESTEP, DPM, "DPM-Solver-3", order=3, evaluations=3, options={"order": 3, "prediction": "noise"}
    ),
    "dpm-2m": Sampler(MULTISTEP, DPM, "multistep DPM-Solver", order=2, options={"order": 2, "prediction": "noise"}),
    "dpm-3m": Sampler(
        MULTISTEP,
        DPM,
        "multistep DPM-Solver as published; curvature='exact' makes it order 3",
        order=2,
        options={"order": 3, "prediction": "noise"},
    ),
    "dpmpp-1": Sampler(MULTISTEP, DPMPP, "DPM-Solver++ of order 1, equal to DDIM", order=1, options={"order": 1}),
    "dpmpp-2m": Sampler(MULTISTEP, DPMPP, "DPM-Solver++(2M)", order=2, options={"order": 2}),
    "dpmpp-3m": Sampler(
        MULTISTEP,
        DPMPP,
        "DPM-Solver++(3M) as published; curvature='exact' makes it order 3",
        order=2,
        options={"order": 3},
    ),
    "dpmpp-2s": Sampler(SINGLESTEP, DPMPP, "DPM-Solver++(2S)", order=2, evaluations=2, options={"order": 2}),
    "dpmpp-3s": Sampler(SINGLESTEP, DPMPP, "DPM-Solver++(3S)", order=3, evaluations=3, options={"order": 3}),
    "dpm-fast": Sampler(
        "exponential:grouped", DPM, "singlesteps over groups of grid times", order=3, options={"prediction": "noise"}
    ),
    "dpmpp-fast": Sampler("exponential:grouped", DPMPP, "singlesteps over groups of grid times", order=3),
    # invertible
    "belm": Sampler("invertible:belm", BELM, "two-step and exactly invertible", order=2),
    # Adams methods on the noise
    **{
        f"lms-{n}": Sampler("adams:deis", LMS, "the noise a polynomial of sigma", order=n, options={"order": n, **RHO})
        for n in (2, 3, 4)
    },
    **{
        f"deis-{n}": Sampler("adams:deis", DEIS, "the noise a polynomial of lambda", order=n, options={"order": n})
        for n in (1, 2, 3, 4)
    },
    **{
        f"ipndm-{n}": Sampler("adams:ipndm", DEIS, "the weights of even steps", order=min(n, 2), options={"order": n})
        for n in (1, 2, 3, 4)
    },
    "pndm": Sampler("adams:pndm", PNDM, "three Runge-Kutta steps, then ipndm-4", order=2),
    # UniPC
    **{
        f"unipc-{n}": Sampler("unipc:unipc", UNIPC, f"UniPC of order {n}", order=n + 1, options={"order": n})
        for n in (1, 2, 3, 4)
    },
    "unipc": Sampler("unipc:unipc", UNIPC, "UniPC, its order by the steps", order=4, options={"order": "auto"}),
    # reverse diffusion: ancestral samplers and SDE-DPM-Solver++
    "euler-a": Sampler("stochastic:euler_ancestral", DDIM, "Euler down, then noise", order=1, stochastic=True),
    "dpm2-a": Sampler(
        "stochastic:two_stage_ancestral",
        EDM,
        "DPM-2 down, then noise",
        order=2,
        evaluations=2,
        stochastic=True,
        options={"prediction": "noise"},
    ),
    "dpmpp-2s-a": Sampler(
        "stochastic:two_stage_ancestral",
        DPMPP,
        "DPM-Solver++(2S) down, then noise",
        order=2,
        evaluations=2,
        stochastic=True,
        options={"prediction": "data"},
    ),
    "dpmpp-sde": Sampler(
        "stochastic:dpmpp_sde",
        DPMPP,
        "singlestep with one Brownian motion (k-diffusion)",
        order=2,
        evaluations=2,
        stochastic=True,
    ),
    "sde-dpmpp-1": Sampler(
        MULTISTEP,
        DPMPP,
        "SDE-DPM-Solver++(1)",
        order=1,
        stochastic=True,
        options={"order": 1, "prediction": "data"},
        defaults={"eta": 1.0},
    ),
    "sde-dpmpp-2m": Sampler(
        MULTISTEP,
        DPMPP,
        "SDE-DPM-Solver++(2M)",
        order=2,
        stochastic=True,
        options={"order": 2, "prediction": "data"},
        defaults={"eta": 1.0},
    ),
    "sde-dpmpp-3m": Sampler(
        MULTISTEP,
        DPMPP,
        "SDE-DPM-Solver++(3M) as published; curvature='exact' makes it order 3",
        order=2,
        stochastic=True,
        options={"order": 3, "prediction": "data"},
        defaults={"eta": 1.0, "variant": "heun"},
    ),
    # back up in noise between steps
    "edm": Sampler(
        "edm:edm",
        EDM,
        "Heun with churn: s_churn, s_tmin, s_tmax",
        order=2,
        evaluations=2,
        stochastic=True,
        options={"method": "heun"},
    ),
    "edm-euler": Sampler("edm:edm", EDM, "Euler with churn", order=1, stochastic=True, options={"method": "euler"}),
    "edm-dpm2": Sampler(
        "edm:edm",
        EDM,
        "DPM-2 with churn (k-diffusion)",
        order=2,
        evaluations=2,
        stochastic=True,
        options={"method": "dpm2"},
    ),
    "restart": Sampler(
        "edm:restart",
        RESTART,
        "Heun that goes back up to noise and down again",
        order=2,
        evaluations=2,
        stochastic=True,
    ),
    # stochastic Adams methods
    "sa": Sampler("sa:sa_solver", SA, "SA-Solver: stochastic Adams, predictor and corrector", order=2, stochastic=True),
    # distilled students
    "consistency": Sampler("consistency:consistency", CM, "data, then all noise anew", order=1, stochastic=True),
    "lcm": Sampler("consistency:lcm", LCM, "consistency with LCM's boundary scalings", order=1, stochastic=True),
    "tcd": Sampler("consistency:tcd", TCD, "DDIM to below, then noise: strategic", order=1, stochastic=True),
}
