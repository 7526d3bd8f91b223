"""Tuning from end to end: teacher, search, learning, and the certificate on noise that none of them saw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float
from fewstep.denoise.factors import factors_of
from fewstep.solvers.compile import compile
from fewstep.tune import search
from fewstep.tune.certificate import Certificate, Compared, Interval, gain
from fewstep.tune.dynamic import cheapest_times, step_costs
from fewstep.tune.fitted import fitted_table, moved_times
from fewstep.tune.learned import Learned, learn
from fewstep.tune.problem import Known, Problem, overall
from fewstep.tune.sizes import Sizes
from fewstep.tune.table import LEARNED, Table, plan_of, table_of
from fewstep.tune.teacher import Path, Teacher, find_teacher, path_of

TRAIN, VALIDATION, HELD_OUT = 0, 2**28, 2**29
"""The numbers of the images of each part begin here, so that parts never meet whatever their sizes."""
LEAST, MOST = 2, 32
"""Network evaluations that can be tuned for; a table of N rows holds N states."""
DISCOUNTS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.25)
FINALISTS, FAMILIES, MOVED = 6, 4, 2
"""Untuned plans that are compared on held-out noise, samplers whose grids are searched, and times that are moved."""
TEACHER_SHARE, SEARCH_SHARE, TIMES_SHARE = 0.2, 0.4, 0.6
"""Of the time: what the converged solutions may take, and when the search and the moving of times are over."""
LEAST_IMAGES, MOST_IMAGES = 16, 4096

Watch = Callable[[str, int, int, str], None]


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
    watch: Watch | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Find the plan of `nfe` network evaluations that is nearest to the converged solutions of `problem`.

    It compares every deterministic sampler on every grid, searches the parameters of grids and times by dynamic
    programming for the best of them, fits weights by least squares, and learns times and weights from the best of all.
    Ctrl-C ends the stage, and the best plan so far is measured and returned.

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
        watch: told the stage, how much of it is done, of how much, and the best error so far in words.

    Raises:
        InvalidInput: for counts out of range, unknown samplers, a default of other NFE or another noise schedule, and
            a model that gives no finite images.
        KeyboardInterrupt: where there is no plan yet.
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
    watch = watch or _unseen
    return _Tuning(problem, nfe, default, plans, float(seconds), iterations, sizes, by_row, watch, clock).run()


def _unseen(stage: str, done: int, of: int, words: str) -> None:
    pass


@dataclass
class _Tuning:
    """One run, and what it found so far."""

    problem: Problem
    nfe: int
    default: Plan
    plans: list[Plan]
    allowed: float
    iterations: int
    sizes: Sizes | None
    factors: bool
    watch: Watch
    clock: Callable[[], float]
    best: Plan | None = None
    best_error: float = math.inf
    untuned_error: float = math.inf
    untuned: list[Plan] = field(default_factory=list)
    spent: dict[str, float | None] = field(default_factory=dict)
    bests: list[tuple[float, Plan]] = field(default_factory=list)
    searched: dict[str, object] = field(default_factory=dict)
    learning: dict[str, int] | None = None
    stopped: str = ""

    def run(self) -> Tuned:
        self.began = self.clock()
        with self.stage("teacher"):
            teacher, train, validation, held_out = self.taught()
        self.validation = validation
        try:
            with self.stage("search"):
                tables = self.search(teacher, train)
            with self.stage("learning"):
                self.learn(tables, train)
        except KeyboardInterrupt:
            if self.best is None:
                raise
            self.stopped = "interrupted"
        with self.stage("certificate"):
            return self.certified(teacher, held_out)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = self.clock()
        try:
            yield
        finally:
            self.spent[name] = self.clock() - before

    @property
    def elapsed(self) -> float:
        return self.clock() - self.began

    # --- stages ----------------------------------------------------------------------------------------------

    def taught(self) -> tuple[Teacher, Known, Known, Known]:
        """The teacher, and the images with their converged solutions."""
        problem, pilot = self.problem, 16 if self.sizes is None else self.sizes.pilot
        self.watch("teacher", 0, 4, "how many steps converge")
        teacher = find_teacher(problem, range(TRAIN, TRAIN + pilot), self.default)
        self.each = self.elapsed / teacher.evaluations
        self.sizes = sizes = self.sizes or self.affordable(teacher)
        parts = []
        for first, count in ((TRAIN, sizes.train), (VALIDATION, sizes.validation), (HELD_OUT, sizes.held_out)):
            numbers = range(first, first + count)
            self.watch("teacher", len(parts) + 1, 4, f"{count} images in {teacher.plan.nfe} steps")
            parts.append(Known(numbers, problem.solve(teacher.plan, numbers)))
        return teacher, *parts

    def affordable(self, teacher: Teacher) -> Sizes:
        """The most training images, a power of two, whose solutions take no more than their share of the time."""
        train = MOST_IMAGES
        while train > LEAST_IMAGES:
            if self.each * teacher.plan.nfe * Sizes.of(train).solved <= TEACHER_SHARE * self.allowed:
                break
            train //= 2
        return Sizes.of(train)

    def search(self, teacher: Teacher, train: Known) -> list[Table]:
        """Untuned plans, then grids of the best of them; returns the tables to learn from, the best first."""
        problem, schedule, nfe = self.problem, self.problem.schedule, self.nfe
        assert self.sizes is not None
        found = search.halving(
            problem,
            self.plans,
            train,
            self.sizes.rungs,
            enough=self.within(0.6),
            watch=self.watching("search"),
        )
        self.untuned = [scored.plan for scored in found[:FINALISTS]]
        for plan in (self.default, *self.untuned):
            self.untuned_error = min(self.untuned_error, self.tried(plan))
        path = path_of(problem, teacher, train.numbers[: min(self.sizes.path, problem.batch)])
        costs = step_costs(path, schedule)
        dynamic = [cheapest_times(path, costs, nfe, discount) for discount in DISCOUNTS if nfe < len(path.times)]
        families = list(dict.fromkeys(scored.plan.recipe.sampler for scored in found))[:FAMILIES]
        more = search.variants(schedule, nfe, families, dynamic)
        tuned = search.halving(
            problem, more, train, self.sizes.rungs, enough=self.within(1.0), watch=self.watching("grids")
        )
        for scored in tuned[:FINALISTS]:
            self.tried(scored.plan)
        self.searched = {
            "untuned": len(self.plans), "variants": len(more), "images": list(self.sizes.rungs),
            "cut": self.elapsed > SEARCH_SHARE * self.allowed,
        }  # fmt: skip
        return self.starts(teacher, path, dynamic, [*(s.plan for s in tuned[:2]), *self.untuned[:2]])

    def starts(self, teacher: Teacher, path: Path, dynamic: Sequence[Float], plans: Sequence[Plan]) -> list[Table]:
        """Tables to learn from, the best on the validation images first: plans, and weights fitted at good times."""
        problem, numbers = self.problem, range(TRAIN, TRAIN + path.states.shape[1])
        tables = [table for plan in plans if (table := table_of(plan)) is not None]
        fitted = [fitted_table(problem, path, times, numbers) for times in dynamic]
        if tables:
            times = tables[0].times
            through = path_of(problem, teacher, numbers, times)
            tables.append(fitted_table(problem, through, times, numbers).table)
        fitted.sort(key=lambda one: one.error)
        for i, one in enumerate(fitted[:MOVED]):
            self.watch("times", i, MOVED, f"error {one.error:.4g}")
            enough = self.after(SEARCH_SHARE + (i + 1) / MOVED * (TIMES_SHARE - SEARCH_SHARE))
            tables += [one.table, moved_times(problem, path, one, numbers, enough).table]
        scored = []
        for table in tables:
            with suppress(InvalidInput):  # weights so large that rounding alone departs from the schedule
                scored.append((self.tried(plan_of(table, problem.schedule, self.options)), table))
        scored.sort(key=lambda one: one[0])
        return [table for error, table in scored if error < math.inf]

    def learn(self, tables: Sequence[Table], train: Known) -> None:
        """Learn from the best table for the rest of the time."""
        assert self.sizes is not None
        held = self.sizes.held_out
        reserve = self.each * held * (self.nfe * (FINALISTS + 7) + 30 * len(self.problem.elsewhere))
        left = self.allowed - self.elapsed - reserve
        if not tables or not self.iterations or left <= 0:
            self.stopped = "" if not self.iterations else "no time was left to learn"
            return

        def see(done: int, of: int, best: Learned) -> None:
            self.note(best.plan, best.error)
            self.learning = {"iterations": done, "at_most": self.iterations, "best": best.best}
            self.watch("learning", done, of, f"error {self.best_error:.4g}, best untuned {self.untuned_error:.4g}")

        ends = self.elapsed + left
        learn(
            self.problem,
            tables[0],
            train,
            self.validation,
            iterations=self.iterations,
            batch=min(self.problem.batch, max(32, min(256, len(train.numbers) // 4))),
            options=self.options,
            seed=self.problem.seed,
            factors=self.factors,
            seconds=lambda: ends - self.elapsed,
            watch=see,
        )

    # --- what is kept ----------------------------------------------------------------------------------------

    @property
    def options(self) -> dict[str, object]:
        """What a learned plan says that it is for."""
        return {"model": self.problem.digest, **self.problem.settings}

    def tried(self, plan: Plan) -> float:
        """The error of a plan on the validation images; it may be the best so far."""
        error = self.problem.error(plan, self.validation)
        self.note(plan, error)
        return error

    def note(self, plan: Plan, error: float) -> None:
        """Keep `plan`, and when it came, where it is the best so far."""
        if error < self.best_error:
            self.best, self.best_error = plan, error
            self.bests.append((self.elapsed, plan))

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

    def within(self, share: float) -> Callable[[float], bool]:
        """Whether a part of the time from now to `share` of the search's is over."""
        now, end = self.elapsed, share * SEARCH_SHARE * self.allowed
        return lambda part: self.elapsed > now + part * max(end - now, 0.0)

    def after(self, share: float) -> Callable[[], bool]:
        """Whether this share of the time is over."""
        return lambda: self.elapsed > share * self.allowed

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
        rows = [Compared.of(self.kind(plan), plan, errors[digest]) for digest, plan in plans.items()]
        self.spent["twice"] = self.twice(held_out, error(rival))
        elsewhere = self.elsewhere(teacher, chosen, rival, len(held_out.numbers) // 4)
        self.spent["total"] = self.elapsed
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
            seconds=self.spent,
            stopped=self.stopped,
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
            numbers = range(HELD_OUT, HELD_OUT + count)
            images = Known(numbers, other.solve(teacher.plan, numbers))
            found[name] = gain(other.errors(rival, images), other.errors(plan, images), other.objective)
        return found
