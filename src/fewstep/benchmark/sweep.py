"""What is compared: samplers x grids x steps, and plans from files, x guidance x precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput, one_of, unknown_name
from fewstep.core.grid import GRIDS
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.solvers.compile import compile
from fewstep.solvers.registry import SAMPLERS
from fewstep.tuning.rivals import fitting
from fewstep.tuning.subject import check_scale
from fewstep.tuning.table import LEARNED, check_model

MOST_STEPS, MOST_CASES = 1000, 20_000
COMMON = ("ddim", "dpmpp-2m", "unipc-3", "deis-3", "heun")
GRIDS_TRIED = ("trailing", "quadratic", "karras")
STEPS_TRIED = (4, 5, 6, 8, 10, 12, 15, 20)


@dataclass(frozen=True)
class Sweep:
    """What to compare; each of all with each of all.

    Attributes:
        samplers, grids: names of `fewstep samplers` and `fewstep grids`, with their own defaults.
        steps: 1 to 1000 each; `nfe`, in their place: rows of a plan, of which a sampler of several evaluations a step
            takes as many steps as fit.
        guidance: scales; None is the model's own.
        precisions: what the network computes in: "float32", "bfloat16", "float16".
        plans: files of plans, measured with every scale and precision too.
        force: take plans that were tuned for another model.
    """

    samplers: Sequence[str] = COMMON
    grids: Sequence[str] = GRIDS_TRIED
    steps: Sequence[int] | None = None
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
        if self.steps is not None and self.nfe is not None:
            raise InvalidInput("steps and nfe say the same in two ways: give one of them")
        for what, counts in (("steps", self.steps or ()), ("nfe", self.nfe or ())):
            for count in counts:
                if type(count) is not int or not 1 <= count <= MOST_STEPS:
                    raise InvalidInput(f"{what} must be whole numbers from 1 to {MOST_STEPS}, got {count!r}")
        for scale in self.guidance:
            check_scale(scale)
        for name in self.precisions:
            one_of("precision", name, ("float32", "bfloat16", "float16"))
        if not self.guidance or not self.precisions:
            raise InvalidInput("there is nothing to measure: give a guidance scale and a precision at least")

    @property
    def counts(self) -> Sequence[int]:
        """The steps, or the rows of plans."""
        return tuple(dict.fromkeys(self.nfe or self.steps or STEPS_TRIED))


class Entry(NamedTuple):
    """A plan to measure; `file` is where it came from, None for a sampler on a grid."""

    plan: Plan
    file: Path | None = None

    @property
    def kind(self) -> str:
        """As rows have it."""
        return "tuned" if self.plan.recipe.sampler == LEARNED else "untuned"


@dataclass(frozen=True)
class Entries:
    """The plans of a sweep, and why others cannot be made, by their names."""

    plans: Sequence[Entry]
    skipped: Mapping[str, str] = field(default_factory=dict)


def entries_of(sweep: Sweep, schedule: Schedule, model: str, digest: str) -> Entries:
    """The plans of a sweep for a model.

    Raises:
        InvalidInput: for a plan of another model or noise schedule, where nothing can be made, and for too many.
    """
    found: dict[str, Entry] = {}
    for file in map(Path, sweep.plans):
        entry = Entry(_from_file(file, schedule, model, digest, sweep.force), file)
        found.setdefault(entry.plan.digest, entry)
    skipped: dict[str, str] = {}
    for name in dict.fromkeys(sweep.samplers):
        for grid in dict.fromkeys(sweep.grids):
            for count in sweep.counts:
                try:
                    plan = _made(name, grid, count, schedule, sweep.nfe is not None)
                except InvalidInput as error:
                    skipped[f"{name} on {grid}, {count}"] = str(error)
                else:
                    found.setdefault(plan.digest, Entry(plan))
    if not found:
        raise InvalidInput(next(iter(skipped.values()), "there is nothing to measure: give samplers, grids or plans"))
    total = len(found) * len(sweep.guidance) * len(sweep.precisions)
    if total > MOST_CASES:
        raise InvalidInput(f"the sweep has {total:,} rows, at most {MOST_CASES:,} are measured: give fewer of some")
    return Entries(tuple(found.values()), skipped)


def _made(name: str, grid: str, count: int, schedule: Schedule, equal: bool) -> Plan:
    if not equal:
        return compile(name, schedule=schedule, steps=count, grid=grid)
    plan = next(fitting(name, schedule, count, grid=grid), None)
    if plan is None:
        raise InvalidInput(f"{name} on {grid} has no plan of at most {count} evaluations")
    return plan


def _from_file(file: Path, schedule: Schedule, name: str, digest: str, force: bool) -> Plan:
    plan = Plan.load(file)
    if not force:
        check_model(plan, name, digest, "tune one for it with `fewstep tune`, or use --force")
    if plan.recipe.schedule_fingerprint != schedule.fingerprint:
        raise InvalidInput(
            f"{file} is of the noise schedule {plan.recipe.schedule.get('kind')!r} "
            f"({plan.recipe.schedule_fingerprint}), {name} has {schedule.kind!r} ({schedule.fingerprint})"
        )
    if plan.inputs != 1 or plan.recipe.reverse or plan.exit[1] != 0:
        raise InvalidInput(f"{file} is no plan from noise to clean data, so it draws no images: give another")
    return plan


def words_of(entry: Entry) -> dict[str, Any]:
    """What a row says of its plan."""
    recipe = entry.plan.recipe
    return {
        "plan": entry.plan.digest,
        "kind": entry.kind,
        "sampler": recipe.sampler,
        "options": dict(recipe.options),
        "grid": recipe.grid,
        "grid_options": dict(recipe.grid_options),
        "steps": recipe.steps,
        "nfe": entry.plan.nfe,
    }
