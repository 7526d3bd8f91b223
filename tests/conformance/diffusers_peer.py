"""diffusers 0.42.1 as a peer: its schedulers, run as a pipeline runs them, on symbols.

    state -> scale_model_input -> network -> step -> state

The network must answer with what the scheduler will read as the data prediction D_i, so `_Family` says for
each scheduler at which (alpha, sigma) it converts an output, and which output means D there.

Precision. The schedulers hold float32 tables and mostly compute in float32 (several cast the sample down
first). With precision "float32" they run as they are. With "float64" (the default) the same code runs while
the names `float32` in the scheduler's own module mean float64 and torch's default dtype is float64: no line
of the peer changes, its tables and arithmetic are just not rounded. That is what makes 1e-9 possible; the
float32 run then shows what users get.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .peers import Coordinates, Level, Overlay, Peer, Precision, Response, Trace, default_dtype, replaced


@dataclasses.dataclass(frozen=True)
class _Family:
    """How to talk to a kind of scheduler.

    level(scheduler, t): (alpha, sigma) at which the coming `step` converts the network's output.
    output(scheduler, x, data, alpha, sigma): the network output that the scheduler reads as `data`.
    end(scheduler, t, options): (alpha, sigma) that the last `step`, taken at t, leads to.
    """

    coordinates: Coordinates
    prediction: str | None
    level: Callable[[Any, Any], Level]
    output: Callable[..., torch.Tensor]
    end: Callable[[Any, Any, dict[str, Any]], Level]


# --- what output of the network means the data prediction D -------------------------------------------------


def _data(_scheduler: Any, _x: torch.Tensor, data: torch.Tensor, _alpha: float, _sigma: float) -> torch.Tensor:
    return data


def _epsilon(_scheduler: Any, x: torch.Tensor, data: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    return (x - alpha * data) / sigma


def _v_of_vp(_scheduler: Any, x: torch.Tensor, data: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    return (alpha * x - data) / sigma  # alpha eps - sigma x0, with alpha^2 + sigma^2 = 1


def _velocity(_scheduler: Any, x: torch.Tensor, data: torch.Tensor, _alpha: float, sigma: float) -> torch.Tensor:
    return (x - data) / sigma  # eps - x0


def _edm_raw(scheduler: Any, x: torch.Tensor, data: torch.Tensor, _alpha: float, sigma: float) -> torch.Tensor:
    spread = scheduler.config.sigma_data
    skip = spread**2 / (sigma**2 + spread**2)
    return (data - skip * x) / (sigma * spread / math.hypot(sigma, spread))


def _consistency_raw(scheduler: Any, x: torch.Tensor, data: torch.Tensor, _alpha: float, sigma: float) -> torch.Tensor:
    skip, out = (float(c) for c in scheduler.get_scalings_for_boundary_condition(torch.tensor(sigma)))
    return (data - skip * x) / out


# --- where the scheduler thinks it is -----------------------------------------------------------------------


def _index(scheduler: Any, t: Any) -> int:
    if scheduler.step_index is None:
        scheduler._init_step_index(t)  # as `step` is about to do
    index: Any = scheduler.step_index
    return int(index)


def _vp(alpha_cumprod: Any) -> Level:
    return math.sqrt(float(alpha_cumprod)), math.sqrt(1 - float(alpha_cumprod))


def _at_timestep(scheduler: Any, t: Any) -> Level:
    return _vp(scheduler.alphas_cumprod[int(t)])


def _stride(scheduler: Any) -> int:
    return scheduler.config.num_train_timesteps // scheduler.num_inference_steps


def _ve(sigma: Any) -> Level:
    return 1.0, float(sigma)


def _stage_sigma(scheduler: Any, t: Any) -> Level:
    """VE schedulers; in the second stage of the KDPM2s and of DPMSolverSDE, between two grid points."""
    index = _index(scheduler, t)
    if getattr(scheduler, "state_in_first_order", True) or not hasattr(scheduler, "sample"):
        return _ve(scheduler.sigmas[index])
    kind = type(scheduler).__name__
    if kind == "KDPM2DiscreteScheduler":
        return _ve(scheduler.sigmas_interpol[index])
    if kind == "KDPM2AncestralDiscreteScheduler":
        return _ve(scheduler.sigmas_interpol[index - 1])
    if kind == "DPMSolverSDEScheduler":
        return _ve(scheduler.mid_point_sigma)
    return _ve(scheduler.sigmas[index])


def _split(scheduler: Any, sigma: torch.Tensor) -> Level:
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(sigma)
    return float(alpha), float(sigma)


def _ddim_end(scheduler: Any, t: Any, _options: dict[str, Any]) -> Level:
    previous = int(t) - _stride(scheduler)
    return _vp(scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod)


def _inverse_level(scheduler: Any, t: Any) -> Level:
    earlier = min(int(t) - _stride(scheduler), scheduler.config.num_train_timesteps - 1)
    return _vp(scheduler.alphas_cumprod[earlier] if earlier >= 0 else scheduler.initial_alpha_cumprod)


def _clean(*_: Any) -> Level:
    return 1.0, 0.0


_BY_RATIO = _Family(
    "vp",
    "sample",
    lambda scheduler, t: _split(scheduler, scheduler.sigmas[_index(scheduler, t)]),
    _data,
    lambda scheduler, _t, _options: _split(scheduler, scheduler.sigmas[scheduler.step_index]),
)
_VE = _Family("ve", "sample", _stage_sigma, _data, lambda s, _t, _o: _ve(s.sigmas[s.step_index]))
_VE_EPSILON = dataclasses.replace(_VE, prediction="epsilon", output=_epsilon)
_EDM = dataclasses.replace(_VE, prediction=None, output=_edm_raw)
_BY_TIME = _Family("vp", "sample", _at_timestep, _data, _clean)
_FLOW = _Family(
    "flow",
    None,
    lambda s, t: (1 - float(s.sigmas[_index(s, t)]), float(s.sigmas[_index(s, t)])),
    _velocity,
    lambda s, _t, _o: (1 - float(s.sigmas[s.step_index]), float(s.sigmas[s.step_index])),
)

_FAMILIES: dict[str, _Family] = {
    "DDPM": _BY_TIME,
    "DDPMParallel": _BY_TIME,
    "DDIM": dataclasses.replace(_BY_TIME, end=_ddim_end),
    "DDIMParallel": dataclasses.replace(_BY_TIME, end=_ddim_end),
    "CogVideoXDDIM": dataclasses.replace(_BY_TIME, end=_ddim_end),
    "DDIMInverse": dataclasses.replace(_BY_TIME, level=_inverse_level, end=lambda s, t, _o: _at_timestep(s, t)),
    "PNDM": dataclasses.replace(_BY_TIME, prediction="epsilon", output=_epsilon, end=_ddim_end),
    "LCM": _BY_TIME,
    "TCD": dataclasses.replace(_BY_TIME, end=lambda s, _t, _o: _at_timestep(s, 0)),
    "IPNDM": _Family(
        "vp",
        None,
        lambda s, t: (float(s.alphas[_index(s, t)]), float(s.betas[_index(s, t)])),
        _v_of_vp,
        lambda s, _t, _o: (float(s.alphas[s.step_index]), float(s.betas[s.step_index])),
    ),
    "EulerDiscrete": _VE,
    "EulerAncestralDiscrete": _VE_EPSILON,
    "HeunDiscrete": _VE,
    "KDPM2Discrete": _VE_EPSILON,
    "KDPM2AncestralDiscrete": _VE_EPSILON,
    "DPMSolverSDE": _VE_EPSILON,
    "LMSDiscrete": _VE,
    "EDMEuler": _EDM,
    "EDMDPMSolverMultistep": _EDM,
    "CosineDPMSolverMultistep": dataclasses.replace(_EDM, prediction="epsilon"),
    "CMStochasticIterative": dataclasses.replace(_VE, prediction=None, output=_consistency_raw),
    "DPMSolverMultistep": _BY_RATIO,
    "DPMSolverMultistepInverse": _BY_RATIO,
    "DPMSolverSinglestep": _BY_RATIO,
    "UniPCMultistep": _BY_RATIO,
    "DEISMultistep": _BY_RATIO,
    "SASolver": _BY_RATIO,
    "FlowMatchEulerDiscrete": _FLOW,
    "FlowMatchHeunDiscrete": _FLOW,
    "FlowMatchLCM": _FLOW,
}


@contextlib.contextmanager
def in_precision(module: ModuleType, precision: Precision) -> Iterator[None]:
    """Let `float32` mean float64 in a scheduler's module, or leave it as it is."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # deprecations of options that are asked for on purpose
        if precision == "float64":
            wide = {"torch": Overlay(torch, float32=torch.float64), "np": Overlay(np, float32=np.float64)}
            stack.enter_context(replaced(module, **wide))
            stack.enter_context(default_dtype(torch.float64))
        yield


