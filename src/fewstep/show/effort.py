"""Figure 4: how many evaluations each strategy, a sampler on a grid, needs to come as near as asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput, positive
from fewstep.core.schedule import Schedule
from fewstep.show.exact import Exact
from fewstep.show.mixture import Mixture
from fewstep.show.strategy import Strategy, deterministic, error, exact_from

DEFAULTS = (
    ("euler", "trailing"),
    ("euler", "karras"),
    ("heun", "karras"),
    ("dpmpp-2s", "exponential"),
    ("dpmpp-2m", "trailing"),
    ("dpmpp-2m", "karras"),
    ("dpmpp-2m", "exponential"),
    ("deis-3", "exponential"),
    ("unipc-2", "exponential"),
    ("unipc-3", "exponential"),
)


class Need(NamedTuple):
    """The least evaluations found and the error with them; `nfe` is None where the limit is not enough."""

    strategy: Strategy
    nfe: int | None
    steps: int | None
    error: float

    @property
    def name(self) -> str:
        """Sampler and grid."""
        return f"{self.strategy.name}, {self.strategy.grid}"


class Effort(NamedTuple):
    """What every strategy needs, the cheapest first."""

    mixture: Mixture
    schedule: Schedule
    target: float
    limit: int
    noises: int
    seed: int
    needs: Sequence[Need]

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        met = [need for need in self.needs if need.nfe is not None]
        if not met:
            return f"None comes within {self.target:g} of the exact solution in {self.limit} evaluations"
        best, last = met[0], self.needs[-1]
        rest = f"more than {self.limit}" if last.nfe is None else f"{last.nfe}"
        tail = f"; {last.name} needs {rest}" if last is not best else ""
        return f"{best.name} comes within {self.target:g} of the exact solution in {best.nfe} evaluations{tail}"

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data."""
        return {
            "figure": "steps",
            "finding": self.finding,
            "schedule": self.schedule.spec,
            "target": self.target,
            "limit": self.limit,
            "noises": self.noises,
            "seed": self.seed,
            "mixture": self.mixture.described(),
            "needs": [
                {"sampler": n.strategy.name, "grid": n.strategy.grid, "nfe": n.nfe, "steps": n.steps, "error": n.error}
                for n in self.needs
            ],
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """A strategy a line."""
        rows = [[n.strategy.name, n.strategy.grid, n.nfe, n.steps, n.error] for n in self.needs]
        return ["sampler", "grid", "nfe", "steps", "error"], rows


def effort(
    mixture: Mixture,
    schedule: Schedule,
    strategies: Sequence[Strategy],
    *,
    target: float = 0.02,
    limit: int = 500,
    count: int = 32,
    seed: int = 0,
    on_strategy: Callable[[int, int], None] | None = None,
) -> Effort:
    """Find for each strategy the least evaluations with which it ends within `target` of the exact data, up to `limit`.

    Steps are doubled until the error is met, then bisected, as if it fell with every step.

    Raises:
        InvalidInput: for a target that is not above 0, and for a strategy that draws noise.
    """
    positive("target", target)
    exact = exact_from(mixture, schedule, count, seed)
    needs = []
    for done, strategy in enumerate(strategies):
        if on_strategy is not None:
            on_strategy(done, len(strategies))
        needs.append(least(strategy, exact, schedule, target, limit))
    needs.sort(key=lambda n: (n.nfe is None, n.nfe or 0, n.error))
    return Effort(mixture, schedule, target, limit, count, seed, needs)


def least(strategy: Strategy, exact: Exact, schedule: Schedule, target: float, limit: int) -> Need:
    """What one strategy needs."""

    def tried(steps: int) -> Need:
        plan = strategy.plan(schedule, steps)
        deterministic(strategy, plan)
        return Need(strategy, plan.nfe(), steps, error(plan, exact))

    low, high, most = 0, 1, strategy.within(schedule, limit)
    if most is None:
        raise InvalidInput(f"{strategy.name} needs more than {limit} evaluations for one step: raise the limit")
    while (found := tried(high)).error > target:
        if high == most.steps:
            return Need(strategy, None, None, found.error)
        low, high = high, min(2 * high, most.steps)
    while high - low > 1:
        middle = (low + high) // 2
        now = tried(middle)
        if now.error > target:
            low = middle
        else:
            high, found = middle, now
    return found
