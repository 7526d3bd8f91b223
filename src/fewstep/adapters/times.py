"""The grid of a run, from the arguments of `set_timesteps`, and the times that the network is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewstep import schedules
from fewstep.adapters import spacing
from fewstep.adapters.prediction import Prediction
from fewstep.core import BetaSchedule, FlowSchedule, InvalidInput, Plan, Schedule, grid_times


@dataclass(frozen=True)
class Times:
    """What a scheduler knows of its times; see `PlanScheduler` for the fields.

    `host` is the class that the configuration belongs to, `spacing` the one whose conventions the grid follows.
    """

    schedule: Schedule
    prediction: Prediction
    host: str | None
    spacing: str | None
    settings: Mapping[str, Any]
    grid: str | None
    grid_options: Mapping[str, Any]
    plan: Plan | None
    round_times: bool
    shift_sigmas: bool

    def points(
        self, steps: int | None, timesteps: Any, sigmas: Any, mu: float | None, original: int | None, strength: float
    ) -> tuple[int, spacing.Points]:
        """The number of steps and the grid, from the arguments of `set_timesteps`."""
        values = None if sigmas is None else np.array([float(s) for s in sigmas])
        default = isinstance(self.schedule, FlowSchedule) and values is not None and _means_steps(values)
        count, given = self._counted(steps, timesteps, values)
        own = given and not default
        if not 0 < strength <= 1:
            raise InvalidInput(f"strength must lie in (0, 1], got {strength}")
        if strength != 1 and own:
            raise InvalidInput(f"strength={strength:g} takes the end of a grid, and times are given: cut those instead")
        self._check_hosts_own(mu, original)
        if self.plan is not None:
            if own or count != self.plan.steps or strength != 1:
                asked = "times of its own" if own else f"{count} steps" + f" at strength {strength:g}" * (strength != 1)
                raise InvalidInput(
                    f"this plan has {self.plan.steps} steps on a grid of its own, the pipeline asks for {asked}: call "
                    f"it with num_inference_steps={self.plan.steps}, or use from_config with a sampler"
                )
            return count, spacing.Points(np.array(self.plan.recipe.times))
        if timesteps is not None and sigmas is None:
            return count, self._verbatim(np.array([float(t) for t in timesteps]))
        if values is not None and not (default and self.grid is not None):
            return count, self._given(values, timesteps, mu)
        total = round(count / strength)
        points = self._spread(count if self._skips else total, mu, original, strength)
        told = None if points.told is None else points.told[-count:]
        return count, spacing.Points(points.times[-count - 1 :], told)

    def _counted(self, steps: int | None, timesteps: Any, sigmas: np.ndarray | None) -> tuple[int, bool]:
        """The number of steps, and whether times or levels of them are given."""
        flow = isinstance(self.schedule, FlowSchedule)
        counts = [] if timesteps is None else [len(timesteps)]
        if sigmas is not None:
            counts.append(len(sigmas) - (not flow))
        if steps is None and not counts:
            raise InvalidInput("give num_inference_steps, timesteps or sigmas")
        if len(set(counts)) > 1:
            rule = "as many as timesteps" if flow else "one more than timesteps, the level where the run ends"
            raise InvalidInput(f"{counts[1] + (not flow)} sigmas do not fit {counts[0]} timesteps: give {rule}")
        if steps is not None and counts and steps != counts[0]:
            raise InvalidInput(f"num_inference_steps={steps} does not fit {counts[0]} given steps: leave it out")
        count = counts[0] if counts else steps
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise InvalidInput(f"num_inference_steps must be an integer of at least 1, got {count!r}")
        return int(count), bool(counts)

    def _check_hosts_own(self, mu: float | None, original: int | None) -> None:
        """Raise `InvalidInput` for arguments of single schedulers that would change nothing here."""
        settings = self.settings
        if mu is not None and not isinstance(self.schedule, FlowSchedule):
            raise InvalidInput(
                f"mu={mu:g} shifts a flow schedule, and this one is {self.schedule.kind!r}: leave it out"
            )
        if mu is not None and settings.get("use_flow_sigmas") and not settings.get("use_dynamic_shifting"):
            raise InvalidInput(f"mu={mu:g} needs use_dynamic_shifting=True in the configuration")
        usual = settings.get("original_inference_steps") or 50
        if original not in (None, usual) and not self._skips:
            raise InvalidInput(
                f"original_inference_steps={original} is for the samplers lcm and tcd without a grid: leave it out"
            )

    @property
    def _skips(self) -> bool:
        return self.grid is None and self.spacing in ("LCM", "TCD") and isinstance(self.schedule, BetaSchedule)

    def _verbatim(self, told: np.ndarray) -> spacing.Points:
        if self.host == "CMStochasticIterative":
            return spacing.consistency_points(self.schedule, self.settings, told)
        noisy = self.spacing == "TCD" or spacing.ends_noisy(self.spacing, self.settings)
        end = 0.0 if noisy and isinstance(self.schedule, BetaSchedule) else None
        return spacing.verbatim(self.schedule, times=self.prediction.time_of(told), end=end)

    def _given(self, sigmas: np.ndarray, timesteps: Any, mu: float | None) -> spacing.Points:
        """Points of given sigmas, and what the network is told there where that is given, too."""
        schedule = self.schedule
        told = None if timesteps is None else np.array([float(t) for t in timesteps])
        if isinstance(schedule, FlowSchedule) and self.shift_sigmas:
            points = spacing.flow_points(schedule, self.spacing, self.settings, len(sigmas), sigmas, mu)
            return spacing.Points(spacing.verbatim(schedule, sigmas=points.times).times, told)
        return spacing.Points(spacing.verbatim(schedule, sigmas=sigmas).times, told)

    def _spread(self, steps: int, mu: float | None, original: int | None, strength: float) -> spacing.Points:
        """Points of so many steps: on the named grid, else where the host's scheduler has them."""
        schedule, settings, host = self.schedule, self.settings, self.spacing
        grid = self.grid
        if grid is not None:
            if isinstance(schedule, FlowSchedule) and settings.get("use_dynamic_shifting"):
                half = float(spacing.shift_of(schedule, settings, mu)(np.array(0.5)))
                schedule = schedules.flow(half / (1 - half), t_min=schedule.t_min)
            return spacing.Points(grid_times(grid, schedule, steps, **self.grid_options))
        if isinstance(schedule, FlowSchedule):
            return spacing.flow_points(schedule, host, settings, steps, None, mu)
        if not isinstance(schedule, BetaSchedule):
            return spacing.edm_points(schedule, self.host, settings, steps)
        if self._skips:
            return spacing.skipping_points(schedule, str(host), settings, steps, original, strength)
        return spacing.beta_points(schedule, host, settings, steps)

    def told(self, plan: Plan, points: spacing.Points) -> np.ndarray:
        """What the network is told in each row."""
        times = np.array([row.t for row in plan.rows])
        told = self.prediction.told(times)
        if points.told is not None:
            knots, values = points.times[: len(points.told)][::-1], points.told[::-1]
            low = self.prediction.told(points.times[-1:]) if points.times[-1] > self.schedule.t_clean else [0.0]
            told = np.interp(times, np.append(points.times[-1], knots), np.append(min(low[0], values[0]), values))
        if isinstance(self.schedule, BetaSchedule):
            told = np.maximum(told, 0.0)  # below the least noise of training a network is told its first time
        if self.round_times:
            near = any(self.settings.get(f"use_{name}") for name in ("karras_sigmas", "lu_lambdas"))
            if self.spacing in ("KDPM2Discrete", "KDPM2AncestralDiscrete") and self.grid is None:
                begins = [True, *(row.ends_step for row in plan.rows[:-1])]  # only the grid itself is rounded there
                return np.where(begins, np.round(told), told) if near else told
            if isinstance(self.schedule, BetaSchedule) and not near:  # whole times may be off by rounding
                told = np.round(told, 4)
            told = np.round(told) if near or self.grid is not None else np.floor(told)
        return told


def _means_steps(sigmas: np.ndarray) -> bool:
    """Whether flow sigmas are 1 .. 1/N, by which pipelines mean N steps."""
    n = len(sigmas)
    return n > 0 and bool(np.allclose(sigmas, np.linspace(1, 1 / n, n), atol=1e-6))
