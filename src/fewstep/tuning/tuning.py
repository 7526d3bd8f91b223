"""Tuning from end to end: teacher, search, learning, and the certificate on noise that none of them saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float
from fewstep.tuning.budget import MOST, budget_of
from fewstep.tuning.certificate import Certificate
from fewstep.tuning.fit import MOVED, starting_tables
from fewstep.tuning.intervals import fitted_layouts
from fewstep.tuning.learning import Start
from fewstep.tuning.race import RACED, learn_from, ranked
from fewstep.tuning.rivals import FINALISTS, contenders_of, rivals_of, strongest
from fewstep.tuning.search import Scored, halving, variants
from fewstep.tuning.settings import TuningSettings
from fewstep.tuning.standings import standings_of
from fewstep.tuning.subject import Subject, problem_at
from fewstep.tuning.task import Best, TuningTask, Watch
from fewstep.tuning.teacher import Lessons, TeacherPath, lessons_of, path_of
from fewstep.tuning.timelimit import TimeLimit
from fewstep.tuning.times import DISCOUNTS, cheapest_times, step_costs
from fewstep.tuning.verdict import certified

FAMILIES = 4
"""Samplers whose grids are searched."""
SEARCH_SHARE, TIMES_SHARE, INTERVAL_SHARE, RIVALS_SHARE = 0.45, 0.6, 0.7, 1.0
"""Of the time: when the search, the moving of times, that of an interval of guidance and the measuring of rivals on
held-out images are over.
"""


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
    subject: Subject,
    *,
    rows: int | None = None,
    nfe: float | None = None,
    ms: float | None = None,
    guidance: float | None = None,
    settings: TuningSettings | None = None,
    default: Plan | None = None,
    watch: Watch | None = None,
) -> Tuned:
    """Find the plan for a budget that is nearest to the converged solutions of a model.

    It compares every deterministic sampler on every grid, measures the best of them and the strongest that are known on
    held-out noise, searches the parameters of grids and times by dynamic programming, fits weights by least squares,
    and learns times and weights from the best of all. Ctrl-C ends the search or the learning, and the best plan so far
    is measured and returned.

    Args:
        subject: what `fewstep.load` made, or a `Problem`.
        rows, nfe, ms: the budget, one of them: 2 to 32 rows of the plan; network evaluations of an image, of which a
            guided row takes two; or milliseconds that an image may take here, which are measured.
        guidance: the scale to tune for; None is the pipeline's own. A problem has its own.
        settings: what is rarely chosen, such as the `seconds` it may take.
        default: what to compare with, and to return where nothing beats it; None is what the subject draws with.
        watch: told the stage, how much of it is done, of how much, and the best error so far in words.

    Raises:
        InvalidInput: for counts out of range, unknown samplers, a default of other rows or another noise schedule, an
            interval where guidance is not classifier-free by a constant scale, and a model that gives no finite images.
        KeyboardInterrupt: where there is no plan yet; as `Uncertified`, which has the plan, while that is measured.
    """
    settings = settings or TuningSettings()
    problem = problem_at(subject, guidance, settings)
    if settings.interval and rows is not None:
        raise InvalidInput("with interval, the number of rows is found: give nfe= or ms= in place of rows=")
    rows = budget_of(problem, rows, nfe, ms).rows
    default = problem.untuned(rows) if default is None else default
    if len(default.rows) != rows or default.recipe.schedule_fingerprint != problem.schedule.fingerprint:
        raise InvalidInput(
            f"the default has {len(default.rows)} rows on {default.recipe.schedule['kind']}, and {rows} on "
            f"{problem.schedule.kind} are tuned for: compile it for the same"
        )
    time = TimeLimit(float(settings.seconds), settings.clock)
    strong = strongest()
    plans = sorted(
        rivals_of(problem.schedule, rows, settings.samplers),
        key=lambda plan: (plan.recipe.sampler, plan.recipe.grid) not in strong,
    )
    factors = settings.factors and problem.guided
    if settings.interval and not factors:
        raise InvalidInput(
            f"interval needs classifier-free guidance at a constant scale, with factors, and {problem.name} is tuned "
            "without: leave interval out, or tune at a scale other than 1"
        )
    watch = watch or (lambda stage, done, of, words: None)
    return _tuned(TuningTask(problem, rows, default, settings, factors, time, watch), plans)


def _tuned(task: TuningTask, plans: Sequence[Plan]) -> Tuned:
    """All stages, one after the other; what is done when it is interrupted goes into the certificate."""
    with task.time.stage("teacher"):
        lessons = lessons_of(task)
    best, standings = Best(), None
    contenders = contenders_of(task.problem.schedule, task.rows)
    searched: dict[str, Any] = {}
    stopped: list[str] = []
    try:
        with task.time.stage("search"):
            scored = _compared(task, lessons, plans)
            rivals = [one.plan for one in scored[:FINALISTS]]
            untuned = min(best.tried(task, plan, lessons.validation) for plan in (task.default, *rivals))
        with task.time.stage("rivals"):
            standings = standings_of(
                task.problem,
                task.default,
                contenders,
                rivals,
                lessons.held_out,
                enough=lambda: task.time.after(RIVALS_SHARE),
                watch=task.watching("rivals"),
            )
        with task.time.stage("grids"):
            grids = _grids(task, lessons, scored, best)
            searched = {"untuned": len(plans), "variants": grids.tried, "cut": task.time.after(SEARCH_SHARE)}
            starts = _starts(task, lessons, grids, rivals)
            if task.settings.interval:
                layouts = _layouts(task, grids)
                starts += layouts[:RACED]
                searched["layouts"] = len(layouts)
                if all(all(one.guided) for one in layouts):
                    why = ": no time was left" if task.time.after(INTERVAL_SHARE) else ""
                    stopped.append(f"guidance in some rows alone was not tried{why}")
            starts = ranked(task, lessons, starts, best)
        with task.time.stage("learning"):

            def watch(done: int, of: int) -> None:
                task.watch("learning", done, of, f"error {best.error:.4g}, best untuned {untuned:.4g}")

            if why := learn_from(task, lessons, starts, best, watch):
                stopped.append(why)
    except KeyboardInterrupt:
        if best.plan is None:
            raise
        stopped.append("interrupted")
    with task.time.stage("certificate"):
        try:
            if standings is None:  # interrupted before
                standings = standings_of(
                    task.problem, task.default, contenders, (), lessons.held_out, enough=lambda: True
                )
            return Tuned(*certified(task, lessons, best, standings, searched, "; ".join(stopped)))
        except KeyboardInterrupt as stop:
            raise Uncertified(best.plan or task.default) from stop


class _Grids(NamedTuple):
    """The best plans on grids with parameters, of how many `tried`; the teacher's path, and good times on it."""

    plans: list[Plan]
    tried: int
    path: TeacherPath
    costs: Float
    times: list[Float]


