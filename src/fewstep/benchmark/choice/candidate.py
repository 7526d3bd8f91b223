"""What can be chosen: a plan with what was measured of it on one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewstep.benchmark import Machine, Run
from fewstep.benchmark.choice.places import is_here
from fewstep.benchmark.choice.tunings import Tuning
from fewstep.core.plan import Plan
from fewstep.denoise.factors import guided_rows
from fewstep.tuning.certificate import Interval
from fewstep.tuning.table import tuned_facts


@dataclass(frozen=True)
class Candidate:
    """A plan, how it is drawn with, and its figures.

    Attributes:
        plan: digest of the plan; `plan_file` is where it lies, None for a sampler on a grid.
        kind: "untuned", or "tuned" for a plan that was made for a model.
        guidance: scale of the figures; None where there is nothing to guide.
        nfe: rows of the plan; `evaluations`: of the network for an image, of which a guided row costs two.
        figures: by name, with their 95% intervals; `more` are those of which more is better.
        images: that the figures rest on.
        seconds: an image takes on this machine, None where that was not measured here.
        source: where the figures are from, in words.
        force: whether the plan is for another model, by the user's leave.
    """

    plan: str
    plan_file: Path | None
    kind: str
    sampler: str
    options: Mapping[str, Any]
    grid: str
    grid_options: Mapping[str, Any]
    steps: int
    guidance: float | None
    precision: str
    nfe: int
    evaluations: float
    figures: Mapping[str, Interval]
    images: int
    seconds: Interval | None
    source: str
    more: frozenset[str] = field(default=frozenset())
    force: bool = False

    @property
    def name(self) -> str:
        """For people."""
        words = f"{self.sampler} on {self.grid}" if self.plan_file is None else f"the plan {self.plan_file}"
        return words if self.precision == "float32" else f"{words} in {self.precision}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite are null."""
        return {
            "plan": self.plan,
            "plan_file": None if self.plan_file is None else str(self.plan_file),
            "kind": self.kind,
            "sampler": self.sampler,
            "options": dict(self.options),
            "grid": self.grid,
            "grid_options": dict(self.grid_options),
            "steps": self.steps,
            "guidance": self.guidance,
            "precision": self.precision,
            "nfe": self.nfe,
            "evaluations": self.evaluations,
            "figures": {name: _plain(figure) for name, figure in self.figures.items()},
            "images": self.images,
            "seconds": None if self.seconds is None else _plain(self.seconds),
            "source": self.source,
        }


def _plain(figure: Interval) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figure._asdict().items()}


def of_run(run: Run, folder: Path, here: Machine) -> Candidate:
    """A row of a bench; its seconds count where it was measured on this machine with as many threads."""
    return Candidate(
        plan=run.plan,
        plan_file=None if run.plan_file is None else folder / run.plan_file,
        kind=run.kind,
        sampler=run.sampler,
        options=run.options,
        grid=run.grid,
        grid_options=run.grid_options,
        steps=run.steps,
        guidance=run.guidance,
        precision=run.precision,
        nfe=run.nfe,
        evaluations=run.evaluations,
        figures={name: Interval(one.value, one.low, one.high) for name, one in run.figures.items()},
        images=run.images,
        seconds=run.seconds if is_here(run.machine, here) else None,
        source=f"bench, {run.images} images, seed {run.seed}",
        more=frozenset(name for name, one in run.figures.items() if one.better == "more"),
        force=run.foreign,
    )


def of_certificate(tuning: Tuning, like: Candidate) -> Candidate:
    """A tuned plan of which only the certificate tells, its errors on noise of its own.

    `like` is a measured candidate of the same model and guidance. Its variance turns the error into a quality, and
    where it took more evaluations than rows, so does this plan, one more for each guided row.
    """
    plan, figures, error = tuning.plan, dict(tuning.figures), tuning.figures["error"]
    variance = variance_of(like)
    if variance is not None:
        ends = (1 - value**2 / variance for value in (error.value, error.high, error.low))
        figures["quality"] = Interval(*ends)
    return Candidate(
        **facts_of(plan),
        plan_file=tuning.file,
        kind="tuned",
        guidance=like.guidance,
        precision=tuning.precision,
        evaluations=plan.nfe + (guided_rows(plan) if like.evaluations > like.nfe else 0),
        figures=figures,
        images=tuning.images,
        seconds=None,
        source=f"certificate of the tuning, {tuning.images} images",
        more=frozenset({"quality"}),
        force=tuning.force,
    )


def facts_of(plan: Plan) -> dict[str, Any]:
    """What a candidate says of its plan."""
    recipe = plan.recipe
    return {
        "plan": plan.digest,
        "sampler": recipe.sampler,
        "options": {**recipe.options, **tuned_facts(plan)},
        "grid": recipe.grid,
        "grid_options": dict(recipe.grid_options),
        "steps": recipe.steps,
        "nfe": plan.nfe,
    }


def variance_of(candidate: Candidate) -> float | None:
    """Of the converged images, from the error and the quality, which is 1 - error^2 / variance; None without them."""
    error, quality = candidate.figures.get("error"), candidate.figures.get("quality")
    if error is None or quality is None or not quality.value < 1:
        return None
    return error.value**2 / (1 - quality.value)
