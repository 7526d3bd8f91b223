"""Where a peer and we do not have the same table, and why. A case that differs and is not named here fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .peers import Peer


@dataclass(frozen=True)
class Departure:
    """A named set of cases.

    kind: 'error', the peer departs from the formula that it implements; 'guard', fewstep departs from it on purpose;
    'absent', fewstep has no such setting; 'rounding', the peer's own float32 loses more than the bar allows, though
    less than `bound`.
    """

    name: str
    kind: Literal["error", "guard", "absent", "rounding"]
    applies: Callable[[str, dict[str, Any], Peer], bool]
    reason: str
    bound: float = 1e-4

    @property
    def absent(self) -> bool:
        return self.kind == "absent"


def _strided(name: str, config: dict[str, Any], peer: Peer) -> bool:
    spread = config.get("timestep_spacing") == "linspace" and peer.settings.get("num_inference_steps", 1) > 1
    return name in ("DDIM", "PNDM") and spread


def _sde_third(name: str, config: dict[str, Any], peer: Peer) -> bool:
    sde = name == "DPMSolverMultistep" and config.get("algorithm_type") == "sde-dpmsolver++"
    return sde and config.get("solver_order") == 3 and peer.settings["num_inference_steps"] > 3


def _narrow(test: Callable[[str, dict[str, Any]], bool]) -> Callable[[str, dict[str, Any], Peer], bool]:
    return lambda name, config, peer: peer.precision == "float32" and test(name, config)


DEPARTURES = (
    Departure(
        "diffusers DDIM and PNDM with `timestep_spacing='linspace'`",
        "error",
        _strided,
        "The scheduler steps to `t - num_train_timesteps // num_inference_steps`, whatever the next time of its grid "
        "is. With this spacing the two differ, so the state is at one noise level and the network is told another "
        "(0.2 away at 5 steps). The same holds for `trailing` where the steps do not divide the training steps. "
        "fewstep steps to the next time.",
    ),
    Departure(
        "diffusers IPNDM on its own grid",
        "error",
        lambda name, config, _: name == "IPNDM" and "trained_betas" not in config,
        "The grid starts at alpha = 0. There the scheduler divides by max(alpha, 1e-8), which drops the first network "
        "output from the state. With noise levels given as `trained_betas` the tables agree.",
    ),
    Departure(
        "diffusers DDPM with `variance_type='fixed_large'` and `timestep_spacing='trailing'`",
        "error",
        lambda name, config, _: (
            name == "DDPM"
            and (config.get("variance_type"), config.get("timestep_spacing")) == ("fixed_large", "trailing")
        ),
        "The step to the finished image adds noise too, because the last time told is not 0. Algorithm 2 of arXiv "
        "2006.11239 and fewstep add none there.",
    ),
    Departure(
        "diffusers EulerDiscrete with `s_churn`",
        "error",
        lambda name, _, peer: name == "EulerDiscrete" and "s_churn" in peer.settings["options"],
        "The noise of the churn is added after the network was evaluated, so the network sees the state before it, at "
        "sigma; algorithm 2 of arXiv 2206.00364, k-diffusion and fewstep evaluate the noised state at sigma_hat.",
    ),
    Departure(
        "diffusers DPMSolverMultistep, `sde-dpmsolver++` of order 3 (5 steps and more)",
        "error",
        _sde_third,
        "The last term of the third-order update has the weight (1 - e^-2h - 2h) / (2h)^2 - 1/2, where the expansion "
        "gives + 1/2: it is off by alpha times the second difference of the data. k-diffusion's 3M SDE has the right "
        "sign and agrees with fewstep.",
    ),
    Departure(
        "diffusers `sde-dpmsolver`",
        "absent",
        lambda _, config, __: config.get("algorithm_type") == "sde-dpmsolver",
        "The stochastic step in the noise prediction does not keep the schedule's variance (it is off by 0.5 at 10 "
        "steps). fewstep has the SDE in the data prediction only, which keeps it exactly.",
    ),
    Departure(
        "diffusers SASolver with `algorithm_type='noise_prediction'`",
        "absent",
        lambda name, config, _: name == "SASolver" and config.get("algorithm_type") == "noise_prediction",
        "fewstep's `sa` has the data prediction only, for the same reason.",
    ),
    Departure(
        "diffusers DPMSolverSinglestep, `sde-dpmsolver++` of order 2 and 3",
        "absent",
        lambda name, config, _: (
            name == "DPMSolverSinglestep"
            and config.get("algorithm_type") == "sde-dpmsolver++"
            and config.get("solver_order") != 1
        ),
        "The noise that the inner rows draw is thrown away at the end of the group, and order 3 with `heun` has the "
        "wrong sign of the multistep form. fewstep has the multistep form, and `dpmpp-sde` as a singlestep.",
    ),
    Departure(
        "diffusers DPMSolverMultistep with `euler_at_final` and a last sigma above 0",
        "absent",
        lambda _, config, __: bool(config.get("euler_at_final")) and config["solver_order"] > 1,
        "A last step of first order, as both have it where they end at clean data. For an end above it, fewstep has "
        "`lower_order_final`.",
    ),
    Departure(
        "k-diffusion `dpm_fast` with `eta` above 0",
        "absent",
        lambda name, _, peer: name == "dpm_fast" and peer.settings["options"].get("eta", 0) > 0,
        "fewstep's `dpm-fast` is deterministic, as in its paper.",
    ),
    Departure(
        "diffusers UniPCMultistep of order 4 with `lower_order_final=False` and a last sigma above 0",
        "guard",
        lambda name, config, _: (
            name == "UniPCMultistep" and config.get("lower_order_final") is False and config["solver_order"] > 3
        ),
        "The last of 10 steps uniform in time is so long that the formula weighs the differences of the earlier rows "
        "by more than 100, which drowns the state in the network's error. fewstep lowers the order of such a step.",
    ),
    Departure(
        "float32: diffusers DEISMultistep of order 3, and with flow sigmas",
        "rounding",
        _narrow(
            lambda name, config: name == "DEISMultistep" and (config.get("solver_order") == 3 or "flow_shift" in config)
        ),
        "The integrals over log rho are differences of large closed forms; and at sigma = 0.999, alpha = 1 - sigma "
        "has four digits.",
    ),
    Departure(
        "float32: diffusers SASolver of order 4",
        "rounding",
        _narrow(lambda name, config: name == "SASolver" and config.get("corrector_order") == 4),
        "The integrals are differences of large closed forms.",
    ),
    Departure(
        "float32: diffusers UniPCMultistep of order 4",
        "rounding",
        _narrow(lambda name, config: name == "UniPCMultistep" and config.get("solver_order") == 4),
        "The coefficients solve a badly conditioned linear system.",
    ),
    Departure(
        "float32: diffusers KDPM2AncestralDiscrete at 2 and 3 steps",
        "rounding",
        lambda name, _, peer: (
            peer.precision == "float32"
            and name == "KDPM2AncestralDiscrete"
            and peer.settings["num_inference_steps"] in (2, 3)
        ),
        "sigma_down is the root of a difference of nearly equal squares.",
        1e-2,
    ),
    Departure(
        "float32: diffusers HeunDiscrete and FlowMatchHeunDiscrete at 2 and 3 steps",
        "rounding",
        lambda name, _, peer: (
            peer.precision == "float32" and "Heun" in name and peer.settings["num_inference_steps"] in (2, 3)
        ),
        "The second slope is divided by the last sigma, up to 1000 times below the first.",
    ),
)


def sampler_of(peer: Peer) -> str:
    """The name that its library has for a peer."""
    return peer.settings.get("scheduler") or peer.settings["function"]


def departure_of(peer: Peer) -> Departure | None:
    """The departure that covers this case, if one does."""
    config = peer.settings.get("config", {})
    return next((d for d in DEPARTURES if d.applies(sampler_of(peer), config, peer)), None)


_TOKENS = "samples discrete tokens"
_MODEL = "belongs to one model, whose pipeline it needs"
NOT_COMPARED = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "CogVideoXDPMScheduler": "SDE-DPM-Solver++(2M), but the caller keeps the history: not the common step",
    "ConsistencyDecoderScheduler": _MODEL,
    "DDPMWuerstchenScheduler": _MODEL,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "FlowMapEulerDiscreteScheduler": "its network takes two times",
    "HeliosDMDScheduler": _MODEL,
    "HeliosScheduler": _MODEL,
    "KarrasVeScheduler": "deprecated; its steps are driven by a pipeline. `edm` is compared with k-diffusion",
    "LTXEulerAncestralRFScheduler": "splits a step into drift and noise by a rule of its own",
    "MiniMaxH3Scheduler": _MODEL,
    "PiflowScheduler": _MODEL,
    "RFD4ProteinaScheduler": _MODEL,
    "RePaintScheduler": "inpainting: it mixes a known picture in",
    "SCMScheduler": "multistep consistency in the coordinates of TrigFlow, and data scaled by sigma_data",
    "ScoreSdeVeScheduler": "Langevin steps whose length depends on the state: not a linear sampler",
    "ScoreSdeVpScheduler": "deprecated; Euler-Maruyama on a continuous schedule of its own",
    "UnCLIPScheduler": _MODEL,
    "VQDiffusionScheduler": _TOKENS,
    "sample_dpm_adaptive": "chooses its steps by the state: not a linear sampler",
}
"""Every scheduler of diffusers and sampler of k-diffusion that has no case, and why."""
