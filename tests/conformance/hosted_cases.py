"""Every setting of every scheduler of diffusers that a `PlanScheduler` takes over, as a user sets them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np

from fewstep.adapters.peers import SAMPLERS_OF, defaults_of

STEPS = (5, 14, 20, 50)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Case:
    """A scheduler with settings, and what its `set_timesteps` and `step` are given; `steps` None where times are."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int | None, ...]:
        return (None,) if self.grid.keys() & {"timesteps", "sigmas"} else STEPS

    @property
    def label(self) -> str:
        shown = {**self.config, **self.grid, **self.call}
        return ", ".join(f"{k}={_word(v)}" for k, v in shown.items()) or "as it is"


def _word(value: Any) -> str:
    return getattr(value, "__name__", None) or f"{value!r:.40}"


def tau_zero(_t: Any) -> float:
    return 0.0


def tau_one(_t: Any) -> float:
    return 1.0


def tau_late(t: Any) -> float:
    return 0.5 if t > 400 else 0.0


_FLOWING = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_KARRAS = {"use_karras_sigmas": True}
_ENDS = {"final_sigmas_type": "sigma_min"}
_MU = {"mu": 0.9}

VALUES: dict[str, list[Any]] = {
    "prediction_type": ["epsilon", "sample", "v_prediction"],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "steps_offset": [1],
    "set_alpha_to_one": [False],
    "rescale_betas_zero_snr": [True],
    "clip_sample": [True, False],
    "clip_sample_range": [0.5],
    "thresholding": [True],
    "dynamic_thresholding_ratio": [0.9],
    "sample_max_value": [0.5, 1.5],
    "beta_schedule": ["linear", "squaredcos_cap_v2"],
    "trained_betas": [np.linspace(1e-4, 0.02, 1000).tolist()],
    "num_train_timesteps": [500],
    "variance_type": ["fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"],
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
    "use_lu_lambdas": [True],
    "use_flow_sigmas": [True],
    "flow_shift": [3.0],
    "final_sigmas_type": ["sigma_min"],
    "euler_at_final": [True],
    "lower_order_final": [True, False],
    "solver_order": [1, 2, 3],
    "solver_type": ["midpoint", "heun", "logrho", "bh1", "bh2"],
    "algorithm_type": ["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "noise_prediction"],
    "lambda_min_clipped": [-5.1],
    "predict_x0": [False],
    "disable_corrector": [[0, 1]],
    "solver_p": [diffusers.DDIMScheduler()],
    "predictor_order": [1, 3],
    "corrector_order": [1, 3],
    "tau_func": [tau_zero, tau_one, tau_late],
    "interpolation_type": ["log_linear"],
    "timestep_type": ["continuous"],
    "sigma_min": [0.01],
    "sigma_max": [10.0],
    "skip_prk_steps": [True],
    "original_inference_steps": [100],
    "timestep_scaling": [5.0],
    "snr_shift_scale": [1.0],
    "sigma_data": [0.7],
    "sigma_schedule": ["exponential", "karras"],
    "rho": [5.0],
    "s_noise": [1.1],
    "clip_denoised": [False],
    "shift": [3.0],
    "shift_terminal": [0.1],
    "invert_sigmas": [True],
    "stochastic_sampling": [True],
    "use_dynamic_shifting": [True],
    "time_shift_type": ["linear", "exponential"],
    "noise_sampler_seed": [3],
    "scale_factors": [[1.0, 2.0]],
    "upscale_mode": ["nearest"],
}
"""Values of each setting, other than the one of the base where it has one."""

UNREAD = {
    "beta_start", "beta_end", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len",
}  # fmt: skip
"""Settings that every case gives, or that pipelines read and schedulers do not."""

_WITH: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "flow_shift": lambda _: _FLOWING,
    "use_flow_sigmas": lambda _: _FLOWING,
    "clip_sample_range": lambda _: {"clip_sample": True},
    "dynamic_thresholding_ratio": lambda _: {"thresholding": True},
    "sample_max_value": lambda _: {"thresholding": True},
    "rescale_betas_zero_snr": lambda _: {"timestep_spacing": "trailing"},
    "timestep_type": lambda _: {"sigma_min": 0.002, "sigma_max": 700.0, **_KARRAS},
    "sigma_min": lambda known: _KARRAS if "use_karras_sigmas" in known else {},
    "sigma_max": lambda known: _KARRAS if "use_karras_sigmas" in known else {},
    "use_dynamic_shifting": lambda known: _FLOWING if "use_flow_sigmas" in known else {},
    "time_shift_type": lambda known: {
        "use_dynamic_shifting": True, **(_FLOWING if "use_flow_sigmas" in known else {}),
    },
    "shift_terminal": lambda known: _FLOWING if "use_flow_sigmas" in known else {},
    "lambda_min_clipped": lambda _: {"beta_schedule": "squaredcos_cap_v2"},
    "lower_order_final": lambda known: _ENDS if "final_sigmas_type" in known else {},
    "euler_at_final": lambda _: _ENDS,
    "predict_x0": lambda _: _ENDS,
}  # fmt: skip
"""What a setting needs beside it to mean anything."""


