"""What is compared: samplers x grids x steps, and plans from files, x guidance x precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from fewstep.benchmark.measured import ModelFacts, Precision
from fewstep.core.errors import InvalidInput, one_of, unknown_name
from fewstep.core.grid import GRIDS
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.models import check_tuned_for
from fewstep.solvers.compiler import compile
from fewstep.solvers.registry import SAMPLERS
from fewstep.tuning.rivals import fitting
from fewstep.tuning.subject import check_scale

MOST_STEPS, MOST_CASES = 1000, 20_000
COMMON = ("ddim", "dpmpp-2m", "unipc-3", "deis-3", "heun")
GRIDS_TRIED = ("trailing", "quadratic", "karras")
STEPS_TRIED = (4, 5, 6, 8, 10, 12, 15, 20)


@dataclass(frozen=True)
class Sweep:
    """What to compare; each of all with each of all.

    Attributes:
        samplers, grids: names of `fewstep samplers` and `fewstep grids`, with their own defaults.
        steps: 1 to 1000 each. In their place `rows`, of a plan, or `nfe`, network evaluations of an image with guidance
            counted: of either a sampler takes the most steps that fit.
        guidance: scales; None is the model's own.
        precisions: what the network computes in: "float32", "bfloat16", "float16".
        plans: files of plans, measured with every scale and precision too.
        force: take plans that were tuned for another model.
    """

    samplers: Sequence[str] = COMMON
    grids: Sequence[str] = GRIDS_TRIED
    steps: Sequence[int] | None = None
    rows: Sequence[int] | None = None
    nfe: Sequence[int] | None = None
    guidance: Sequence[float | None] = (None,)
    precisions: Sequence[str] = ("float32",)
    plans: Sequence[str | Path] = ()
    force: bool = False

    def __post_init__(self) -> None:
        for what, names, known in (("sampler", self.samplers, SAMPLERS), ("grid", self.grids, GRIDS)):
            for name in names:
                if name not in known:
                    raise unknown_name(what, str(name), known)
        if sum(counts is not None for counts in (self.steps, self.rows, self.nfe)) > 1:
            raise InvalidInput("steps, rows and nfe say the same in different ways: give one of them")
        for count in self.counts:
            if type(count) is not int or not 1 <= count <= MOST_STEPS:
                raise InvalidInput(f"{self.counted} must be whole numbers from 1 to {MOST_STEPS}, got {count!r}")
        for scale in self.guidance:
            check_scale(scale)
        for name in self.precisions:
            one_of("precision", name, get_args(Precision))
        if not self.guidance or not self.precisions:
            raise InvalidInput("there is nothing to measure: give a guidance scale and a precision at least")

    @property
    def counted(self) -> str:
        """What is counted: "steps", "rows" or "nfe"."""
        return "rows" if self.rows else "nfe" if self.nfe else "steps"

    @property
    def counts(self) -> Sequence[int]:
        """The steps, the rows or the evaluations."""
        return tuple(dict.fromkeys(self.rows or self.nfe or self.steps or STEPS_TRIED))


class Candidate(NamedTuple):
    """A plan to measure; `file` is where it came from, None for a sampler on a grid."""

    plan: Plan
    file: Path | None = None


class Target(NamedTuple):
    """What plans are made for: a model, and the network evaluations that one row takes."""

    model: ModelFacts
    schedule: Schedule
    cost: int


class Candidates(NamedTuple):
    """The plans of a sweep, and why others cannot be made, by their names."""

    plans: Sequence[Candidate]
    skipped: Mapping[str, str]


def candidates_of(sweep: Sweep, target: Target) -> Candidates:
    """The plans of a sweep for a model at one guidance scale.

    Raises:
        InvalidInput: for a plan of another model or noise schedule, where nothing can be made, and for too many.
    """
    found: dict[str, Candidate] = {}
    for file in map(Path, sweep.plans):
        candidate = Candidate(_from_file(file, target, sweep.force), file)
        found.setdefault(candidate.plan.digest, candidate)
    skipped: dict[str, str] = {}
    for name in dict.fromkeys(sweep.samplers):
        for grid in dict.fromkeys(sweep.grids):
            for count in sweep.counts:
                try:
                    plan = _made(name, grid, count, sweep.counted, target)
                except InvalidInput as error:
                    skipped[f"{name} on {grid}, {count}"] = str(error)
                else:
                    found.setdefault(plan.digest, Candidate(plan))
    if not found:
        raise InvalidInput(next(iter(skipped.values()), "there is nothing to measure: give samplers, grids or plans"))
    total = len(found) * len(sweep.guidance) * len(sweep.precisions)
    if total > MOST_CASES:
        raise InvalidInput(f"the sweep has {total:,} cases, at most {MOST_CASES:,} are measured: give fewer of some")
    return Candidates(tuple(found.values()), skipped)


def _made(name: str, grid: str, count: int, counted: str, target: Target) -> Plan:
    """A sampler on a grid, of so many steps, or as many as fit."""
    if counted == "steps":
        return compile(name, schedule=target.schedule, steps=count, grid=grid)
    rows = count if counted == "rows" else count // target.cost
    plan = next(fitting(name, target.schedule, rows, grid=grid), None)
    if plan is None:
        what = f"{count} rows" if counted == "rows" else f"NFE {count}, of which a row takes {target.cost}"
        raise InvalidInput(f"{name} on {grid} has no plan of at most {what}")
    return plan


def _from_file(file: Path, target: Target, force: bool) -> Plan:
    plan, model, schedule = Plan.load(file), target.model, target.schedule
    if not force:
        check_tuned_for(plan, model.identity, "tune one for it with `fewstep tune`, or use --force")
    if plan.recipe.schedule_fingerprint != schedule.fingerprint:
        raise InvalidInput(
            f"{file} is of the noise schedule {plan.recipe.schedule.get('kind')!r} "
            f"({plan.recipe.schedule_fingerprint}), {model.name} has {schedule.kind!r} ({schedule.fingerprint})"
        )
    if plan.inputs != 1 or plan.recipe.reverse or plan.exit[1] != 0:
        raise InvalidInput(f"{file} does not lead from noise to clean data, so it draws no images: give another")
    return plan
