"""What is known of a model: results of benches, and plans with the certificates of their tuning."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fewstep.benchmark.certificates import is_certified, plan_files, plan_of, read_tuned, variance_of, with_quality
from fewstep.benchmark.commands import exact
from fewstep.benchmark.folder import CERTIFICATE, OUT, home_of, is_fresh, results_in, usual_folders, with_timings
from fewstep.benchmark.measured import UNKNOWN, Measured
from fewstep.benchmark.pareto import ComparisonGroup, groups
from fewstep.benchmark.results import read_results
from fewstep.benchmark.sweep import Target
from fewstep.core.errors import InvalidInput
from fewstep.run.machine import Machine, is_here


@dataclass(frozen=True)
class Scope:
    """Which measurements count.

    Attributes:
        target: the model that they are of, by its digest; plans of another noise schedule are refused.
        here: the machine whose seconds count.
        guidance: the scale; None where there is nothing to guide.
        conditions: digest of the labels or prompts; None takes those with the most images.
        images: that each is of at least.
        force: take plans that were tuned for another model, with their figures.
    """

    target: Target
    here: Machine
    guidance: float | None
    conditions: str | None = None
    images: int | None = None
    force: bool = False


@dataclass
class Findings:
    """What may be chosen.

    Attributes:
        measured: plans that may be compared with one another, and tuned plans.
        group: what they share; None where there is none.
        unmeasured: files of plans that were not measured with the group.
        notes: what was left out, and why.
        missing: figures that could not be measured, by name, and why.
        unfinished: what was not measured for want of seconds, or "".
    """

    measured: list[Measured] = field(default_factory=list)
    group: ComparisonGroup | None = None
    unmeasured: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    unfinished: str = ""


def gather(scope: Scope, paths: Sequence[str | os.PathLike[str]] = (), fresh: bool = False) -> Findings:
    """The measurements that count.

    Args:
        paths: folders of benches, files of results, plans, and folders of plans. Without any, out/bench-NAME and those
            beside it are read (see `folder`), and certificates in out/ that are of this model; what cannot be read
            there is passed over, with a note.
        fresh: whether a path may be an empty folder, or none yet, that will be measured into.

    Raises:
        InvalidInput: a path holds no measurement of this model, a plan was tuned for another one, or a file is damaged.
        FileNotFoundError: nothing is at a path.
    """
    found, tuned = Findings(), list[Measured]()
    results: dict[str, Measured] = {}
    model, schedule, cost = scope.target
    place = schedule.fingerprint, cost, scope.force

    def take(measured: Sequence[Measured], path: Path) -> None:
        for one in measured:
            if one.key not in results or not is_here(results[one.key].machine, scope.here):
                results[one.key] = _at_path(one, path if path.is_dir() else path.parent)

    for path in with_timings(paths, model.digest, scope.here):
        if fresh and is_fresh(path):
            found.notes.append(f"nothing is measured in {path} yet")
            continue
        take(_of_model(_results(path), path, scope), path)
        tuned += [read_tuned(file, model, *place) for file in plan_files(path)]
    for path in () if paths else (*usual_folders(model.name), *sorted(OUT.glob(f"*{CERTIFICATE}"))):
        try:
            if path.is_dir():
                take(_of_usual(path, scope, found.notes), path)
            elif is_certified(path, model.digest):
                tuned.append(read_tuned(plan_of(path), model, *place))
        except InvalidInput as error:
            found.notes.append(f"passed over: {error}")
    _take_group(found, _at_scale(found, list(results.values()), scope), scope)
    _take_tuned(found, tuned, scope)
    return found


def _at_path(one: Measured, folder: Path) -> Measured:
    """With the whole path of its plan."""
    plan = one.plan
    return one if plan.file is None else replace(one, plan=replace(plan, file=str(folder / plan.file)))


def _at_scale(found: Findings, results: Sequence[Measured], scope: Scope) -> list[Measured]:
    """The results of a scale that lost nothing."""
    scales = sorted({one.guidance for one in results if one.guidance is not None})
    own = [one for one in results if one.guidance == scope.guidance and not one.lost]
    if results and not own:
        others, wanted = ", ".join(map(exact, scales)), exact(scope.guidance or 1)
        found.notes.append(f"measured at guidance {others}, and not at {wanted}: give --guidance")
    if (lost := sum(one.lost > 0 for one in results)) > 0:
        found.notes.append(f"{lost} measurements lost images that were not finite, and are left out")
    return own


def _take_group(found: Findings, results: Sequence[Measured], scope: Scope) -> None:
    """Those that may be compared: on this device before others, then of the most images, then the most of them."""
    here = scope.here
    own = [one for one in results if scope.conditions in (None, one.conditions)]
    if left := len(results) - len(own):
        found.notes.append(
            f"{left} measurements are of other prompts, and are left out: give --prompts FILE with theirs"
        )
    enough = [one for one in own if scope.images is None or one.images >= scope.images]
    if left := len(own) - len(enough):
        found.notes.append(f"{left} measurements are of fewer than {scope.images} images, and are left out")
    grouped = groups(enough)
    if not grouped:
        return
    best = max(grouped, key=lambda group: (group.device == here.device, group.images, len(grouped[group])))
    found.group = best
    found.measured = [one if is_here(one.machine, here) else replace(one, seconds=UNKNOWN) for one in grouped[best]]
    if left := len(enough) - len(grouped[best]):
        found.notes.append(
            f"{left} measurements of other images or devices cannot be compared with these, and are left out"
        )
    if elsewhere := sum(not one.timed for one in found.measured):
        found.notes.append(
            f"the seconds of {elsewhere} measurements are of another machine or number of threads, and are not used"
        )


def _take_tuned(found: Findings, tuned: Sequence[Measured], scope: Scope) -> None:
    """Plans that were not measured: with the figures of their certificates where these are of the same guidance."""
    known = {one.plan.digest for one in found.measured}
    variance = next((variance_of(one) for one in found.measured if "error" in one.figures), None)
    same = scope.guidance, 1.0 if scope.guidance is None else scope.guidance
    for one in tuned:
        file = one.plan.file
        if one.plan.digest in known:
            continue
        known.add(one.plan.digest)
        found.unmeasured.append(Path(str(file)))
        if not one.figures:
            found.notes.append(f"{file} is left out: no measurement and no certificate beside it is of this model")
        elif one.guidance not in same:
            scale = "another guidance" if one.guidance is None else f"guidance {exact(one.guidance)}"
            found.notes.append(
                f"{file} is left out: its certificate is of {scale}, and nothing is measured at this one"
            )
        else:
            own = replace(one, guidance=scope.guidance)
            found.measured.append(own if variance is None else with_quality(own, variance))
            found.notes.append(f"{file}: from its certificate, on other noise than the others, and without seconds")
            if one.foreign:
                found.notes.append(f"{file} was tuned for another model: its figures are of that one")


def _of_usual(path: Path, scope: Scope, notes: list[str]) -> list[Measured]:
    """The results of this model in a usual folder. The first is named where it has none."""
    results = _results(path)
    own = _own(results, scope)
    if results and not own and path == home_of(scope.target.model.name):
        other = results[0].model.digest
        notes.append(f"{path} is of another model of this name, with digest {other}: passed over")
    return own


def _results(path: Path) -> list[Measured]:
    if path.is_dir():
        return results_in(path)
    return read_results(path) if path.suffix == ".jsonl" else []


def _of_model(results: list[Measured], path: Path, scope: Scope) -> list[Measured]:
    own = _own(results, scope)
    if results and not own:
        other, model = results[0].model, scope.target.model
        raise InvalidInput(
            f"{path} holds measurements of {other.name!r} with digest {other.digest}, this is {model.name!r} with "
            f"digest {model.digest}: give those of this model, or run `fewstep bench`"
        )
    return own


def _own(results: Sequence[Measured], scope: Scope) -> list[Measured]:
    return [one for one in results if one.model.digest == scope.target.model.digest]