def _compared(task: TuningTask, lessons: Lessons, plans: Sequence[Plan]) -> list[Scored]:
    """The rivals, the best first."""
    enough = task.time.until(0.7 * SEARCH_SHARE)
    return halving(
        task.problem, plans, lessons.train, lessons.sizes.rungs, enough=enough, watch=task.watching("search")
    )


def _grids(task: TuningTask, lessons: Lessons, scored: Sequence[Scored], best: Best) -> _Grids:
    """The best samplers on more grids, and at times by dynamic programming."""
    problem, rows = task.problem, task.rows
    numbers = lessons.train.numbers[: min(lessons.sizes.path, problem.batch)]
    path = path_of(problem, lessons.teacher.plan, numbers)
    costs = step_costs(path, problem.schedule)
    times = [cheapest_times(path, costs, rows, discount) for discount in DISCOUNTS if rows < len(path.times)]
    families = list(dict.fromkeys(one.plan.recipe.sampler for one in scored))[:FAMILIES]
    more = variants(problem.schedule, rows, families, times)
    enough = task.time.until(SEARCH_SHARE)
    found = halving(problem, more, lessons.train, lessons.sizes.rungs, enough=enough, watch=task.watching("grids"))
    for one in found[:FINALISTS]:
        best.tried(task, one.plan, lessons.validation)
    return _Grids([one.plan for one in found], len(more), path, costs, times)


def _starts(task: TuningTask, lessons: Lessons, grids: _Grids, rivals: Sequence[Plan]) -> list[Start]:
    """Where to learn from: the best plans, and tables by least squares."""
    tables = starting_tables(
        task.problem,
        lessons.teacher.plan,
        grids.path,
        grids.times,
        [*grids.plans[:2], *rivals[:2]],
        enough=lambda part: task.time.after(SEARCH_SHARE + part * (TIMES_SHARE - SEARCH_SHARE)),
        watch=lambda done, error: task.watch("times", done, MOVED, f"error {error:.4g}"),
    )
    return [Start(table, (1.0,) * task.rows if task.factors else None) for table in tables]


def _layouts(task: TuningTask, grids: _Grids) -> list[Start]:
    """The same evaluations in other rows, of which some alone are guided; the best first."""
    found = fitted_layouts(
        task.problem,
        grids.path,
        grids.costs,
        2 * task.rows,
        MOST,
        DISCOUNTS,
        enough=lambda: task.time.after(INTERVAL_SHARE),
        watch=lambda done, of, error: task.watch("interval", done, of, f"error {error:.4g}"),
    )
    return [Start(one.table, one.factors) for one in found]
