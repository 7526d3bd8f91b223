"""Tuning from end to end: teacher, search, learning, and the certificate on noise that none of them saw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan, TunedFor
from fewstep.denoise.factors import factors_of, guided_rows
from fewstep.solvers.compile import compile
from fewstep.tuning import search
from fewstep.tuning.certificate import Certificate, Compared, Interval, gain
from fewstep.tuning.dynamic import cheapest_times, step_costs
from fewstep.tuning.intervals import fitted_layouts
from fewstep.tuning.learned import Learned, learn
from fewstep.tuning.problem import Known, Problem, overall
from fewstep.tuning.sizes import HELD_OUT, Sizes
from fewstep.tuning.starts import MOVED, Start, fitted_starts
from fewstep.tuning.stopwatch import Stopwatch
from fewstep.tuning.table import LEARNED
from fewstep.tuning.teacher import Teacher, path_of
from fewstep.tuning.teaching import Watch, taught

LEAST, MOST = 2, 32
"""Network evaluations that can be tuned for; a table of N rows holds N states."""
DISCOUNTS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.25)
FINALISTS, FAMILIES = 6, 4
"""Untuned plans that are compared on held-out noise, and samplers whose grids are searched."""
SEARCH_SHARE, TIMES_SHARE, INTERVAL_SHARE = 0.4, 0.6, 0.7
"""Of the time: when the search, the moving of times and that of an interval of guidance are over."""
RACED, RACE, RACE_SHARE = 3, 100, 0.3
"""Layouts of guidance that learn against each other, iterations of each, and their share of the time to learn."""


class Uncertified(KeyboardInterrupt):
    """Ctrl-C while the plan was measured on held-out noise: `plan` is the best so far, and may not beat the default."""

    def __init__(self, plan: Plan):
        super().__init__("interrupted before the plan was certified")
        self.plan = plan


class Tuned(NamedTuple):
    """The plan, which is the default where nothing beats it beyond noise, and what is known of it."""

    plan: Plan
    certificate: Certificate


def tune(
    problem: Problem,
    nfe: int,
    *,
    default: Plan | None = None,
    seconds: float = 120.0,
    iterations: int = 1500,
    samplers: Sequence[str] | None = None,
    sizes: Sizes | None = None,
    factors: bool = True,
    interval: bool = False,
    watch: Watch | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Find the plan of `nfe` network evaluations that is nearest to the converged solutions of `problem`.

    It compares every deterministic sampler on every grid, searches the parameters of grids and times by dynamic
    programming for the best of them, fits weights by least squares, and learns times and weights from the best of all.
    Ctrl-C ends the search or the learning, and the best plan so far is measured and returned.

    Args:
        nfe: 2 to 32; under guidance, rows of which each may cost two.
        default: what to compare with, and to return where nothing beats it; None is deis-3 on the quadratic grid.
        seconds: about how long it may take. With the same sizes, seed and iterations, and time for all of them, the
            same plan comes out.
        iterations: of learning, at most.
        samplers: to search among; None is every one that draws no noise.
        sizes: how many images are used; None takes as many as the time allows.
        factors: under classifier-free guidance of a constant scale, learn by how much each row takes it further or
            less far (`fewstep.denoise.factors`); the converged solution stays that of the constant scale.
        interval: guide some rows alone, so that there are more of them at the cost of `nfe` guided ones
            (`fewstep.tuning.intervals`), where that is nearer.
        watch: told the stage, how much of it is done, of how much, and the best error so far in words.

    Raises:
        InvalidInput: for counts out of range, unknown samplers, a default of other NFE or another noise schedule, an
            interval where guidance is not classifier-free by a constant scale, and a model that gives no finite images.
        KeyboardInterrupt: where there is no plan yet; as `Uncertified`, which has the plan, while that is measured.
    """
    if type(nfe) is not int or not LEAST <= nfe <= MOST:
        raise InvalidInput(f"nfe must be a whole number from {LEAST} to {MOST}, got {nfe!r}")
    if not seconds > 0 or type(iterations) is not int or iterations < 0:
        raise InvalidInput(f"seconds must be above 0 and iterations at least 0, got {seconds!r} and {iterations!r}")
    if default is None:
        default = compile("deis-3", schedule=problem.schedule, steps=nfe, grid="quadratic")
    if default.nfe != nfe or default.recipe.schedule_fingerprint != problem.schedule.fingerprint:
        raise InvalidInput(
            f"the default has {default.nfe} evaluations on {default.recipe.schedule['kind']}, and {nfe} on "
            f"{problem.schedule.kind} are tuned for: compile it for the same"
        )
    plans = search.untuned(problem.schedule, nfe, samplers)
    by_row = factors and problem.guided
    if interval and not by_row:
        raise InvalidInput(
            f"an interval is of classifier-free guidance by a constant scale whose factors are learned, and "
            f"{problem.name} is tuned without: leave it out, or tune at a scale other than 1"
        )
    watch = watch or (lambda stage, done, of, words: None)
    stopwatch = Stopwatch(float(seconds), clock)
    return _Tuning(problem, nfe, default, plans, stopwatch, iterations, sizes, by_row, interval, watch).run()


