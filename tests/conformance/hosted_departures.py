"""Where a `PlanScheduler` and the scheduler that it is made from draw different pictures, or ours refuses, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .hosted import Outcome


@dataclass(frozen=True)
class Named:
    """A set of outcomes; `refused` where ours says no, else where the two draw differently."""

    name: str
    applies: Callable[[str, dict[str, Any], Outcome], bool]
    reason: str
    refused: bool = False


def _strided(name: str, config: dict[str, Any], found: Outcome) -> bool:
    spacing = config.get("timestep_spacing")
    uneven = found.steps is not None and config.get("num_train_timesteps", 1000) % found.steps
    strides = name in ("DDIM", "DDIMParallel", "CogVideoXDDIM", "PNDM")
    return strides and (spacing == "linspace" or (spacing == "trailing" and bool(uneven)))


def _wide(name: str, config: dict[str, Any], found: Outcome) -> bool:
    two_stages = name in ("HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete")
    return two_stages and config.get("beta_schedule") == "squaredcos_cap_v2" and (found.steps or 0) < 50


NAMED = (
    Named(
        "DDIM, CogVideoXDDIM and PNDM: `timestep_spacing='linspace'`, and `'trailing'` where the steps do not divide",
        _strided,
        "The constant stride named above: fewstep steps to the next time of the grid.",
    ),
    Named(
        "PNDM with `prediction_type='v_prediction'`",
        lambda name, config, _: name == "PNDM" and config.get("prediction_type") == "v_prediction",
        "The scheduler combines outputs of several levels, and turns the sum into noise as if all of it were of the "
        "last level. That holds for `epsilon` only. fewstep turns each output into noise where it was made (0.36 "
        "away at 5 steps).",
    ),
    Named(
        "PNDM where half a stride is not a whole number",
        lambda name, config, found: (
            name == "PNDM" and config.get("num_train_timesteps", 1000) // (found.steps or 1) % 2 == 1
        ),
        "The inner times of its Runge-Kutta steps are rounded down to whole numbers; fewstep's lie in the middle "
        "(7e-5 away at 14 steps).",
    ),
    Named(
        "EulerDiscrete, EulerAncestralDiscrete, DPMSolverMultistep and UniPCMultistep with `rescale_betas_zero_snr`",
        lambda _, config, __: bool(config.get("rescale_betas_zero_snr")),
        "They put alpha = 2^-12 for 0 at the last time, so that sigma / alpha stays finite; DDIM, which has no such "
        "ratio, and fewstep take 0 itself, as the method says (2e-4 away, with the first steps of UniPC up to "
        "2e-2).",
    ),
    Named(
        "HeunDiscrete, KDPM2Discrete and KDPM2AncestralDiscrete on the cosine schedule below 50 steps",
        _wide,
        "The first step spans sigma from 20291 to 31 and more. Its second evaluation would be weighted by over "
        "1000, and an error of the network with it. fewstep makes such a step with one evaluation.",
    ),
    Named(
        "DPMSolverMultistep, `sde-dpmsolver++` of order 3",
        lambda name, config, _: (
            name == "DPMSolverMultistep"
            and (config.get("algorithm_type"), config.get("solver_order")) == ("sde-dpmsolver++", 3)
        ),
        "The wrong sign named above.",
    ),
    Named(
        "DEISMultistep and SASolver with flow sigmas",
        lambda name, config, _: name in ("DEISMultistep", "SASolver") and bool(config.get("use_flow_sigmas")),
        "They repeat the last sigma, so a run ends with that much noise in the picture (sigma 0.14 at 20 steps and "
        "shift 3). fewstep goes on to clean data.",
    ),
    Named(
        "CogVideoXDDIM with `eta`",
        lambda name, _, found: name == "CogVideoXDDIM" and found.case.call.get("eta", 0) > 0,
        "The class takes the argument, and draws no noise. fewstep's `ddim` does as DDIM says.",
    ),
    Named(
        "TCD where `(1 - eta) t` is a whole number",
        lambda name, _, found: name == "TCD" and "original_inference_steps" in found.case.grid,
        "The product is rounded down: 0.7 times 70 is a little less than 49 in float64, and 49 in float32. fewstep "
        "takes the whole number.",
    ),
    Named(
        "DDPM with `variance_type` 'learned' and 'learned_range'",
        lambda name, config, _: name.startswith("DDPM") and str(config.get("variance_type")).startswith("learned"),
        "No sampler of fewstep takes its noise from the network. Name a sampler: what the network says of the "
        "variance is then left out.",
        refused=True,
    ),
    Named(
        "`s_churn`, `s_noise` and `order` of `step`",
        lambda _, __, found: bool(found.case.call.keys() & {"s_churn", "s_noise", "order"}),
        "A plan has its options from the start: `sampler='edm-euler', s_churn=..`, `sampler='lms-2'`. EulerDiscrete "
        "adds the noise of the churn after the network was evaluated, as named above.",
        refused=True,
    ),
    Named(
        "`algorithm_type='sde-dpmsolver'`; `sde-dpmsolver++` of DPMSolverSinglestep; `noise_prediction` of SASolver",
        lambda name, config, _: (
            config.get("algorithm_type") in ("sde-dpmsolver", "noise_prediction")
            or (name == "DPMSolverSinglestep" and config.get("algorithm_type") == "sde-dpmsolver++")
        ),
        "Settings that fewstep does not have, as named above.",
        refused=True,
    ),
    Named(
        "`solver_p` of UniPCMultistep; `invert_sigmas`; `scale_factors` of FlowMatchLCM; `mu` without dynamic shifting",
        lambda _, config, found: (
            config.get("solver_p") is not None
            or bool(config.get("invert_sigmas"))
            or bool(config.get("scale_factors"))
            or ("mu" in found.case.grid and not config.get("use_dynamic_shifting"))
        ),
        "Another scheduler as predictor, a flow that runs the other way, a picture that is enlarged between steps, "
        "and a shift of a schedule that has none, which diffusers ignores.",
        refused=True,
    ),
)


def named(found: Outcome) -> Named | None:
    """What covers an outcome that is 'apart' or 'refused'."""
    if found.kind not in ("apart", "refused"):
        return None
    fitting = (n for n in NAMED if n.refused == (found.kind == "refused"))
    return next((n for n in fitting if n.applies(found.case.name, found.case.config, found)), None)
