"""What a tuning is asked for, which every stage is given, and the best plan that they leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from fewstep.core.plan import Plan, TunedFor
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.settings import TuningSettings
from fewstep.tuning.timelimit import TimeLimit

Watch = Callable[[str, int, int, str], None]
"""Told the stage, how much of it is done, of how much, and the best error so far in words."""


@dataclass(frozen=True)
class TuningTask:
    """What is asked for.

    Attributes:
        rows: of the plan; under guidance all of them are guided, or others are guided that cost as much.
        default: what the plan has to beat.
        factors: whether those of guidance by row are learned.
    """

    problem: Problem
    rows: int
    default: Plan
    settings: TuningSettings
    factors: bool
    time: TimeLimit
    watch: Watch

    @property
    def tuned_for(self) -> TunedFor:
        """What a learned plan says that it is for."""
        return TunedFor(self.problem.digest, dict(self.problem.settings))

    def watching(self, stage: str) -> Callable[[int, int], None]:
        """`watch` for a stage without words."""
        return lambda done, of: self.watch(stage, done, of, "")


@dataclass
class Best:
    """The best plan so far by the error on the validation images: what Ctrl-C leaves.

    Attributes:
        came: when each plan came that was the best then, in seconds.
        learning: how far that went: iterations, of how many at most, and after how many the best came.
    """

    plan: Plan | None = None
    error: float = math.inf
    came: list[tuple[float, Plan]] = field(default_factory=list)
    learning: dict[str, int] | None = None

    def note(self, plan: Plan, error: float, time: TimeLimit) -> None:
        """Keep a plan where it is the best so far."""
        if error < self.error:
            self.plan, self.error = plan, error
            self.came.append((time.elapsed, plan))

    def tried(self, task: TuningTask, plan: Plan, validation: Solutions) -> float:
        """The error of a plan, which may be the best so far."""
        error = task.problem.error(plan, validation)
        self.note(plan, error, task.time)
        return error
