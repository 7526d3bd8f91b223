"""From a model and a budget to an answer: what is known, what is measured quickly, and advice where nothing is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.benchmark.advice import Advice, advice_for
from fewstep.benchmark.commands import Lines, lines_of
from fewstep.benchmark.findings import Findings, Scope, gather
from fewstep.benchmark.folder import folder_for
from fewstep.benchmark.measured import Measured, PlanFacts, unmeasured
from fewstep.benchmark.missing import Missing, missing
from fewstep.benchmark.pareto import ComparisonGroup, group_of
from fewstep.benchmark.planner import Budget, Choice, decide
from fewstep.benchmark.runner import measure as measure_sweep
from fewstep.benchmark.search import SHARE, ScaleChoice, ScaleSearch, find_scale, search_of
from fewstep.benchmark.settings import PLAIN, SILENT, Loading, Pictures, Reporter
from fewstep.benchmark.subject import Source, Subject
from fewstep.core.errors import InvalidInput
from fewstep.tuning.rivals import fitting

LEAST_SECONDS = 1e-3
"""For a sweep where none are left: it measures one plan whatever it takes."""


@dataclass(frozen=True)
class Evidence:
    """What a choice may rest on.

    Attributes:
        results: folders of benches, tuned plans, and folders of these; a folder that is empty or missing is measured
            into. Without any, what is in out/ of this model.
        prompts: a file with a prompt a line that the measurements are to be of.
        images: that a measurement is of at least, 2 to 100,000; with fewer it is made anew. None takes those that are
            there, or where there is none as many as `bench`.
        seconds: what may be spent, about, to measure what is missing; None measures nothing.
        force: take plans that were tuned for another model.
    """

    results: Sequence[str | os.PathLike[str]] = ()
    prompts: str | os.PathLike[str] | None = None
    images: int | None = None
    seconds: float | None = 60.0
    force: bool = False


KNOWN = Evidence()
"""What is in out/, and a minute to measure more."""


@dataclass(frozen=True)
class Answer:
    """What to draw with.

    Attributes:
        chosen: the plan and its figures, which are empty where `advice` is what it rests on.
        choice: with its neighbours; None where it is advice.
        lines: what to type.
        notes: what to know of it.
        guidance: how the guidance scale was found; None where it was given.
    """

    budget: Budget
    measure: str
    chosen: Measured
    choice: Choice | None
    advice: Advice | None
    lines: Lines
    notes: Sequence[str]
    guidance: ScaleChoice | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `kind` is "measured" or "advice"."""
        others = {} if self.choice is None else self.choice._asdict()
        neighbours = {name: others.get(name) for name in ("better", "cheaper", "tied")}
        return {
            "kind": "measured" if self.advice is None else "advice",
            "budget": asdict(self.budget),
            "measure": self.measure,
            **{name: None if one is None else one.to_json() for name, one in neighbours.items()},
            "chosen": self.chosen.to_json(),
            "advice": None if self.advice is None else {**self.advice._asdict(), "options": dict(self.advice.options)},
            "lines": self.lines._asdict(),
            "notes": list(self.notes),
            "guidance": None if self.guidance is None else self.guidance.to_json(),
        }


def choose(
    pipe: Source,
    budget: Budget,
    *,
    measure: str = "quality",
    guidance: float | str | ScaleSearch | None = None,
    evidence: Evidence = KNOWN,
    loading: Loading = PLAIN,
    reporter: Reporter = SILENT,
) -> Answer:
    """The plan for a budget, chosen among what was measured of a model.

    Args:
        pipe: a pipeline in float32, with which the lines to type begin; or a name, path or id as `fewstep.load` takes
            them, which the lines load.
        measure: the figure that decides, such as "quality" or "adherence".
        guidance: the scale that is drawn with; None is the model's own. "auto" chooses it by measurement, and a
            `ScaleSearch` says how; a negative prompt that helps comes with it.
        evidence: what the choice may rest on, and what may be spent to measure more.
        loading: where a model that is not loaded yet runs, and how its files are read.
        reporter: told why is measured, and into which folder, what it will cost, and what goes on.

    Raises:
        InvalidInput: nothing meets the budget, or a file cannot be used; nothing tells a better guidance scale, or
            nothing may be measured, where the scale is to be chosen.
    """
    search, began = search_of(guidance), time.monotonic()
    if search is not None and evidence.seconds is None:
        raise InvalidInput('guidance "auto" is chosen by measurement: leave out --no-measure, or give a scale')
    subject = Subject(pipe, Pictures(evidence.images, prompts=evidence.prompts), loading)
    found = None if search is None else _scale_for(subject, budget, search, evidence, reporter)
    scale = subject.scale(guidance if found is None else found.scale)  # type: ignore[arg-type]
    question = _Question(subject, budget, measure, scale, evidence, began)
    findings = question.answered(reporter)
    choice, advice, notes = None, None, [*findings.notes, *filter(None, [findings.unfinished])]
    if findings.measured:
        try:
            choice = decide(findings.measured, budget, measure, findings.missing.get(measure, ""))
        except InvalidInput as error:
            if findings.unfinished:
                raise InvalidInput(f"{error}. Of what was to be measured: {findings.unfinished}") from error
            raise
        # As this model is loaded now, whatever its measurements were loaded from.
        chosen = replace(choice.chosen, model=subject.model)
    else:
        chosen, advice = question.advised()
        if budget.ms is not None or budget.quality is not None:
            notes.append("of the milliseconds and the quality that you ask for nothing is known without measuring")
    negative = None if found is None else found.negative
    if negative is not None:
        notes.append("the samplers were compared without the negative prompt")
    lines = lines_of(chosen, subject.words, subject.is_loaded, negative)
    return Answer(budget, measure, chosen, choice, advice, lines, notes, found)


