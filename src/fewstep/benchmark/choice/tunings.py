"""Tuned plans, and what their certificates say of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.benchmark.choice.places import CERTIFICATE, RUNS
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.tuning.certificate import Interval
from fewstep.tuning.table import check_model

ERRORS = {"error": "rmse", "typical": "typical"}
"""Figures of a bench, and what certificates call them; those of before have no typical one."""


class Tuning(NamedTuple):
    """A plan from a file; `figures`, `images`, `guidance` and `precision` are of its certificate, where that is of this
    model.
    """

    plan: Plan
    file: Path
    figures: Mapping[str, Interval]
    images: int
    guidance: float | None
    force: bool
    precision: str = "float32"


def plan_files(path: Path) -> list[Path]:
    """The files of plans at a path: itself, that of a certificate, or those of all certificates in a folder.

    Raises `InvalidInput` for a folder without any result, and `FileNotFoundError` where nothing is there.
    """
    if path.is_dir():
        certificates = sorted(path.glob(f"*{CERTIFICATE}"))
        if not certificates and not (path / RUNS).is_file():
            raise InvalidInput(f"{path} holds neither {RUNS} of a bench nor a plan with its certificate")
        return [plan_of(file) for file in certificates]
    if path.suffix == ".jsonl":
        return []
    if not path.exists():
        raise FileNotFoundError(2, "nothing is there", str(path))
    return [plan_of(path) if path.name.endswith(CERTIFICATE) else path]


def plan_of(certificate: Path) -> Path:
    """The plan that lies beside a certificate."""
    return certificate.with_name(certificate.name.removesuffix(CERTIFICATE) + ".json")


def read_tuning(file: Path, name: str, digest: str, fingerprint: str | None, force: bool) -> Tuning:
    """A plan and what its certificate says; raises `InvalidInput` for one of another model or noise schedule."""
    plan = Plan.load(file)
    if fingerprint is not None and plan.recipe.schedule_fingerprint != fingerprint:
        raise InvalidInput(f"{file} is for another noise schedule than that of {name}: tune one for this model")
    if not force:
        check_model(plan, name, digest, "tune one for it with `fewstep tune`, or use --force")
    beside = file.with_name(file.stem + CERTIFICATE)
    if not beside.is_file():
        return Tuning(plan, file, {}, 0, None, False)
    document = certificate(beside)
    other = document["model"].get("digest") != digest
    rows = [row for row in document["compared"] if row["digest"] == plan.digest]
    if not rows or (other and not force):
        return Tuning(plan, file, {}, 0, None, other)
    guidance = document["settings"].get("guidance")
    figures = {name: _interval(rows[0][key]) for name, key in ERRORS.items() if key in rows[0]}
    precision = document["settings"].get("precision", "float32")
    return Tuning(plan, file, figures, document["images"]["held_out"], guidance, other, precision)


def certificate(file: Path) -> dict[str, Any]:
    """The document of a certificate, its parts that are read here checked. Raises `InvalidInput` where it is none."""
    try:
        document = json.loads(file.read_bytes())
        sound = (
            isinstance(document["model"], dict)
            and isinstance(document["settings"], dict)
            and isinstance(document["images"]["held_out"], int)
            and all(isinstance(row["digest"], str) and "rmse" in row for row in document["compared"])
            and all(_is_interval(row[key]) for row in document["compared"] for key in ERRORS.values() if key in row)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{file} is no certificate of a tuning ({error!r}): tune again") from error
    if not sound:
        raise InvalidInput(f"{file} is no certificate of a tuning: tune again")
    return document


def _is_interval(value: Any) -> bool:
    """Of numbers, or of null, which stands for an infinite one."""
    return set(value) == {"value", "low", "high"} and all(
        v is None or isinstance(v, int | float) for v in value.values()
    )


def _interval(value: Mapping[str, Any]) -> Interval:
    return Interval(**{name: math.inf if number is None else number for name, number in value.items()})
