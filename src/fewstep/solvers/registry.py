"""The samplers by their usual names: data only, so that listing them loads no solver and no torch.

A sampler is a solver function with options. `order` is the order of convergence of the method in the probability-flow ODE (for
stochastic samplers, in the deterministic limit); `evaluations` is per step of the grid once the sampler has warmed up.
"""

from __future__ import annotations

from collections.abc import Mapping
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


DDPM = "Ho et al. 2020, arXiv 2006.11239"
DDIM = "Song et al. 2020, arXiv 2010.02502"
EDM = "Karras et al. 2022, arXiv 2206.00364"
DPM = "Lu et al. 2022, arXiv 2206.00927"
DPMPP = "Lu et al. 2022, arXiv 2211.01095"

SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(
        "ddim:ddpm", {}, 1, 1, True, DDPM, "ancestral sampling of the forward process's posterior"
    ),
    "ddim": Sampler("ddim:ddim", {}, 1, 1, False, DDIM, "keeps the predicted data and noise; eta adds noise"),
    "dpm-2s": Sampler(
        "exponential:singlestep", {"order": 2, "prediction": "noise"}, 2, 2, False, DPM, "DPM-Solver-2"
    ),
    "dpm-3s": Sampler(
        "exponential:singlestep", {"order": 3, "prediction": "noise"}, 3, 3, False, DPM, "DPM-Solver-3"
    ),
    "dpm-2m": Sampler(
        "exponential:multistep", {"order": 2, "prediction": "noise"}, 2, 1, False, DPM, "multistep DPM-Solver"
    ),
    "dpm-3m": Sampler(
        "exponential:multistep", {"order": 3, "prediction": "noise"}, 3, 1, False, DPM, "multistep DPM-Solver"
    ),
    "dpmpp-1": Sampler(
        "exponential:multistep", {"order": 1}, 1, 1, False, DPMPP, "DPM-Solver++ of order 1, equal to DDIM"
    ),
    "dpmpp-2m": Sampler("exponential:multistep", {"order": 2}, 2, 1, False, DPMPP, "DPM-Solver++(2M)"),
    "dpmpp-3m": Sampler("exponential:multistep", {"order": 3}, 3, 1, False, DPMPP, "DPM-Solver++(3M)"),
    "dpmpp-2s": Sampler("exponential:singlestep", {"order": 2}, 2, 2, False, DPMPP, "DPM-Solver++(2S)"),
    "dpmpp-3s": Sampler("exponential:singlestep", {"order": 3}, 3, 3, False, DPMPP, "DPM-Solver++(3S)"),
}
