"""Every deterministic scheduler of diffusers with every sensible setting, driven on a `Problem` as by a pipeline.

    state -> scale_model_input -> network -> step -> state

The network answers with the v of the model's own estimate of the data at the state and the time that it is shown, so a
scheduler that rounds its times pays for that as it does in use. Calls of the network are counted by `timesteps`, which
names each of them. Left out: schedulers that draw noise, those of other kinds of data (tokens, video with its own
schedule), clipping and thresholding, which belong to the model and not to the sampler.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from mixture import Mixture
from torch import Tensor

from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.measure.distance import overall, squares
from fewstep.tuning import Problem, Solutions

SPACINGS = ({}, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"})
SIGMAS = ({"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True})
GRIDS = (*SPACINGS, *SIGMAS)
ENDS = {"final_sigmas_type": "sigma_min"}
FULL = {"lower_order_final": False}


class Setting(NamedTuple):
    """A scheduler by its class without `Scheduler`, its configuration, and arguments of `step`."""

    scheduler: str
    config: Mapping[str, Any]
    options: Mapping[str, Any] = {}

    def __str__(self) -> str:
        words = [
            f"{k}={v}" for k, v in {**self.config, **self.options}.items() if k not in ("tau_func", "trained_betas")
        ]
        return f"{self.scheduler}({', '.join(words)})"


def crossed(*choices: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One of each choice, in all combinations."""
    for some in product(*choices):
        yield {key: value for one in some for key, value in one.items()}


def tau_zero(_t: Any) -> float:
    """The ODE, for `SASolver`."""
    return 0.0


def settings(schedule: Schedule, nfe: int) -> list[Setting]:
    """What there is to try on a schedule of betas, or on a flow."""
    return (
        [*_flows()]
        if schedule.kind == "flow"
        else [*_old(schedule, nfe), *_k_diffusion(), *_solvers(), *_edm(schedule)]
    )


def _old(schedule: Schedule, nfe: int) -> Iterator[Setting]:
    ends = ({}, {"set_alpha_to_one": False}, {"steps_offset": 1}, {"set_alpha_to_one": False, "steps_offset": 1})
    spacings = [{"timestep_spacing": name} for name in ("linspace", "leading", "trailing")]
    for config in crossed(spacings, ends):
        if config.get("steps_offset") and config["timestep_spacing"] != "leading":
            continue
        yield Setting("DDIM", config)
        yield Setting("PNDM", {**config, "skip_prk_steps": True})
        yield Setting("PNDM", {**config, "skip_prk_steps": False})
    for config in spacings[1:]:
        yield Setting("CogVideoXDDIM", {**config, "snr_shift_scale": 1.0})
    for original in (50, 100, 1000):
        yield Setting("TCD", {"original_inference_steps": original}, {"eta": 0.0})
    top = float(schedule.sigma(schedule.t_max))  # IPNDM's own noise levels start beyond this schedule, at 1
    u = np.linspace(1, 0, nfe + 1)
    for name, levels in (("own", np.sin(u * np.pi / 2) ** 2), ("angle", np.sin(u**2 * np.pi / 2))):
        yield Setting("IPNDM", {"grid": name, "trained_betas": np.minimum(levels, top).tolist()})
    times = np.linspace(schedule.t_max, schedule.t_clean, nfe + 1)
    yield Setting("IPNDM", {"grid": "times", "trained_betas": schedule.sigma(times).tolist()})


def _k_diffusion() -> Iterator[Setting]:
    for config in crossed(SPACINGS, ({}, *SIGMAS)):
        yield Setting("HeunDiscrete", config)
        yield Setting("KDPM2Discrete", config)
        for order in (2, 3, 4):
            yield Setting("LMSDiscrete", config, {"order": order})
        for end in ({}, ENDS):
            yield Setting("EulerDiscrete", {**config, **end})
    for config in SPACINGS:
        yield Setting("EulerDiscrete", {**config, "interpolation_type": "log_linear"})


