"""From a model and a budget to an answer: what is known, what is measured quickly, and advice where nothing is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.bench import Estimate, Progress, bench
from fewstep.bench.loading import Loading
from fewstep.bench.machine import machine_of
from fewstep.bench.problems import scale_of
from fewstep.bench.subject import conditions_digest, conditions_of
from fewstep.choose.advice import Advice, advice_for
from fewstep.choose.candidate import Candidate, facts_of
from fewstep.choose.lines import Lines, lines_of
from fewstep.choose.missing import Need, lacking
from fewstep.choose.planner import Budget, Choice, decide
from fewstep.choose.results import RUNS, Results, gather
from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Pipeline, TextPipeline
from fewstep.tune import search


@dataclass(frozen=True)
class Answer:
    """What to draw with.

    Attributes:
        chosen: the plan and its figures, which are empty where `advice` is what it rests on.
        choice: with its neighbours; None where it is advice.
        lines: what to type.
        notes: what to know of it.
    """

    budget: Budget
    measure: str
    chosen: Candidate
    choice: Choice | None
    advice: Advice | None
    lines: Lines
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `kind` is "measured" or "advice"."""
        others = {} if self.choice is None else self.choice._asdict()
        return {
            "kind": "measured" if self.advice is None else "advice",
            "budget": {"nfe": self.budget.nfe, "ms": self.budget.ms, "quality": self.budget.quality},
            "measure": self.measure,
            **{
                name: None if others.get(name) is None else others[name].to_json()
                for name in ("better", "cheaper", "tied")
            },
            "chosen": self.chosen.to_json(),
            "advice": None if self.advice is None else {**self.advice._asdict(), "options": dict(self.advice.options)},
            "lines": self.lines._asdict(),
            "notes": list(self.notes),
        }


def choose(
    pipe: Pipeline | TextPipeline,
    source: str,
    budget: Budget,
    *,
    measure: str = "quality",
    guidance: float | None = None,
    paths: Sequence[str | os.PathLike[str]] = (),
    prompts: str | os.PathLike[str] | None = None,
    seconds: float | None = 60.0,
    images: int | None = None,
    force: bool = False,
    variant: str | None = None,
    config: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
    begin: Callable[[Need, Path], None] = lambda need, folder: None,
    announce: Callable[[Estimate], None] = lambda estimate: None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Answer:
    """The plan for a budget, chosen among what was measured of a model.

    Args:
        pipe: what `fewstep.load` made of `source`, with `variant`, `config` and `allow_pickle`.
        measure: the figure of the rows that decides, such as "quality" or "adherence".
        guidance: the scale that is drawn with; None is the model's own.
        paths: see `gather`.
        prompts: a file with a prompt a line that the measurements are to be of.
        seconds: what may be spent to measure what is missing, about; None measures nothing.
        images: of each row that is measured, None as `bench` has them; rows that are there already decide it.
        force: take plans that were tuned for another model.
        begin: told what will be measured, and into which folder, before it is; `announce` and `watch` are of `bench`.

    Raises:
        InvalidInput: nothing meets the budget, or a file cannot be used.
    """
    words = isinstance(pipe, TextPipeline)
    guided = words or pipe.classes > 0
    scale = scale_of(pipe, guidance) if guided else None
    schedule = pipe.schedule_at() if words else pipe.schedule
    loading = Loading.of(variant, config, allow_pickle)
    conditions = None if prompts is None else conditions_digest(conditions_of(pipe, prompts))

    def known() -> Results:
        return gather(
            pipe.name,
            pipe.weights,
            machine_of(pipe.device),
            guidance=scale,
            paths=paths,
            fingerprint=schedule.fingerprint,
            force=force,
            conditions=conditions,
        )

    results = known()
    need = lacking(results, budget, measure)
    if need is not None and seconds is not None:
        folder = _folder(paths, pipe.name)
        begin(need, folder)
        group = results.group
        found = bench(
            source,
            need.sweep(scale, force),
            output=folder,
            prompts=prompts,
            images=images if group is None else group.images,
            seed=0 if group is None else group.seed,
            seconds=seconds,
            device=pipe.device,
            **loading.given,
            announce=announce,
            watch=watch,
        )
        if found.stopped == "interrupted":
            raise KeyboardInterrupt
        paths = paths if not paths or folder in map(Path, paths) else [*paths, folder]
        results = known()
        if found.left:
            results.notes.append(f"{found.left} rows were not measured within {seconds:g} s: allow more")
    elif need is not None and results.candidates:
        results.notes.append(f"{need.why}; this is the best of what is measured")
    if not results.candidates:
        chosen, advice, notes = _advised(pipe, schedule, budget, scale, results)
        return Answer(
            budget, measure, chosen, None, advice, lines_of(source, chosen, words, loading, str(pipe.device)), notes
        )
    choice = decide(results.candidates, budget, measure)
    lines = lines_of(source, choice.chosen, words, loading, str(pipe.device))
    return Answer(budget, measure, choice.chosen, choice, None, lines, results.notes)


def _folder(paths: Sequence[str | os.PathLike[str]], name: str) -> Path:
    """Where to measure into: the first folder of a bench that was given, else the usual one."""
    given = [path for path in map(Path, paths) if (path / RUNS).is_file()]
    return given[0] if given else Path("out") / f"bench-{name}"


def _advised(
    pipe: Pipeline | TextPipeline, schedule: Any, budget: Budget, scale: float | None, results: Results
) -> tuple[Candidate, Advice, list[str]]:
    """The field's advice for a number of evaluations, and what to know of it. Raises `InvalidInput` for other budgets,
    which need measuring.
    """
    if budget.nfe is None:
        raise InvalidInput(
            f"nothing is measured of {pipe.name}, and advice knows no milliseconds and no quality: leave out "
            "--no-measure, or run `fewstep bench`; for --budget-nfe there is advice"
        )
    advice = advice_for(budget.nfe)
    plan = next(
        search.fitting(advice.others[0], schedule, budget.nfe, grid=advice.grid, **advice.options), None
    ) or next(search.fitting("ddim", schedule, budget.nfe))  # fmt: skip
    rows = 2.0 if scale not in (None, 1.0) and not getattr(pipe, "distilled", False) else 1.0
    chosen = Candidate(
        **facts_of(plan),
        plan_file=None,
        kind="untuned",
        guidance=scale,
        precision="float32",
        evaluations=rows * plan.nfe,
        figures={},
        images=0,
        seconds=None,
        source="advice of the field",
    )
    notes = [*results.notes]
    if budget.ms is not None or budget.quality is not None:
        notes.append("of the milliseconds and the quality that you ask for nothing is known without measuring")
    return chosen, advice, notes