@dataclass
class _Tuning:
    """One run, and what it found so far."""

    problem: Problem
    nfe: int
    default: Plan
    plans: list[Plan]
    time: Stopwatch
    iterations: int
    sizes: Sizes | None
    factors: bool
    interval: bool
    watch: Watch
    best: Plan | None = None
    best_error: float = math.inf
    untuned_error: float = math.inf
    untuned: list[Plan] = field(default_factory=list)
    bests: list[tuple[float, Plan]] = field(default_factory=list)
    searched: dict[str, object] = field(default_factory=dict)
    learning: dict[str, int] | None = None
    stopped: list[str] = field(default_factory=list)

    def run(self) -> Tuned:
        with self.time.stage("teacher"):
            found = taught(self.problem, self.default, self.sizes, self.time, self.watch)
        teacher, self.sizes, self.each, train, self.validation, held_out = found
        try:
            with self.time.stage("search"):
                starts = self.search(teacher, train)
            with self.time.stage("learning"):
                self.learn(starts, train)
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.stopped.append("interrupted")
        with self.time.stage("certificate"):
            try:
                return self.certified(teacher, held_out)
            except KeyboardInterrupt as stop:
                raise Uncertified(self.best or self.default) from stop

    # --- stages ----------------------------------------------------------------------------------------------

    def search(self, teacher: Teacher, train: Known) -> list[Start]:
        """Untuned plans, then grids of the best of them; returns what to learn from, the best first."""
        problem, nfe = self.problem, self.nfe
        assert self.sizes is not None
        found = search.halving(
            problem,
            self.plans,
            train,
            self.sizes.rungs,
            enough=self.time.until(0.6 * SEARCH_SHARE),
            watch=self.watching("search"),
        )
        self.untuned = [scored.plan for scored in found[:FINALISTS]]
        for plan in (self.default, *self.untuned):
            self.untuned_error = min(self.untuned_error, self.tried(plan))
        path = path_of(problem, teacher, train.numbers[: min(self.sizes.path, problem.batch)])
        costs = step_costs(path, problem.schedule)
        dynamic = [cheapest_times(path, costs, nfe, discount) for discount in DISCOUNTS if nfe < len(path.times)]
        families = list(dict.fromkeys(scored.plan.recipe.sampler for scored in found))[:FAMILIES]
        more = search.variants(problem.schedule, nfe, families, dynamic)
        tuned = search.halving(
            problem, more, train, self.sizes.rungs, enough=self.time.until(SEARCH_SHARE), watch=self.watching("grids")
        )
        for scored in tuned[:FINALISTS]:
            self.tried(scored.plan)
        self.searched = {
            "untuned": len(self.plans), "variants": len(more), "images": list(self.sizes.rungs),
            "cut": self.time.after(SEARCH_SHARE),
        }  # fmt: skip
        numbers = train.numbers[: path.states.shape[1]]
        tables = fitted_starts(
            problem, teacher, path, dynamic, [*(s.plan for s in tuned[:2]), *self.untuned[:2]], numbers,
            enough=lambda part: self.time.after(SEARCH_SHARE + part * (TIMES_SHARE - SEARCH_SHARE)),
            watch=lambda done, error: self.watch("times", done, MOVED, f"error {error:.4g}"),
        )  # fmt: skip
        starts = [Start(table, (1.0,) * nfe if self.factors else None) for table in tables]
        if self.interval:
            fitted = fitted_layouts(
                problem, path, costs, numbers, 2 * nfe, MOST, DISCOUNTS,
                enough=lambda: self.time.after(INTERVAL_SHARE),
                watch=lambda done, of, error: self.watch("interval", done, of, f"error {error:.4g}"),
            )  # fmt: skip
            starts += [Start(one.table, one.factors) for one in fitted[:RACED]]
            self.searched["layouts"] = len(fitted)
            if not any(one.factors and 0 in one.factors for one in fitted):
                why = ": no time was left" if self.time.after(INTERVAL_SHARE) else ""
                self.stopped.append(f"guidance in some rows alone was not tried{why}")
        return self.scored(starts)

    def scored(self, starts: Sequence[Start]) -> list[Start]:
        """Those that give finite images, the best on the validation images first."""
        scored = []
        for start in starts:
            with suppress(InvalidInput):  # weights so large that rounding alone departs from the schedule
                scored.append((self.tried(start.plan(self.problem.schedule, self.tuned_for)), start))
        scored.sort(key=lambda one: one[0])
        return [start for error, start in scored if error < math.inf]

    def learn(self, starts: Sequence[Start], train: Known) -> None:
        """Learn from the best start for the rest of the time; of several layouts of guidance, after a short race."""
        assert self.sizes is not None
        held = self.sizes.held_out
        reserve = self.each * held * (self.nfe * (FINALISTS + 7) + 30 * len(self.problem.elsewhere))
        left = self.time.allowed - self.time.elapsed - reserve
        if not starts or not self.iterations or left <= 0:
            self.stopped += ["no time was left to learn"] * bool(self.iterations)
            return

        def see(done: int, of: int, best: Learned) -> None:
            self.note(best.plan, best.error)
            self.learning = {"iterations": done, "at_most": self.iterations, "best": best.best}
            self.watch("learning", done, of, f"error {self.best_error:.4g}, best untuned {self.untuned_error:.4g}")

        def learned(start: Start, iterations: int, seconds: float) -> Learned:
            ends = self.time.elapsed + seconds
            return learn(
                self.problem,
                start.table,
                train,
                self.validation,
                iterations=iterations,
                batch=min(self.problem.batch, max(32, min(256, len(train.numbers) // 4))),
                tuned_for=self.tuned_for,
                seed=self.problem.seed,
                factors=start.factors,
                seconds=lambda: ends - self.time.elapsed,
                watch=see,
            )

        ends, best = self.time.elapsed + left, starts[0]
        layouts: dict[tuple[bool, ...], Start] = {}
        for one in starts:
            layouts.setdefault(one.guided, one)
        if len(layouts) > 1:
            raced = list(layouts.values())[:RACED]
            share = RACE_SHARE * left / len(raced)
            found = [(learned(one, min(RACE, self.iterations), share), one) for one in raced]
            won, start = min(found, key=lambda pair: pair[0].error)
            best = Start.of(won.plan) or start
        learned(best, self.iterations, ends - self.time.elapsed)

    # --- what is kept ----------------------------------------------------------------------------------------

    @property
    def tuned_for(self) -> TunedFor:
        """What a learned plan says that it is for."""
        return TunedFor(self.problem.digest, dict(self.problem.settings))

    def tried(self, plan: Plan) -> float:
        """The error of a plan on the validation images; it may be the best so far."""
        error = self.problem.error(plan, self.validation)
        self.note(plan, error)
        return error

    def note(self, plan: Plan, error: float) -> None:
        """Keep `plan`, and when it came, where it is the best so far."""
        if error < self.best_error:
            self.best, self.best_error = plan, error
            self.bests.append((self.time.elapsed, plan))

    def twice(self, held_out: Known, untuned: float) -> float | None:
        """When a plan came with half the error of the best untuned one, on the held-out images; None for never.

        The plans came in the order of their errors on the validation images, so the first is found by bisection.
        """
        low, high = 0, len(self.bests)
        while low < high:
            middle = (low + high) // 2
            if self.problem.error(self.bests[middle][1], held_out) <= 0.5 * untuned:
                high = middle
            else:
                low = middle + 1
        return self.bests[low][0] if low < len(self.bests) else None

    def watching(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, of: self.watch(stage, done, of, "")

    def certified(self, teacher: Teacher, held_out: Known) -> Tuned:
        """The verdict on the held-out images."""
        problem, best = self.problem, self.best or self.default
        plans = {plan.digest: plan for plan in (best, self.default, *self.untuned)}
        errors: dict[str, Tensor] = {}
        for i, (digest, plan) in enumerate(plans.items()):
            self.watch("certificate", i, len(plans), "")
            errors[digest] = problem.errors(plan, held_out)
        objective = problem.objective

        def error(plan: Plan) -> float:
            return overall(errors[plan.digest], objective)

        over = gain(errors[self.default.digest], errors[best.digest], objective)
        told_apart = error(self.default) > teacher.error
        chosen = best if over.low > 1 and told_apart else self.default
        rival = min([self.default, *self.untuned], key=error)
        cost = guided_rows if problem.guided else lambda plan: 0
        rows = [
            Compared.of(self.kind(plan), plan, errors[digest], plan.nfe + cost(plan)) for digest, plan in plans.items()
        ]
        self.time.spent["twice"] = self.twice(held_out, error(rival))
        elsewhere = self.elsewhere(teacher, chosen, rival, len(held_out.numbers) // 4)
        self.time.spent["total"] = self.time.elapsed
        assert self.sizes is not None
        sizes = self.sizes
        certificate = Certificate(
            plan=chosen.digest,
            kind=self.kind(chosen),
            nfe=self.nfe,
            model={"name": problem.name, "digest": problem.digest},
            settings=dict(problem.settings),
            schedule=problem.schedule.fingerprint,
            seed=problem.seed,
            compared=sorted(rows, key=lambda row: row.error(objective).value),
            over_default=over if chosen is best else Interval(1.0, 1.0, 1.0),
            over_untuned=gain(errors[rival.digest], errors[chosen.digest], objective),
            elsewhere=elsewhere,
            teacher={
                "sampler": teacher.plan.recipe.sampler,
                "grid": teacher.plan.recipe.grid,
                "nfe": teacher.plan.nfe,
                "error": teacher.error,
            },
            images={"train": sizes.train, "validation": sizes.validation, "held_out": sizes.held_out},
            search=self.searched,
            learning=self.learning,
            seconds=self.time.spent,
            stopped="; ".join(self.stopped),
            factors=factors_of(chosen),
            objective=objective,
        )
        return Tuned(chosen, certificate)

    def kind(self, plan: Plan) -> str:
        if plan == self.default:
            return "default"
        if plan in self.untuned:
            return "untuned"
        return LEARNED if plan.recipe.sampler == LEARNED else "searched"

    def elsewhere(self, teacher: Teacher, plan: Plan, rival: Plan, count: int) -> dict[str, Interval]:
        """The gain of `plan` over `rival` under the other settings of the problem."""
        found = {}
        for name, denoiser in self.problem.elsewhere.items():
            other = replace(self.problem, denoiser=denoiser, elsewhere={})
            if plan.nfe > rival.nfe and not other.guided:
                continue  # without guidance more rows cost more
            numbers = range(HELD_OUT, HELD_OUT + count)
            images = Known(numbers, other.solve(teacher.plan, numbers))
            found[name] = gain(other.errors(rival, images), other.errors(plan, images), other.objective)
        return found
