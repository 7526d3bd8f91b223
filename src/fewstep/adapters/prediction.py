"""What the network of a diffusers pipeline is given and what its output means."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fewstep.core import InvalidInput, Schedule
from fewstep.denoise.convert import Network
from fewstep.denoise.project import clip, dynamic_threshold

Settings = Mapping[str, Any]


class Prediction:
    """What the host's network predicts: coefficients of its output, scale of its input, the time it is told.

    x0 = skip x + out F with F = network(scale x, told), as in `fewstep.Network`; EDM networks and consistency models
    are preconditioned around the network by diffusers, which is here too. Times are told in the host's units: model
    time on beta schedules, t times `num_train_timesteps` on flow, log(sigma) / 4 for EDM, 250 log(sigma) for
    consistency models (Song et al. 2023, arXiv 2303.01469, appendix C), and 2 / pi arctan(sigma) for Stable Audio
    (`CosineDPMSolverMultistep`).
    """

    def __init__(self, config: Settings, schedule: Schedule, host: str | None):
        other = {"flow_prediction": "flow", "original_sample": "sample"}
        kind = other.get(config.get("prediction_type", ""), config.get("prediction_type"))
        if schedule.kind == "flow" and "prediction_type" not in config:
            kind = "flow"
        self.schedule = schedule
        self.train_steps = config.get("num_train_timesteps", 1000)
        self.preconditioned = schedule.kind == "edm"
        self.consistency = host == "CMStochasticIterative"
        self.angle = host == "CosineDPMSolverMultistep"
        self.sigma_min = config.get("sigma_min", 0.002) if self.consistency else 0.0
        self.sigma_data = config.get("sigma_data", 1.0 if config.get("timestep_type") == "continuous" else 0.5)
        self.sign = -1.0 if self.preconditioned and kind == "v_prediction" else 1.0
        kind = "edm" if self.preconditioned else kind or "epsilon"
        self._network = Network(_no_network, schedule, kind, sigma_data=self.sigma_data)

    def coefficients(self, t: float, alpha: float, sigma: float) -> tuple[float, float]:
        """(skip, out). Raises `InvalidInput` where the output says nothing of the data (zero terminal SNR)."""
        if self.consistency:
            d, above = self.sigma_data, sigma - self.sigma_min
            return d**2 / (above**2 + d**2), above * d / (sigma**2 + d**2) ** 0.5
        skip, out = self._network.coefficients(t, alpha, sigma)
        return float(skip), self.sign * float(out)

    def scale(self, sigma: float) -> float:
        """What the network's input is multiplied by."""
        return (sigma**2 + self.sigma_data**2) ** -0.5 if self.preconditioned else 1.0

    def told(self, times: np.ndarray) -> np.ndarray:
        """The time that the network is told at the schedule's `times`."""
        if self.angle:
            return np.arctan(times) / np.pi * 2
        if self.preconditioned:
            return np.log(times) * (250.0 if self.consistency else 0.25)
        return times * self.train_steps if self.schedule.kind == "flow" else times

    def time_of(self, told: np.ndarray) -> np.ndarray:
        """The inverse of `told`."""
        if self.angle:
            return np.tan(told * np.pi / 2)
        if self.preconditioned:
            return np.exp(told / (250.0 if self.consistency else 0.25))
        return told / self.train_steps if self.schedule.kind == "flow" else told


def _no_network(*_args: Any, **_named: Any) -> Any:
    raise AssertionError("the host calls the network")


CLIPS = ("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "HeunDiscrete", "LCM")
"""Classes that obey `clip_sample`. TCD and CogVideoXDDIM have the setting, and ignore it."""

THRESHOLDS = (
    "DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "LCM", "DPMSolverMultistep", "DPMSolverSinglestep",
    "UniPCMultistep", "DEISMultistep", "SASolver", "EDMDPMSolverMultistep",
)  # fmt: skip
"""Classes that obey `thresholding`."""


def projection(settings: Settings, kind: str | None, chosen: Collection[str]) -> Callable[[Tensor], Tensor] | None:
    """What is to be done to an estimate of the data: what the class `kind` does, and what the caller has `chosen`."""
    noise = kind == "UniPCMultistep" and settings.get("predict_x0") is False  # it thresholds data only
    if settings.get("thresholding") and ((kind in (None, *THRESHOLDS) and not noise) or "thresholding" in chosen):
        ratio, most = settings.get("dynamic_thresholding_ratio", 0.995), settings.get("sample_max_value", 1.0)
        if not most > 0:
            raise InvalidInput(f"sample_max_value must be above 0, got {most}")
        if most >= 1:
            return dynamic_threshold(_identity, ratio, most).project
        return lambda x: x.clamp(-most, most) / most  # diffusers' clamp of the percentile to [1, most] is `most`
    clips = settings.get("clip_sample") and (kind in (None, *CLIPS) or "clip_sample" in chosen)
    if clips or (settings.get("clip_denoised") and kind in (None, "CMStochasticIterative")):
        limit = settings.get("clip_sample_range", 1.0)
        return clip(_identity, -limit, limit).project
    return None


def _identity(x: Tensor, _t: Tensor) -> Tensor:
    return x


def fitting(output: Tensor, sample: Tensor, settings: Settings) -> Tensor:
    """The network's output without a variance that it may predict, too; `InvalidInput` where the shape is another."""
    learned = settings.get("variance_type") in ("learned", "learned_range")
    if learned and sample.ndim > 1 and output.shape[1] == 2 * sample.shape[1]:
        output = output[:, : sample.shape[1]]
    if output.shape != sample.shape:
        raise InvalidInput(
            f"the network returned shape {tuple(output.shape)} for a sample of shape {tuple(sample.shape)}; they "
            "must be equal"
        )
    return output
