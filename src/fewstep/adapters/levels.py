"""The noise at the times that a host names, in the coordinates that it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.adapters.coordinates import factor
from fewstep.adapters.prediction import Prediction
from fewstep.adapters.runs import HostRun
from fewstep.adapters.spacing import first_scale
from fewstep.core import InvalidInput, Plan, Schedule


@dataclass(frozen=True)
class Levels:
    """What a scheduler knows of levels; `shown` as in `coordinates.in_sigma_space`."""

    schedule: Schedule
    prediction: Prediction
    shown: bool

    def noised(self, data: Tensor, noise: Tensor, told: Any, run: HostRun | None) -> Tensor:
        """alpha x0 + sigma noise at the times `told`, in the host's coordinates."""
        alpha, sigma = self._at(told, data, run)
        if self.shown:
            scale = torch.where(alpha > 0, alpha, factor(0.0))
            alpha, sigma = alpha / scale, sigma / scale
        return alpha * data + sigma * noise

    def velocity(self, data: Tensor, noise: Tensor, told: Any, run: HostRun | None) -> Tensor:
        """alpha noise - sigma x0 at the times `told`."""
        alpha, sigma = self._at(told, data, run)
        return alpha * noise - sigma * data

    def first(self, run: HostRun | None, own: tuple[str | None, str | None, Mapping[str, Any]] | None) -> float:
        """The scale of the first noise as shown: sigma of the first time where `own` is None, else that of diffusers.

        `own` is the class of the host, the class that placed the times, None where a named grid did, and its settings.
        """
        t_max = self.schedule.t_max
        alpha, sigma = float(self.schedule.alpha(t_max)), float(self.schedule.sigma(t_max))
        if run is not None:
            alpha, sigma = run.plan.rows[0].alpha, run.plan.rows[0].sigma
        scale = sigma if own is None else first_scale(sigma, self.schedule, *own)
        return scale / factor(alpha) if self.shown else scale

    def sigmas(self, plan: Plan) -> Tensor:
        """(n + 1,), sigma of each row and of the end, sigma / alpha on beta schedules: float32."""
        times = np.array([*(row.t for row in plan.rows), plan.recipe.times[-1]])
        if self.shown:  # finite also at alpha = 0
            levels = zip(self.schedule.alpha(times), self.schedule.sigma(times), strict=True)
            return torch.tensor([float(sigma) / factor(float(alpha)) for alpha, sigma in levels])
        return torch.from_numpy(self.schedule.given_sigma(times)).float()

    def _at(self, told: Any, like: Tensor, run: HostRun | None) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at told times, () or (1,) or (B,), broadcast against `like` (B, ..)."""
        given = torch.as_tensor(told).detach().double().cpu().reshape(-1).numpy()
        if len(given) not in (1, like.shape[0]):
            raise InvalidInput(f"give one time, or one for each of {like.shape[0]} images, got {len(given)}")
        times = np.array([self._time_of(float(t), run) for t in given])
        shape = (-1, *[1] * (like.ndim - 1))
        alpha, sigma = (
            torch.from_numpy(np.asarray(level(times))).to(like.device, like.dtype).reshape(shape)
            for level in (self.schedule.alpha, self.schedule.sigma)
        )
        return alpha, sigma

    def _time_of(self, told: float, run: HostRun | None) -> float:
        """The schedule's time where the network is told `told`: that of the run's row, else what the time says."""
        near = [] if run is None else run.rows_at(told)
        return run.plan.rows[near[0]].t if run and near else float(self.prediction.time_of(np.array(told)))
