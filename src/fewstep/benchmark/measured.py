"""What was measured of a plan on a model, whoever measured it: a bench, or the certificate of a tuning."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    with_config,
)

from fewstep.benchmark.settings import PLAIN, STRICT, Loading
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.measure.figure import Figure
from fewstep.models import Identity
from fewstep.run.machine import Machine
from fewstep.tuning.certificate import ConfidenceInterval
from fewstep.tuning.table import LEARNED

VERSION = 2
"""Of the JSON of a measurement."""
T = TypeVar("T")
Precision = Literal["float32", "bfloat16", "float16"]


def _figure(document: Any) -> Figure:
    """A figure from JSON, which does not hold its replicates."""
    if not isinstance(document, Mapping):
        raise InvalidInput("a figure is an object")
    figure = Figure.from_json({**document, "replicates": ()})
    for name in ("value", "low", "high"):
        value = getattr(figure, name)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise InvalidInput(f"{name} of a figure must be a finite number, got {value!r:.60}")
    return figure


def _finite(interval: ConfidenceInterval) -> ConfidenceInterval:
    if not all(map(math.isfinite, interval)):
        raise InvalidInput("these must be three finite numbers")
    return interval


Figures = Mapping[str, Annotated[Figure, BeforeValidator(_figure)]]
Seconds = Annotated[ConfidenceInterval, AfterValidator(_finite), PlainSerializer(ConfidenceInterval._asdict)]
UNKNOWN = ConfidenceInterval(math.inf, math.inf, math.inf)
"""Seconds that nobody measured here."""


@with_config(STRICT)
@dataclass(frozen=True)
class ModelFacts:
    """Whose images were measured; `source` is what was given to `fewstep.load`, with `loading`."""

    name: str
    digest: str
    source: str
    loading: Loading = PLAIN

    @property
    def identity(self) -> Identity:
        """By what tuned plans know it."""
        return Identity(self.name, self.digest)


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """What is known of a plan without the plan.

    Attributes:
        file: where it lies, for one that came from a file; in the file of results, from its folder.
        kind: "untuned" for a sampler on a grid, "tuned" for a plan that was made for a model.
        rows: of the plan; under guidance a row may take the network two evaluations.
        tuned_for: the digest of the model that it was tuned for; `guidance_factors`: its guidance by row.
    """

    digest: str
    file: str | None
    kind: Literal["untuned", "tuned"]
    sampler: str
    options: Mapping[str, Any]
    grid: str
    grid_options: Mapping[str, Any]
    steps: NonNegativeInt
    rows: NonNegativeInt
    tuned_for: str | None = None
    guidance_factors: tuple[FiniteFloat, ...] | None = None

    @staticmethod
    def of(plan: Plan, file: str | None = None) -> PlanFacts:
        """The facts of a plan."""
        recipe, tuned_for = plan.recipe, plan.tuned_for
        return PlanFacts(
            digest=plan.digest,
            file=file,
            kind="tuned" if recipe.sampler == LEARNED else "untuned",
            sampler=recipe.sampler,
            options=dict(recipe.options),
            grid=recipe.grid,
            grid_options=dict(recipe.grid_options),
            steps=recipe.steps,
            rows=len(plan.rows),
            tuned_for=None if tuned_for is None else tuned_for.model or None,
            guidance_factors=plan.guidance_factors,
        )

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.sampler} on {self.grid}" if self.file is None else f"the plan {self.file}"

    def nfe(self, cost: int) -> int:
        """Network evaluations of an image where a guided row takes `cost` of them."""
        factors = self.guidance_factors
        guided = self.rows if factors is None else sum(factor != 0 for factor in factors)
        return self.rows + (cost - 1) * guided


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class Measured:
    """One plan on one model, with one guidance and one precision.

    Attributes:
        key: 16 hexadecimal digits over all that decides the figures, but not the seconds; see `key_of`.
        by: who measured; "advice" has no figures.
        guidance: scale; None where there is nothing to guide.
        nfe: network evaluations of an image, guidance counted.
        images: how many were drawn; `lost`: how many of them were not finite. Figures are of the others.
        seed: of the noise; `conditions`: digest of the labels or prompts.
        figures: by name: error, typical, quality, psnr, diversity, saturation, adherence, clip, distance. Those that
            were not to be had are absent.
        seconds: of an image, by synchronised clocks; infinite where they are not known.
        memory: peak bytes of a batch, None where unknown.
    """

    version: Literal[2]
    key: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    by: Literal["bench", "certificate", "advice"]
    model: ModelFacts
    plan: PlanFacts
    guidance: FiniteFloat | None
    precision: Precision
    nfe: Annotated[FiniteFloat, Field(ge=0)]
    images: NonNegativeInt
    lost: NonNegativeInt
    seed: NonNegativeInt
    conditions: str
    figures: Figures
    seconds: Seconds
    memory: NonNegativeInt | None
    machine: Annotated[Machine, PlainSerializer(Machine._asdict)]

    def __post_init__(self) -> None:
        if self.lost > self.images:
            raise InvalidInput(f"of {self.images} images {self.lost} cannot be lost")

    @property
    def name(self) -> str:
        """For people."""
        return self.plan.name if self.precision == "float32" else f"{self.plan.name} in {self.precision}"

    @property
    def source(self) -> str:
        """Where the figures are from, in words."""
        return {
            "bench": f"bench, {self.images} images, seed {self.seed}",
            "certificate": f"certificate of the tuning, {self.images} images",
            "advice": "advice of the field",
        }[self.by]

    @property
    def foreign(self) -> bool:
        """Whether its plan was tuned for another model, so that drawing with it takes --force."""
        return self.plan.tuned_for not in (None, self.model.digest)

    @property
    def timed(self) -> bool:
        """Whether its seconds are known."""
        return math.isfinite(self.seconds.value)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite are null."""
        return json.loads(line_of(self))


_MEASURED = TypeAdapter(Measured)


def unmeasured(model: ModelFacts, plan: PlanFacts, guidance: float | None, cost: int) -> Measured:
    """A plan of which nothing is measured, where a guided row takes `cost` network evaluations."""
    return Measured(
        version=VERSION,
        key=key_of({"model": model.digest, "plan": plan.digest, "guidance": guidance}),
        by="advice",
        model=model,
        plan=plan,
        guidance=guidance,
        precision="float32",
        nfe=float(plan.nfe(cost)),
        images=0,
        lost=0,
        seed=0,
        conditions="",
        figures={},
        seconds=UNKNOWN,
        memory=None,
        machine=Machine("", 0, "", "", ""),
    )


def line_of(measured: Measured) -> bytes:
    """JSON in one line, without the replicates of the figures. Floats read back to the same bits."""
    return _MEASURED.dump_json(measured, exclude={"figures": {"__all__": {"replicates"}}})


def read_line(line: bytes) -> Measured:
    """The inverse of `line_of`. Raises `InvalidInput` for anything else, naming the field."""
    return read_json(_MEASURED, line)


def read_json(kind: TypeAdapter[T], content: bytes) -> T:
    """A value of this kind from JSON, nothing of which is coerced. Raises `InvalidInput`, which names the field."""
    try:
        return kind.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        got = "" if first["type"] == "missing" else f", got {first['input']!r:.60}"
        told = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{where}{': ' if where else ''}{told}{got}") from error


def key_of(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of a SHA-256 over JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]