def schedulers() -> dict[str, dict[str, Any]]:
    """The settings, with their defaults, of each class that is a sampler of fewstep."""
    return {name: dict(defaults_of(name)) for name in SAMPLERS_OF}


def base_of(name: str, known: dict[str, Any]) -> dict[str, Any]:
    """v-prediction on Stable Diffusion's schedule where a class has that; nothing clipped, as that hides much."""
    base = {"prediction_type": "v_prediction", **SD}
    if name.startswith(("DDPM", "DDIM")):
        base["clip_sample"] = False
    if name == "PNDM":  # it departs with v-prediction
        base["prediction_type"] = "epsilon"
    return {key: value for key, value in base.items() if key in known}


def cases(name: str) -> Iterator[Case]:
    """All cases of one class."""
    known = schedulers()[name]
    base = base_of(name, known)
    yield Case(name, base)
    for setting in [key for key in known if key not in UNREAD]:
        for value in VALUES[setting]:
            beside = _WITH.get(setting, lambda _: {})(known)
            config = base | beside | {setting: value}
            yield Case(name, config, _MU if config.get("use_dynamic_shifting") else {})
    yield from _together(name, base, known)
    yield from _grids(name, base)
    yield from _calls(name, base)


def _together(name: str, base: dict[str, Any], known: dict[str, Any]) -> Iterator[Case]:
    """Settings that meet: the order of the last steps, and the noise prediction, at an end above clean data."""
    if name in ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep"):
        for order in (2, 3):
            for lower in (True, False):
                yield Case(name, base | _ENDS | {"solver_order": order, "lower_order_final": lower})
    if "algorithm_type" in known and "solver_type" in known and "final_sigmas_type" in known:
        for algorithm in ("dpmsolver", "sde-dpmsolver", "sde-dpmsolver++"):
            for order in (2, 3):
                yield Case(name, base | _ENDS | {"algorithm_type": algorithm, "solver_order": order})


def _grids(name: str, base: dict[str, Any]) -> Iterator[Case]:
    """Arguments of `set_timesteps`."""
    known = inspect.signature(getattr(diffusers, f"{name}Scheduler").set_timesteps).parameters
    if "timesteps" in known and name != "CMStochasticIterative":
        yield Case(name, base, {"timesteps": [999, 759, 499, 259, 19]})
        if "final_sigmas_type" in inspect.signature(getattr(diffusers, f"{name}Scheduler").__init__).parameters:
            yield Case(name, base | _ENDS, {"timesteps": [999, 759, 499, 259, 19]})
    if name == "CMStochasticIterative":
        yield Case(name, base, {"timesteps": [39, 20, 3]})
    if "sigmas" in known:
        flow = name.startswith("FlowMatch") or name == "UniPCMultistep"
        sigmas = [1.0, 0.7, 0.3, 0.1] if flow else [10.0, 3.0, 0.7, 0.1, 0.0]
        yield Case(name, base | (_FLOWING if name == "UniPCMultistep" else {}), {"sigmas": sigmas})
    if "strength" in known:
        yield Case(name, base | {"original_inference_steps": 100}, {"strength": 0.6})
        yield Case(name, base, {"original_inference_steps": 200})
    if "mu" in known:
        yield Case(name, base, _MU)


def _calls(name: str, base: dict[str, Any]) -> Iterator[Case]:
    """Arguments of `step`."""
    known = inspect.signature(getattr(diffusers, f"{name}Scheduler").step).parameters
    if "eta" in known:
        for eta in (0.0, 0.3, 1.0):
            yield Case(name, base, {}, {"eta": eta})
    if "use_clipped_model_output" in known and "thresholding" in schedulers()[name]:
        yield Case(name, base | {"clip_sample": True}, {}, {"use_clipped_model_output": True})
    if "order" in known:
        yield Case(name, base, {}, {"order": 2})
    if "s_noise" in known:
        yield Case(name, base, {}, {"s_noise": 1.1})
    if "s_churn" in known:
        yield Case(name, base, {}, {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 10.0})