def diffusers_peer(
    scheduler: str,
    config: dict[str, Any] | None = None,
    steps: int | None = None,
    *,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    options: dict[str, Any] | None = None,
    grid_options: dict[str, Any] | None = None,
    begin_index: int | None = None,
    precision: Precision = "float64",
    name: str | None = None,
    marginals: bool = True,
    note: str = "",
) -> Peer:
    """A scheduler of diffusers as a peer.

    scheduler: class name without `Scheduler`, as 'DPMSolverMultistep'. config: constructor arguments;
    clipping and thresholding are off unless given. Grid: one of steps, timesteps, sigmas, handed to
    `set_timesteps` together with grid_options (`mu`, `original_inference_steps`). options: arguments of
    `step` (eta, s_churn, order). begin_index: handed to `set_begin_index`, which some pipelines call and some
    do not; None does not call it.
    """
    short = scheduler.removesuffix("Scheduler")
    if short not in _FAMILIES:
        raise ValueError(f"no way to talk to scheduler {scheduler!r}; known: {', '.join(sorted(_FAMILIES))}")
    family = _FAMILIES[short]
    given = {"num_inference_steps": steps, "timesteps": timesteps, "sigmas": sigmas}
    grid = {key: value for key, value in given.items() if value is not None} | (grid_options or {})
    config, options = dict(config or {}), dict(options or {})
    coordinates: Coordinates = "flow" if config.get("use_flow_sigmas") else family.coordinates

    def run(trace: Trace) -> tuple[torch.Tensor, Level]:
        kind = getattr(importlib.import_module("diffusers.schedulers"), f"{short}Scheduler")
        module = sys.modules[kind.__module__]
        known = inspect.signature(kind.__init__).parameters
        off = {key: False for key in ("clip_sample", "clip_denoised", "thresholding") if key in known}
        wanted = {"prediction_type": family.prediction} if family.prediction else {}
        draw = {"randn_tensor": lambda *_a, **_k: trace.draw()}
        brownian = importlib.import_module(
            "diffusers.schedulers.scheduling_dpmsolver_sde"
        )  # others import it from here
        paths = replaced(brownian, BatchedBrownianTree=trace.brownian_tree)
        with in_precision(module, precision), replaced(module, **draw), paths, torch.no_grad():
            peer = kind(**(off | wanted | config))
            peer.set_timesteps(**grid)
            if begin_index is not None:
                peer.set_begin_index(begin_index)
            state, t = trace.start(), None
            for t in peer.timesteps:
                alpha, sigma = family.level(peer, t)
                scaled = peer.scale_model_input(state, t) if hasattr(peer, "scale_model_input") else state
                size = float(state.abs().max())
                scale = float(scaled.abs().max()) / size if size else 1.0
                data = trace.evaluate(state, t, (alpha, sigma), scale)
                output = family.output(peer, state.double(), data.double(), alpha, sigma).to(state.dtype)
                state = peer.step(output, t, state, **options).prev_sample
            return state, family.end(peer, t, options)

    settings = {"scheduler": short, "config": config, "options": options, "begin_index": begin_index} | grid
    shown = {key: value for key, value in (config | options).items() if not key.startswith("beta_")}
    label = name or "-".join([short, *(f"{key}={value}" for key, value in shown.items())])
    count = steps or len(timesteps or sigmas or ())
    return Peer(f"diffusers:{label}-{count}", coordinates, precision, (1, 1, 1), run, settings, marginals, note)


def diffusers_response(scheduler: str, config: dict[str, Any] | None = None, **arguments: Any) -> Response:
    """The table of a diffusers scheduler; arguments as `diffusers_peer`."""
    return diffusers_peer(scheduler, config, **arguments).response()


def alphas_cumprod(peer: Peer) -> np.ndarray:
    """The table of alpha^2 that a beta scheduler of diffusers was built with, in the precision of the peer."""
    short = peer.settings["scheduler"]
    kind = getattr(importlib.import_module("diffusers.schedulers"), f"{short}Scheduler")
    with in_precision(sys.modules[kind.__module__], peer.precision):
        return kind(**peer.settings["config"]).alphas_cumprod.double().numpy()
