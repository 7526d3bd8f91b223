"""How noise becomes data: a sampler with its options on a time grid, or a plan. It compiles to a `Plan`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.grid import GRIDS
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.drawing.value import Digest, Options, Value, several
from fewstep.solvers.compiler import compile
from fewstep.solvers.registry import SAMPLERS

MAX_STEPS = 10_000
TABLE_LIMIT = 900_000
"""Most characters of a plan that a picture keeps."""


def _plan(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"a plan is a fewstep.Plan, or the content of its to_json ({error})") from error
    return Plan.from_json(text)


def _table(value: Plan | str | None) -> Any:
    return json.loads(value.to_json()) if isinstance(value, Plan) else value


Times = Annotated[tuple[float, ...], BeforeValidator(several), Field(min_length=2, max_length=MAX_STEPS + 1)]
PlanField = Annotated[Plan | Digest | None, BeforeValidator(_plan), PlainSerializer(_table)]


class Sampling(Value):
    """A sampler on a grid, or a plan: `Sampling("ddim", steps=20, grid="trailing", eta=1.0)`.

    Names that are not fields are options of the sampler. A plan decides everything; a digest stands for a plan that
    travels beside the drawing.
    """

    called: ClassVar[str] = "the sampling"
    model_config = ConfigDict(arbitrary_types_allowed=True)

    sampler: str | None = Field(default=None, description="A name from `fewstep samplers`.")
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS, description="Steps of the time grid.")
    grid: str | None = Field(default=None, description="A name from `fewstep grids`.")
    options: Options = Field(default=Options(), description="Options of the sampler, such as eta=1.")
    grid_options: Options = Field(default=Options(), description="Options of the grid, such as rho=5.")
    times: Times | None = Field(default=None, description="Times of the grid, decreasing, N + 1 for N steps.")
    sigmas: Times | None = Field(default=None, description="The times as sigma / alpha, decreasing; 0 is clean data.")
    plan: PlanField = Field(default=None, description="A plan to run in place of a sampler.")

    def __init__(self, sampler: str | None = None, **fields: Any):
        known = {name: fields[name] for name in fields if name in Sampling.model_fields}
        options = {name: value for name, value in fields.items() if name not in known}
        if options:
            known["options"] = {**known.get("options", {}), **options}
        super().__init__(sampler=sampler, **known)

    @model_validator(mode="after")
    def _one_way(self) -> Sampling:
        if self.plan is not None:
            twice = [name for name, value in self if name != "plan" and value not in (None, {})]
            if twice:
                raise InvalidInput(f"the plan already decides {', '.join(twice)}: leave them out, or name a sampler")
            return self
        if self.sampler not in SAMPLERS:
            raise unknown_name("sampler", str(self.sampler), SAMPLERS)
        ways = [name for name in ("steps", "times", "sigmas") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise InvalidInput(f"give exactly one of steps, times and sigmas, got {' and '.join(ways) or 'none'}")
        if self.steps is None and (self.grid is not None or self.grid_options):
            raise InvalidInput(f"the grid is given by its {ways[0]}: leave out the grid and its options")
        if self.steps is not None and self.grid not in GRIDS:
            raise unknown_name("grid", str(self.grid), GRIDS)
        taken = sorted({"schedule", "reverse", "sampler", *Sampling.model_fields} & set(self.options))
        if taken:
            raise InvalidInput(f"{taken[0]} is not an option of {self.sampler}, but a field of its own: give it there")
        return self

    def compile(self, schedule: Schedule) -> Plan:
        """The plan. Raises `InvalidInput` for one that travels beside, and for what the sampler refuses."""
        if isinstance(self.plan, Plan):
            return self.plan
        if self.plan is not None:
            raise InvalidInput(f"the plan {self.plan} was too long to be kept with the picture: give its file with it")
        assert self.sampler is not None
        if self.steps is None:
            return compile(self.sampler, schedule=schedule, times=self.times, sigmas=self.sigmas, **self.options)
        return compile(
            self.sampler,
            schedule=schedule,
            steps=self.steps,
            grid=str(self.grid),
            grid_options=self.grid_options,
            **self.options,
        )

    def beside(self) -> Sampling:
        """As a picture keeps it: with its digest in the place of a plan that is too long."""
        if isinstance(self.plan, Plan) and len(self.plan.to_json()) > TABLE_LIMIT:
            return self.but(plan=self.plan.digest)
        return self

    @property
    def method(self) -> str:
        """The sampler's name, such as "ddim", or "plan 3f.." for a plan that travels beside."""
        if isinstance(self.plan, Plan):
            return self.plan.recipe.sampler
        return f"plan {self.plan}" if self.plan else str(self.sampler)

    @property
    def name(self) -> str:
        """A short name for people and files, such as "ddim-20" or "plan-3f..."."""
        if isinstance(self.plan, Plan):
            return f"{self.plan.recipe.sampler}-{self.plan.steps}"
        steps = self.steps or len(self.times or self.sigmas or ()) - 1
        return f"plan-{self.plan}" if self.plan else f"{self.sampler}-{steps}"