def _scale_for(
    subject: Subject, budget: Budget, search: ScaleSearch, evidence: Evidence, reporter: Reporter
) -> ScaleChoice:
    """The guidance scale, found in its share of the time."""
    model, seconds = subject.model, evidence.seconds or 0.0
    place = folder_for(model.name, model.digest, subject.here, evidence.results)
    return find_scale(subject, budget, search, place, SHARE * seconds, reporter)


@dataclass(frozen=True)
class _Question:
    """What is asked of a model, see `choose`; `scale` is the guidance, None where there is nothing to guide. The time
    counts from `began`.

    With seconds to spend, the measurements that count are of the prompts, and of at least as many images, as new ones
    would have.
    """

    subject: Subject
    budget: Budget
    measure: str
    scale: float | None
    evidence: Evidence
    began: float

    @property
    def cost(self) -> int:
        """Network evaluations of a row."""
        return self.subject.target(self.scale).cost

    @property
    def can_measure(self) -> bool:
        """Whether anything may be measured."""
        return self.evidence.seconds is not None and not self.subject.lacks_prompts

    def known(self, folders: Sequence[Path] = ()) -> Findings:
        """What is measured, also in `folders`, where paths say where to look."""
        evidence, subject = self.evidence, self.subject
        paths = (*evidence.results, *folders) if evidence.results else ()
        conditions = None if subject.lacks_prompts else subject.conditions_digest
        scope = Scope(subject.target(self.scale), subject.here, self.scale, conditions, evidence.images, evidence.force)
        fresh = evidence.seconds is not None
        found = gather(scope, paths, fresh)
        if found.group is None and not self.can_measure:  # others are better than none
            any_prompts = replace(scope, conditions=conditions if evidence.prompts else None, images=None)
            found = gather(any_prompts, paths, fresh)
            if evidence.images is not None and found.group is not None:
                found.notes.append(
                    f"the measurements are of {found.group.images} images, and none of {evidence.images}"
                )
        if subject.is_loaded:  # it is in float32, and cannot be drawn with otherwise
            found.measured = [one for one in found.measured if one.precision == "float32"]
        return found

    def lacking(self, found: Findings) -> Missing | None:
        """What the findings lack."""
        return missing(found, self.budget, self.measure, self.cost)

    def answered(self, reporter: Reporter) -> Findings:
        """What is known once all is measured that may be; the notes say what is lacking still.

        Raises `InvalidInput` where nothing is known and nothing can be measured for want of prompts.
        """
        found = self.known()
        need, seconds = self.lacking(found), self.evidence.seconds
        if seconds is None or not self.can_measure:
            if need is not None and found.measured:
                how = "" if seconds is None else ": give --prompts FILE to measure it"
                found.notes.append(f"{need.why}{how}; this is the best of what is measured")
            elif need is not None and seconds is not None:
                self.subject.conditions  # noqa: B018  refuses
            return found
        end, tried, folders = self.began + seconds, list[tuple[Missing, ComparisonGroup | None]](), list[Path]()
        while need is not None and (need, found.group) not in tried:
            left = end - time.monotonic()
            if tried and left <= 0:
                found.unfinished = f"{need.why}, and the {seconds:g} s are over: allow more"
                break
            folder, group = self._folder(), found.group
            reporter.begin(need.why, folder)
            bench = measure_sweep(
                self._comparable(group), need.sweep(self.scale, self.evidence.force), folder,
                seconds=max(left, LEAST_SECONDS), reporter=reporter,
            )  # fmt: skip
            if bench.stopped == "interrupted":
                raise KeyboardInterrupt
            # The folder may have results of more images, which are compared then: those lack the same once more.
            tried.append((need, group_of(bench.results[0]) if bench.results else group))
            folders.append(folder)
            found = self.known(list(dict.fromkeys(folders)))
            found.missing = dict(bench.missing)
            if bench.left:
                found.unfinished = f"{bench.left} plans were not measured within {seconds:g} s: allow more"
                break
            need = self.lacking(found)
        return found

    def _folder(self) -> Path:
        """Where to measure into."""
        model = self.subject.model
        timed = self.budget.ms is not None
        return folder_for(model.name, model.digest, self.subject.here, self.evidence.results, timed)

    def _comparable(self, group: ComparisonGroup | None) -> Subject:
        """The model with the images of a group, so that what is measured may be compared with it."""
        if group is None:
            return self.subject
        return self.subject.drawing(replace(self.subject.pictures, count=group.images, seed=group.seed))

    def advised(self) -> tuple[Measured, Advice]:
        """The field's advice for rows or evaluations. Raises `InvalidInput` for other budgets, which need measuring."""
        model, schedule, cost = self.subject.target(self.scale)
        rows = self.budget.most_rows(cost)
        if rows is None:
            raise InvalidInput(
                f"{model.name} has no measurements, and without them there is advice for --budget-rows and "
                "--budget-nfe only: leave out --no-measure, or run `fewstep bench`"
            )
        if self.budget.nfe is not None and self.budget.nfe < cost:
            raise InvalidInput(f"guidance takes {cost} network evaluations a row: allow NFE {cost}, or --guidance 1")
        advice = advice_for(rows)
        plans = fitting(advice.others[0], schedule, rows, grid=advice.grid, **advice.options)
        plan = next(plans, None) or next(fitting("ddim", schedule, rows))
        return unmeasured(model, PlanFacts.of(plan), self.scale, cost), advice
