"""What is known of a model: rows of benches, and plans with the certificates of their tuning."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewstep.benchmark import Group, Machine, Run, groups, read_runs
from fewstep.benchmark.choice.candidate import Candidate, of_certificate, of_run
from fewstep.benchmark.choice.places import (
    CERTIFICATE,
    OUT,
    RUNS,
    home_of,
    is_fresh,
    is_here,
    usual_folders,
    with_timings,
)
from fewstep.benchmark.choice.tunings import Tuning, certificate, plan_files, plan_of, read_tuning
from fewstep.benchmark.commands import exact
from fewstep.core.errors import InvalidInput

Rows = dict[str, tuple[Run, Path]]
"""By their keys, with the folder of each."""


@dataclass
class Results:
    """What may be chosen.

    Attributes:
        candidates: rows that may be compared with one another, and tuned plans.
        group: what the rows share; None where there is none.
        unmeasured: files of plans without a row in the group.
        notes: what was left out, and why.
        missing: figures that could not be measured, by name, and why.
        unfinished: what was not measured for want of seconds, or "".
    """

    candidates: list[Candidate] = field(default_factory=list)
    group: Group | None = None
    unmeasured: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: Mapping[str, str] = field(default_factory=dict)
    unfinished: str = ""


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
    images: int | None = None,
    fresh: bool = False,
) -> Results:
    """The measurements of the model with this digest at a guidance scale.

    Args:
        name: of the model: without `paths`, out/bench-NAME and folders beside it are read (see `places`), and
            certificates in out/ that are of this model. What cannot be read there is passed over, with a note.
        here: the machine whose seconds count.
        guidance: the scale; None where there is nothing to guide.
        paths: folders of benches, files of rows, plans, and folders of plans.
        fingerprint: of the model's noise schedule; plans of another are refused.
        force: take plans that were tuned for another model, with their figures.
        conditions: digest of the labels or prompts; None takes those with the most images.
        images: of a row at least.
        fresh: whether a path may be an empty folder, or none yet, that will be measured into.

    Raises:
        InvalidInput: a path holds no measurement of this model, a plan was tuned for another one, or a file is damaged.
        FileNotFoundError: nothing is at a path.
    """
    found, rows, tunings = Results(), Rows(), list[Tuning]()

    def take(runs: Sequence[Run], path: Path) -> None:
        for run in runs:
            if run.key not in rows or not is_here(rows[run.key][0].machine, here):
                rows[run.key] = run, path if path.is_dir() else path.parent

    for path in with_timings(paths, digest, here):
        if fresh and is_fresh(path):
            found.notes.append(f"nothing is measured in {path} yet")
            continue
        take(_of_model(_runs(path), path, name, digest), path)
        tunings += [read_tuning(file, name, digest, fingerprint, force) for file in plan_files(path)]
    for path in () if paths else (*usual_folders(name), *sorted(OUT.glob(f"*{CERTIFICATE}"))):
        try:
            if path.is_dir():
                take(_of_usual(path, name, digest, found.notes), path)
            elif certificate(path)["model"].get("digest") == digest and plan_of(path).is_file():
                tunings.append(read_tuning(plan_of(path), name, digest, fingerprint, force))
        except InvalidInput as error:
            found.notes.append(f"passed over: {error}")
    _take_group(found, _at(found, list(rows.values()), guidance), here, conditions, images)
    _take_tunings(found, tunings, guidance)
    return found


def _at(found: Results, rows: Sequence[tuple[Run, Path]], guidance: float | None) -> list[tuple[Run, Path]]:
    """The rows of a scale that lost nothing."""
    scales = sorted({run.guidance for run, _ in rows if run.guidance is not None})
    at = [(run, folder) for run, folder in rows if run.guidance == guidance and not run.lost]
    if rows and not at:
        found.notes.append(
            f"measured at guidance {', '.join(map(exact, scales))}, and not at {exact(guidance or 1)}: give --guidance"
        )
    if (lost := sum(run.lost > 0 for run, _ in rows)) > 0:
        found.notes.append(f"{lost} rows lost images that were not finite, and are left out")
    return at


def _take_group(
    found: Results, rows: Sequence[tuple[Run, Path]], here: Machine, conditions: str | None, images: int | None
) -> None:
    """The rows that may be compared: on this device before others, then of the most images, then the most rows."""
    folders = {run.key: folder for run, folder in rows}
    own = [run for run, _ in rows if conditions in (None, run.conditions)]
    if left := len(rows) - len(own):
        found.notes.append(f"{left} rows are of other prompts, and are left out: give --prompts FILE with theirs")
    enough = [run for run in own if images is None or run.images >= images]
    if left := len(own) - len(enough):
        found.notes.append(f"{left} rows are of fewer than {images} images, and are left out")
    grouped = groups(enough)
    if not grouped:
        return
    best = max(grouped, key=lambda group: (group.device == here.device, group.images, len(grouped[group])))
    found.group = best
    found.candidates = [of_run(run, folders[run.key], here) for run in grouped[best]]
    if left := len(enough) - len(grouped[best]):
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
        if not one.figures:
            found.notes.append(f"{one.file} is left out: no row and no certificate beside it has figures of this model")
        elif one.guidance not in (guidance, 1.0 if guidance is None else guidance):
            scale = "another guidance" if one.guidance is None else f"guidance {exact(one.guidance)}"
            found.notes.append(f"{one.file} is left out: its certificate is of {scale}, and no row is of this one")
        else:
            other = like or _unknown(guidance)
            found.candidates.append(of_certificate(one, other))
            found.notes.append(f"{one.file}: from its certificate, on other noise than the rows, and without seconds")
            if one.force:
                found.notes.append(f"{one.file} was tuned for another model: its figures are of that one")


def _unknown(guidance: float | None) -> Candidate:
    """In place of a measured candidate where there is none: a guided row costs two evaluations."""
    rows = 2.0 if guidance not in (None, 1.0) else 1.0
    return Candidate(
        "", None, "untuned", "", {}, "", {}, 1, guidance, "float32", 1, rows, {}, 0, None, ""
    )  # fmt: skip


def _of_usual(path: Path, name: str, digest: str, notes: list[str]) -> list[Run]:
    """The rows of this model in a usual folder. The first is named where it has none."""
    runs = _runs(path)
    own = [run for run in runs if run.model.digest == digest]
    if runs and not own and path == home_of(name):
        notes.append(f"{path} is of another model of this name, with digest {runs[0].model.digest}: passed over")
    return own


def _runs(path: Path) -> list[Run]:
    if path.is_dir():
        return read_runs(path / RUNS) if (path / RUNS).is_file() else []
    return read_runs(path) if path.suffix == ".jsonl" else []


def _of_model(rows: list[Run], path: Path, name: str, digest: str) -> list[Run]:
    own = [run for run in rows if run.model.digest == digest]
    if rows and not own:
        other = rows[0].model
        raise InvalidInput(
            f"{path} holds measurements of {other.name!r} with digest {other.digest}, this is {name!r} with digest "
            f"{digest}: give those of this model, or run `fewstep bench`"
        )
    return own
