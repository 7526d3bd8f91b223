"""What the network of a diffusers pipeline is given and what its output means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fewstep.core import InvalidInput, Schedule
from fewstep.denoise import Network, clip, dynamic_threshold

Settings = Mapping[str, Any]


class Prediction:
    """What the host's network predicts: coefficients of its output, scale of its input, the time it is told.

    x0 = skip x + out F with F = network(scale x, told), as in `fewstep.Network`; EDM networks and consistency models
    are preconditioned around the network by diffusers, which is here too. Times are told in the host's units: model
    time on beta schedules, t times `num_train_timesteps` on flow, log(sigma) / 4 for EDM, and 250 log(sigma) for
    consistency models (Song et al. 2023, arXiv 2303.01469, appendix C).
    """

    def __init__(self, config: Settings, schedule: Schedule, host: str | None):
        kind = {"flow_prediction": "flow"}.get(config.get("prediction_type", ""), config.get("prediction_type"))
        if schedule.kind == "flow" and "prediction_type" not in config:
            kind = "flow"
        self.schedule = schedule
        self.train_steps = config.get("num_train_timesteps", 1000)
        self.preconditioned = schedule.kind == "edm"
        self.consistency = host == "CMStochasticIterative"
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
        if self.preconditioned:
            return np.log(times) * (250.0 if self.consistency else 0.25)
        return times * self.train_steps if self.schedule.kind == "flow" else times

    def time_of(self, told: np.ndarray) -> np.ndarray:
        """The inverse of `told`."""
        if self.preconditioned:
            return np.exp(told / (250.0 if self.consistency else 0.25))
        return told / self.train_steps if self.schedule.kind == "flow" else told


def _no_network(*_args: Any, **_named: Any) -> Any:
    raise AssertionError("the host calls the network")


def projection(settings: Mapping[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """What the configuration asks to be done to an estimate of the data."""
    if settings.get("thresholding"):
        ratio, most = settings.get("dynamic_thresholding_ratio", 0.995), settings.get("sample_max_value", 1.0)
        return dynamic_threshold(_identity, ratio, most).project
    if settings.get("clip_sample") or settings.get("clip_denoised"):
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
