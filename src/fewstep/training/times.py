"""The distribution of the times that a network is trained at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.schedule import Schedule
from fewstep.training.draws import Float
from fewstep.training.levels import time_of_ratio

SHAPES = ("uniform", "logit-normal", "log-normal")


@dataclass(frozen=True)
class Times:
    """How times are distributed.

    Attributes:
        shape: "uniform" in the schedule's time; "logit-normal", a sigmoid of a normal as the share of the range of
            times (Esser et al. 2024, arXiv 2403.03206, section 3.1); "log-normal", log(sigma / alpha) is normal (Karras
            et al. 2022, arXiv 2206.00364, table 1: mean -1.2, deviation 1.2).
        mean, deviation: of the normal.
    """

    shape: str = "uniform"
    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise unknown_name("distribution of times", str(self.shape), SHAPES)
        if not self.deviation > 0:
            raise InvalidInput(f"the deviation of times must be above 0, got {self.deviation!r}")

    def at(self, schedule: Schedule, share: Float) -> Float:
        """The times (B,) below which these shares (B,) of all times lie, cut at the ends of the schedule's range."""
        low, high = schedule.t_min, schedule.t_max
        if self.shape == "uniform":
            return low + (high - low) * share
        inside = np.clip(share, 1e-12, 1 - 1e-12)
        normal = self.mean + self.deviation * torch.special.ndtri(torch.from_numpy(inside)).numpy()
        if self.shape == "logit-normal":
            return low + (high - low) / (1 + np.exp(-normal))
        least = max(float(schedule.ratio(low)), 1e-12)
        most = min(float(schedule.ratio(high)), 1e12)
        return np.clip(time_of_ratio(schedule, np.clip(np.exp(normal), least, most)), low, high)