def _solvers() -> Iterator[Setting]:
    multi = (*GRIDS, {"use_lu_lambdas": True})
    orders = [{"solver_order": n} for n in (1, 2, 3)]
    kinds = ({}, {"solver_type": "heun"})
    for config in crossed(multi, orders, kinds):
        for end in ({}, ENDS, FULL, {**FULL, **ENDS}, {"euler_at_final": True}):
            yield Setting("DPMSolverMultistep", {**config, **end})
        for end in (ENDS, {**FULL, **ENDS}):
            yield Setting("DPMSolverMultistep", {**config, **end, "algorithm_type": "dpmsolver"})
    for config in crossed(({}, *SIGMAS), orders[1:], kinds):
        for end in ({}, ENDS):
            yield Setting("DPMSolverSinglestep", {**config, **end, "lower_order_final": True})
        yield Setting(
            "DPMSolverSinglestep", {**config, **ENDS, "lower_order_final": True, "algorithm_type": "dpmsolver"}
        )
    for config in crossed(GRIDS, orders):
        yield Setting("DEISMultistep", config)
        yield Setting("DEISMultistep", {**config, **FULL})
    four = [*orders, {"solver_order": 4}]
    for config in crossed(GRIDS, four, ({}, {"solver_type": "bh1"}), ({}, {"predict_x0": False})):
        for end in ({}, ENDS, {**FULL, **ENDS}, {"disable_corrector": [0]}):
            yield Setting("UniPCMultistep", {**config, **end})
    pairs = [{"predictor_order": p, "corrector_order": c} for p, c in ((1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4))]
    for config in crossed(GRIDS, pairs, ({}, {"algorithm_type": "noise_prediction"})):
        yield Setting("SASolver", {**config, "tau_func": tau_zero})


def _edm(schedule: Schedule) -> Iterator[Setting]:
    ends = {"sigma_max": float(schedule.ratio(schedule.t_max)), "sigma_min": float(schedule.ratio(schedule.t_min))}
    grids = (*({"rho": rho} for rho in (3.0, 5.0, 7.0)), {"sigma_schedule": "exponential"})
    for config in crossed([ends], grids, ({}, ENDS)):
        yield Setting("EDMEuler", config)
        for more in crossed(({"solver_order": 2}, {"solver_order": 3}), ({}, {"solver_type": "heun"})):
            yield Setting("EDMDPMSolverMultistep", {**config, **more})
            yield Setting("EDMDPMSolverMultistep", {**config, **more, "euler_at_final": True})


def _flows() -> Iterator[Setting]:
    shifts = [{"shift": shift} for shift in (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)]
    for config in crossed(shifts, ({}, *SIGMAS)):
        yield Setting("FlowMatchEulerDiscrete", config)
    for config in shifts:
        yield Setting("FlowMatchHeunDiscrete", config)
    flows = [{"use_flow_sigmas": True, "flow_shift": one["shift"]} for one in shifts]
    for config in crossed(flows, [{"solver_order": n} for n in (1, 2, 3)]):
        for more in ({}, {"solver_type": "heun"}, ENDS, FULL):
            yield Setting("DPMSolverMultistep", {**config, **more})
        yield Setting("DPMSolverSinglestep", {**config, "lower_order_final": True})
        yield Setting("DEISMultistep", config)
        for more in ({}, {"solver_type": "bh1"}, ENDS):
            yield Setting("UniPCMultistep", {**config, **more})
    for config in crossed(flows, [{"predictor_order": p, "corrector_order": c} for p, c in ((2, 2), (3, 3), (3, 4))]):
        yield Setting("SASolver", {**config, "tau_func": tau_zero})


class Peer(NamedTuple):
    """A setting with the most steps within a budget, and the calls of the network that it then makes."""

    setting: Setting
    steps: int
    nfe: int


def fitted(setting: Setting, schedule: Schedule, nfe: int) -> Peer | None:
    """The most steps of a setting within `nfe` calls; None where it cannot be had."""
    for steps in range(nfe, 0, -1):
        try:
            calls = len(begun(setting, schedule, steps).timesteps)
        except Exception:  # noqa: BLE001 what a peer refuses, it refuses in its own ways
            return None
        if calls <= nfe:
            return Peer(setting, steps, calls)
    return None


def begun(setting: Setting, schedule: Schedule, steps: int) -> Any:
    """The scheduler, its timesteps set."""
    kind = getattr(diffusers, f"{setting.scheduler}Scheduler")
    config = {key: value for key, value in setting.config.items() if key != "grid"}
    if schedule.kind != "flow" and "EDM" not in setting.scheduler and setting.scheduler != "IPNDM":
        named = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}[schedule.kind]
        params = dict(schedule.params)
        config |= {key: params[key] for key in ("beta_start", "beta_end", "num_train_timesteps") if key in params}
        config |= {"beta_schedule": named, "prediction_type": "v_prediction"}
        if setting.scheduler in ("DDIM", "CogVideoXDDIM"):
            config["clip_sample"] = False
    elif config.get("use_flow_sigmas"):
        config["prediction_type"] = "flow_prediction"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = kind(**config)
        scheduler.set_timesteps(steps)
    return scheduler


