"""Tuned plans, and what their certificates say of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import AliasPath, BeforeValidator, Field, FiniteFloat, NonNegativeInt, TypeAdapter

from fewstep.benchmark.folder import CERTIFICATE, RESULTS
from fewstep.benchmark.measured import Measured, ModelFacts, PlanFacts, Precision, read_json, unmeasured
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.measure.figure import Figure
from fewstep.models import check_tuned_for

End = Annotated[float, BeforeValidator(lambda value: math.inf if value is None else value)]
"""Null stands for an infinite number."""


@dataclass(frozen=True)
class _Interval:
    value: End
    low: End
    high: End


@dataclass(frozen=True)
class _Compared:
    digest: str
    rmse: _Interval
    typical: _Interval | None = None  # certificates of before have none


@dataclass(frozen=True)
class _Certificate:
    """What is read of a certificate."""

    digest: Annotated[str, Field(validation_alias=AliasPath("model", "digest"))]
    images: Annotated[NonNegativeInt, Field(validation_alias=AliasPath("images", "held_out"))]
    compared: list[_Compared]
    guidance: Annotated[FiniteFloat | None, Field(validation_alias=AliasPath("settings", "guidance"))] = None
    precision: Annotated[Precision, Field(validation_alias=AliasPath("settings", "precision"))] = "float32"


_CERTIFICATE = TypeAdapter(_Certificate)


def plan_files(path: Path) -> list[Path]:
    """The files of plans at a path: itself, that of a certificate, or those of all certificates in a folder.

    Raises `InvalidInput` for a folder without any result, and `FileNotFoundError` where nothing is there.
    """
    if path.is_dir():
        certificates = sorted(path.glob(f"*{CERTIFICATE}"))
        if not certificates and not (path / RESULTS).is_file():
            raise InvalidInput(f"{path} holds neither {RESULTS} of a bench nor a plan with its certificate")
        return [plan_of(file) for file in certificates]
    if path.suffix == ".jsonl":
        return []
    if not path.exists():
        raise FileNotFoundError(2, "nothing is there", str(path))
    return [plan_of(path) if path.name.endswith(CERTIFICATE) else path]


def plan_of(certificate: Path) -> Path:
    """The plan that lies beside a certificate."""
    return certificate.with_name(certificate.name.removesuffix(CERTIFICATE) + ".json")


def is_certified(certificate: Path, digest: str) -> bool:
    """Whether a certificate is of a model, and its plan is there. Raises `InvalidInput` for a damaged one."""
    return _read(certificate).digest == digest and plan_of(certificate).is_file()


def read_tuned(file: Path, model: ModelFacts, fingerprint: str, cost: int, force: bool) -> Measured:
    """A plan with the errors of its certificate, on noise of its own; without figures where none is of this model.

    `fingerprint` is that of the model's noise schedule, `cost` the network evaluations that a guided row takes. Raises
    `InvalidInput` for a plan of another model, unless by `force`, or of another noise schedule.
    """
    plan = Plan.load(file)
    if plan.recipe.schedule_fingerprint != fingerprint:
        raise InvalidInput(f"{file} is for another noise schedule than that of {model.name}: tune one for this model")
    if not force:
        check_tuned_for(plan, model.identity, "tune one for it with `fewstep tune`, or use --force")
    tuned = replace(unmeasured(model, PlanFacts.of(plan, str(file)), None, cost), by="certificate")
    beside = file.with_name(file.stem + CERTIFICATE)
    if not beside.is_file():
        return tuned
    found = _read(beside)
    row = next((row for row in found.compared if row.digest == plan.digest), None)
    if row is None or (found.digest != model.digest and not force):
        return tuned
    images = found.images
    errors = {"error": row.rmse, "typical": row.typical}
    return replace(
        tuned,
        guidance=found.guidance,
        precision=found.precision,
        images=images,
        figures={name: _figure(name, one, images) for name, one in errors.items() if one is not None},
    )


def with_quality(tuned: Measured, variance: float) -> Measured:
    """The quality that goes with an error where the converged images have this variance: 1 - error^2 / variance."""
    error = tuned.figures["error"]
    value, low, high = (1 - end**2 / variance for end in (error.value, error.high, error.low))
    quality = Figure("explained variance", value, low, high, tuned.images, "more")
    return replace(tuned, figures={**tuned.figures, "quality": quality})


def variance_of(measured: Measured) -> float | None:
    """Of the converged images, by the error and the quality of a plan; None without them."""
    error, quality = measured.figures.get("error"), measured.figures.get("quality")
    if error is None or quality is None or not quality.value < 1:
        return None
    return error.value**2 / (1 - quality.value)


def _figure(name: str, interval: _Interval, images: int) -> Figure:
    return Figure(name, interval.value, interval.low, interval.high, images, "less")


def _read(file: Path) -> _Certificate:
    try:
        return read_json(_CERTIFICATE, file.read_bytes())
    except InvalidInput as error:
        raise InvalidInput(f"{file} is not the certificate of a tuning ({error}): tune again") from error
