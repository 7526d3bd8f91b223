"""What is known of a model: rows of benches, and plans with the certificates of their tuning."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.bench import Group, Machine, Run, groups, read_runs
from fewstep.choose.candidate import Candidate, of_certificate, of_run
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.tune.certificate import Interval
from fewstep.tune.table import check_model

OUT, RUNS, CERTIFICATE = Path("out"), "runs.jsonl", ".certificate.json"
ERRORS = {"error": "rmse", "typical": "typical"}
"""Figures of a bench, and what certificates call them; those of before have no typical one."""


class Tuning(NamedTuple):
    """A plan from a file; `figures` and `images` are of its certificate, none and 0 without one for this model."""

    plan: Plan
    file: Path
    figures: Mapping[str, Interval]
    images: int
    guidance: float | None
    force: bool


@dataclass
class Results:
    """What may be chosen.

    Attributes:
        candidates: rows that may be compared with one another, and tuned plans.
        group: what the rows share; None where there is none.
        unmeasured: files of plans without a row in the group.
        notes: what was left out, and why.
    """

    candidates: list[Candidate] = field(default_factory=list)
    group: Group | None = None
    unmeasured: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(
    name: str,
    digest: str,
    here: Machine,
    *,
    guidance: float | None,
    paths: Sequence[str | os.PathLike[str]] = (),
    fingerprint: str | None = None,
    force: bool = False,
    conditions: str | None = None,
) -> Results:
    """The measurements of the model with this digest at a guidance scale.

    Args:
        name: of the model: without `paths`, out/bench-NAME is read, and certificates in out/ that are of this model.
        here: the machine whose seconds count.
        guidance: the scale; None where there is nothing to guide.
        paths: folders of benches, files of rows, plans, and folders of plans.
        fingerprint: of the model's noise schedule; plans of another are refused.
        force: take plans that were tuned for another model, with their figures.
        conditions: digest of the labels or prompts; None takes those with the most images.

    Raises:
        InvalidInput: a path holds no measurement of this model, a plan was tuned for another one, or a file is damaged.
        FileNotFoundError: nothing is at a path.
    """
    found = Results()
    rows: list[tuple[Run, Path]] = []
    tunings: list[Tuning] = []
    for path in map(Path, paths) if paths else _usual(name, digest):
        own = [(run, path if path.is_dir() else path.parent) for run in _runs(path)]
        rows += _of_model(own, path, name, digest)
        tunings += [_tuning(file, name, digest, fingerprint, force) for file in _plans(path)]
    scales = sorted({run.guidance for run, _ in rows if run.guidance is not None})
    at = [(run, folder) for run, folder in rows if run.guidance == guidance and not run.lost]
    if rows and not at:
        found.notes.append(
            f"measured at guidance {', '.join(f'{s:g}' for s in scales)}, and not at {guidance or 1:g}: give --guidance"
        )
    _take_group(found, at, here, conditions)
    if (lost := sum(run.lost > 0 for run, _ in rows)) > 0:
        found.notes.append(f"{lost} rows lost images that were not finite, and are left out")
    _take_tunings(found, tunings, guidance)
    return found


def _take_group(found: Results, rows: Sequence[tuple[Run, Path]], here: Machine, conditions: str | None) -> None:
    """The rows that may be compared: on this device before others, then of the most images, then the most rows."""
    folders = {run.key: folder for run, folder in rows}
    grouped = groups(run for run, _ in rows if conditions in (None, run.conditions))
    if not grouped:
        return
    best = max(grouped, key=lambda group: (group.device == here.device, group.images, len(grouped[group])))
    found.group = best
    found.candidates = [of_run(run, folders[run.key], here) for run in grouped[best]]
    left = len(rows) - len(grouped[best])
    if left:
        found.notes.append(f"{left} rows of other images or devices cannot be compared with these, and are left out")
    elsewhere = sum(one.seconds is None for one in found.candidates)
    if elsewhere:
        found.notes.append(
            f"the seconds of {elsewhere} rows are of another machine or number of threads, and are not used"
        )


def _take_tunings(found: Results, tunings: Sequence[Tuning], guidance: float | None) -> None:
    """Plans that no row has: with the figures of their certificates where these are of the same guidance."""
    measured = {one.plan for one in found.candidates}
    like = next((one for one in found.candidates if "error" in one.figures), None)
    for one in tunings:
        if one.plan.digest in measured:
            continue
        measured.add(one.plan.digest)
        found.unmeasured.append(one.file)
        if not one.figures or one.guidance not in (guidance, 1.0 if guidance is None else guidance):
            continue
        other = like or _unknown(one, guidance)
        found.candidates.append(of_certificate(one.plan, one.file, one.figures, one.images, one.force, other))
        found.notes.append(f"{one.file}: from its certificate, on other noise than the rows, and without seconds")
        if one.force:
            found.notes.append(f"{one.file} was tuned for another model: its figures are of that one")


def _unknown(one: Tuning, guidance: float | None) -> Candidate:
    """In place of a measured candidate where there is none: a guided row costs two evaluations."""
    rows = 2.0 if guidance not in (None, 1.0) else 1.0
    return Candidate(
        "", None, "untuned", "", {}, "", {}, 1, guidance, "float32", 1, rows, {}, 0, None, ""
    )  # fmt: skip


def _usual(name: str, digest: str) -> Iterator[Path]:
    """Where results lie unless the user says otherwise."""
    if (OUT / f"bench-{name}" / RUNS).is_file():
        yield OUT / f"bench-{name}"
    for file in sorted(OUT.glob(f"*{CERTIFICATE}")):
        document = _certificate(file)
        if document["model"].get("digest") == digest and _plan_of(file).is_file():
            yield _plan_of(file)


def _runs(path: Path) -> list[Run]:
    if path.is_dir():
        return read_runs(path / RUNS) if (path / RUNS).is_file() else []
    return read_runs(path) if path.suffix == ".jsonl" else []


def _plans(path: Path) -> list[Path]:
    """The files of plans at a path: itself, that of a certificate, or those of all certificates in a folder."""
    if path.is_dir():
        certificates = sorted(path.glob(f"*{CERTIFICATE}"))
        if not certificates and not (path / RUNS).is_file():
            raise InvalidInput(f"{path} holds neither {RUNS} of a bench nor a plan with its certificate")
        return [_plan_of(file) for file in certificates]
    if path.suffix == ".jsonl":
        return []
    if not path.exists():
        raise FileNotFoundError(2, "nothing is there", str(path))
    return [_plan_of(path) if path.name.endswith(CERTIFICATE) else path]


def _plan_of(certificate: Path) -> Path:
    return certificate.with_name(certificate.name.removesuffix(CERTIFICATE) + ".json")


def _of_model(rows: list[tuple[Run, Path]], path: Path, name: str, digest: str) -> list[tuple[Run, Path]]:
    own = [one for one in rows if one[0].model.digest == digest]
    if rows and not own:
        other = rows[0][0].model
        raise InvalidInput(
            f"{path} holds measurements of {other.name!r} with digest {other.digest}, this is {name!r} with digest "
            f"{digest}: give those of this model, or run `fewstep bench`"
        )
    return own


def _tuning(file: Path, name: str, digest: str, fingerprint: str | None, force: bool) -> Tuning:
    """A plan and what its certificate says; raises `InvalidInput` for one of another model or noise schedule."""
    plan = Plan.load(file)
    if fingerprint is not None and plan.recipe.schedule_fingerprint != fingerprint:
        raise InvalidInput(f"{file} is for another noise schedule than that of {name}: tune one for this model")
    if not force:
        check_model(plan, name, digest, "tune one for it with `fewstep tune`, or use --force")
    beside = file.with_name(file.stem + CERTIFICATE)
    if not beside.is_file():
        return Tuning(plan, file, {}, 0, None, False)
    document = _certificate(beside)
    other = document["model"].get("digest") != digest
    rows = [row for row in document["compared"] if row["digest"] == plan.digest]
    if not rows or (other and not force):
        return Tuning(plan, file, {}, 0, None, other)
    guidance = document["settings"].get("guidance")
    figures = {name: Interval(**rows[0][key]) for name, key in ERRORS.items() if key in rows[0]}
    return Tuning(plan, file, figures, document["images"]["held_out"], guidance, other)


def _certificate(file: Path) -> dict[str, Any]:
    """The document of a certificate, its parts that are read here checked."""
    try:
        document = json.loads(file.read_bytes())
        sound = (
            isinstance(document["model"], dict)
            and isinstance(document["settings"], dict)
            and isinstance(document["images"]["held_out"], int)
            and all(isinstance(row["digest"], str) and "rmse" in row for row in document["compared"])
            and all(_interval(row[key]) for row in document["compared"] for key in ERRORS.values() if key in row)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{file} is no certificate of a tuning ({error!r}): tune again") from error
    if not sound:
        raise InvalidInput(f"{file} is no certificate of a tuning: tune again")
    return document


def _interval(value: Any) -> bool:
    return set(value) == {"value", "low", "high"} and all(isinstance(v, int | float) for v in value.values())