def drawn(peer: Peer, schedule: Schedule, denoiser: Denoiser, noise: Tensor) -> Tensor:
    """What the scheduler makes of unit `noise` (B, ..)."""
    scheduler = begun(peer.setting, schedule, peer.steps)
    if peer.setting.scheduler in ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "SASolver", "IPNDM"):
        scheduler.set_begin_index(0)  # as pipelines do: two timesteps may be rounded to one
    scheduler.is_scale_input_called = True  # some warn without it, where their scaling is not used
    flow, edm, angle = schedule.kind == "flow", "EDM" in peer.setting.scheduler, peer.setting.scheduler == "IPNDM"
    x = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, t in enumerate(scheduler.timesteps):
            if edm:
                output = _edm_output(scheduler, float(scheduler.sigmas[i]), schedule, denoiser, x)
            else:
                if flow:
                    told = float(t) / scheduler.config.num_train_timesteps
                elif angle:
                    told = _of_angle(schedule, float(scheduler.alphas[i]), float(scheduler.betas[i]))
                else:
                    told = float(t)
                seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
                output = _output(schedule, denoiser, seen, min(max(told, schedule.t_min), schedule.t_max))
            x = scheduler.step(output, t, x, **peer.setting.options).prev_sample
    return x


def _output(schedule: Schedule, denoiser: Denoiser, x: Tensor, t: float) -> Tensor:
    """The network's answer: v = alpha eps - sigma x0, or eps - x0 of a flow."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    data = denoiser(x, t)
    return (x - data) / sigma if schedule.kind == "flow" else (alpha * x - data) / sigma


def _edm_output(scheduler: Any, sigma: float, schedule: Schedule, denoiser: Denoiser, x: Tensor) -> Tensor:
    """What EDM's preconditioning reads as the estimate of the data."""
    spread = scheduler.config.sigma_data
    t = float(schedule.time_of_sigma(min(sigma, float(schedule.ratio(schedule.t_max)))))
    data = denoiser(x / math.hypot(1.0, sigma), t)
    skip = spread**2 / (sigma**2 + spread**2)
    return (data - skip * x) / (sigma * spread / math.hypot(sigma, spread))


def _of_angle(schedule: Schedule, alpha: float, sigma: float) -> float:
    return float(schedule.time_of_lambda(max(math.log(alpha / sigma), float(schedule.lam(schedule.t_max)))))


def peer_errors(problem: Problem, peer: Peer, images: Solutions) -> Tensor:
    """Mean squared distance of each image (B,) from its converged solution; infinite where it is lost."""
    parts = problem.parts(images.numbers)
    results = [drawn(peer, problem.schedule, problem.begun(part), problem.noise(part)) for part in parts]
    return squares(torch.cat(results), images.targets)


@cache
def distinct(schedule: Schedule, nfe: int) -> list[Peer]:
    """All settings that can be had, but of those that do the same only the first."""
    denoiser = Mixture(schedule, torch.tensor([[-1.0, 0.2, 0.7], [0.4, -0.6, 0.1]]), 0.2)
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found: dict[tuple[float, ...], Peer] = {}
    for setting in settings(schedule, nfe):
        with suppress(Exception):  # what a peer refuses, it refuses in its own ways
            if (peer := fitted(setting, schedule, nfe)) is not None:
                result = drawn(peer, schedule, denoiser, noise)
                if bool(result.isfinite().all()):
                    found.setdefault(tuple(round(v, 5) for v in result.flatten().tolist()), peer)
    return list(found.values())


def best_peers(problem: Problem, nfe: int, images: Solutions, rungs: Sequence[int], kept: int) -> tuple[list, int]:
    """The best settings on these very images, best first, as (peer, errors), and how many could be run.

    All on the first few, one in `kept` of them on more.
    """
    going = distinct(problem.schedule, nfe)
    tried, scored = len(going), []
    for size in rungs:
        scored = []
        for peer in going:
            try:
                errors = peer_errors(problem, peer, images.first(size))
            except Exception:  # noqa: BLE001 what a peer refuses, it refuses in its own ways
                tried -= size == rungs[0]
                continue
            if math.isfinite(overall(errors, problem.objective)):
                scored.append((peer, errors))
        scored.sort(key=lambda one: overall(one[1], problem.objective))
        going = [peer for peer, _ in scored[: max(1, len(scored) // kept)]]
    return scored, tried
