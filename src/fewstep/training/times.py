"""Which levels of noise a training sees how often: the times of a batch from shares of [0, 1).

With k = sigma / alpha the distributions are

    uniform        in the time of the schedule, shifted as the grids of a flow with a shift are
    logit-normal   of the time of a flow: log(t / (1 - t)) ~ N(mean, deviation^2), shifted likewise (Esser et al. 2024,
                   arXiv 2403.03206, eq. 19 and 23)
    log-normal     log k ~ N(mean, deviation^2) (Karras et al. 2022, arXiv 2206.00364, table 1)
    logistic       log k logistic with that mean and standard deviation (Kingma & Gao 2023, arXiv 2303.00848, table 1)

each cut to the range from t_min to t_max, so that no level collects what lies beyond. A flow has t / (1 - t) = k, so
logit-normal is log-normal under the name and with the usual mean of flows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.schedule import EDMSchedule, Float, FlowSchedule, Schedule
from fewstep.denoise.convert import Network
from fewstep.training.levels import time_of_ratio
from fewstep.training.roles import schedule_of

TIMES = ("uniform", "logit-normal", "log-normal", "logistic")
LEAST_MASS = 1e-6


class Curve(NamedTuple):
    """A distribution around 0 with variance 1, by its integral and the inverse of that, of any float64 array."""

    below: Callable[[Float], Float]
    quantile: Callable[[Float], Float]


NORMAL = Curve(
    lambda z: torch.special.ndtr(torch.as_tensor(z)).numpy(), lambda p: torch.special.ndtri(torch.as_tensor(p)).numpy()
)
LOGISTIC_SCALE = math.sqrt(3) / math.pi
LOGISTIC = Curve(
    lambda z: torch.special.expit(torch.as_tensor(z / LOGISTIC_SCALE)).numpy(),
    lambda p: torch.special.logit(torch.as_tensor(p)).numpy() * LOGISTIC_SCALE,
)


class Distribution(NamedTuple):
    """A name of `TIMES` with the mean and the standard deviation of log k; uniform has neither."""

    name: str
    mean: float = 0.0
    deviation: float = 1.0

    def at(self, network: Network, share: Float) -> Float:
        """The times (B,) of some shares (B,) in [0, 1), in the schedule's own time, between its t_min and t_max.

        A network that is told whole numbers gets times that are told exactly.
        """
        schedule = schedule_of(network)
        half = 0.5 / network.time_scale if network.integer_time else 0.0
        if self.name == "uniform":
            low, high = float(unwarped(schedule, schedule.t_min)) - half, schedule.t_max + half
            t = low + (high - low) * share
            t = schedule.warp(t) if isinstance(schedule, FlowSchedule) else t
        else:
            t = time_of_ratio(schedule, np.exp(self.log_ratio(schedule, share)))
        if network.integer_time:
            t = np.rint(t * network.time_scale) / network.time_scale
        return np.clip(t, schedule.t_min, schedule.t_max)

    def log_ratio(self, schedule: Schedule, share: Float) -> Float:
        """log k (B,) of some shares (B,)."""
        curve = LOGISTIC if self.name == "logistic" else NORMAL
        mean = self.mean + (math.log(schedule.shift) if self.shifted and isinstance(schedule, FlowSchedule) else 0.0)
        with np.errstate(divide="ignore"):
            ends = np.log(schedule.ratio(np.array([schedule.t_min, schedule.t_max])))
        low, high = curve.below((ends - mean) / self.deviation)
        if high - low < LEAST_MASS:
            raise InvalidInput(
                f"{self.name} times with mean {self.mean:g} and deviation {self.deviation:g} of log(sigma / alpha) lie "
                f"outside the {schedule.kind} schedule, which goes from {ends[0]:.3g} to {ends[1]:.3g}: choose a mean "
                "in this range"
            )
        return np.clip(mean + self.deviation * curve.quantile(low + (high - low) * share), *ends)

    @property
    def shifted(self) -> bool:
        """Whether the shift of a flow moves it."""
        return self.name in ("uniform", "logit-normal")

    def check(self, schedule: Schedule) -> None:
        """Raise `InvalidInput` where it does not fit a schedule."""
        if self.name == "logit-normal" and not isinstance(schedule, FlowSchedule):
            raise InvalidInput(
                f"logit-normal times are those of a flow, and the schedule is {schedule.kind}: use log-normal, which "
                "draws log(sigma / alpha) from a normal on any schedule"
            )
        if self.name == "uniform" and isinstance(schedule, EDMSchedule):
            raise InvalidInput(
                f"the time of an edm schedule is sigma, of which uniform times up to {schedule.t_max:g} are nearly all "
                "noise: use log-normal"
            )
        if self.name != "uniform":
            self.log_ratio(schedule, np.array([0.5]))


def unwarped(schedule: Schedule, t: float) -> float:
    """The inverse of `schedule.warp`."""
    if not isinstance(schedule, FlowSchedule):
        return t
    return t / (schedule.shift - (schedule.shift - 1) * t)


def distribution(name: str | None, mean: float | None, deviation: float | None, network: Network) -> Distribution:
    """The distribution that is asked for, or the usual one of a network.

    None is logit-normal on a flow, log-normal for EDM's preconditioning or schedule, and uniform elsewhere; the usual
    mean and deviation are 0 and 1, for log-normal -1.2 and 1.2.

    Raises `InvalidInput` for an unknown name, for a mean or a deviation of uniform times, and where times do not fit
    the schedule.
    """
    schedule = schedule_of(network)
    if name is None:
        if isinstance(schedule, FlowSchedule) and network.prediction != "edm":
            name = "logit-normal"
        else:
            edm = network.prediction == "edm" or isinstance(schedule, EDMSchedule)
            name = "log-normal" if edm else "uniform"
    if name not in TIMES:
        raise unknown_name("distribution of times", str(name), TIMES)
    if name == "uniform" and (mean, deviation) != (None, None):
        raise InvalidInput(f"uniform times have no mean and deviation, got {mean} and {deviation}: leave them out")
    usual = (-1.2, 1.2) if name == "log-normal" else (0.0, 1.0)
    found = Distribution(name, usual[0] if mean is None else mean, usual[1] if deviation is None else deviation)
    found.check(schedule)
    return found
