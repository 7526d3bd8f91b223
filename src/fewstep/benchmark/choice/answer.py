"""From a model and a budget to an answer: what is known, what is measured quickly, and advice where nothing is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewstep import zoo
from fewstep.benchmark import Estimate, Progress
from fewstep.benchmark.choice.advice import Advice, advice_for
from fewstep.benchmark.choice.candidate import Candidate, facts_of
from fewstep.benchmark.choice.lines import Lines, lines_of
from fewstep.benchmark.choice.measuring import Question, measured
from fewstep.benchmark.choice.missing import Need
from fewstep.benchmark.choice.planner import Budget, Choice, decide
from fewstep.benchmark.loading import Loading
from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Pipeline, TextPipeline
from fewstep.pipeline.source import is_hub_id
from fewstep.tuning.rivals import fitting
from fewstep.tuning.subject import scale_of


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
    source: str | os.PathLike[str] | Pipeline | TextPipeline,
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
        pipe: what `fewstep.load` made, in float32.
        source: what it was made of, with `variant`, `config` and `allow_pickle`; or `pipe` itself, where it was made of
            a callable or was changed since: the lines to type then begin with `pipe(`.
        measure: the figure of the rows that decides, such as "quality" or "adherence".
        guidance: the scale that is drawn with; None is the model's own.
        paths: see `gather`; an empty folder, or one that is not there yet, is measured into.
        prompts: a file with a prompt a line that the measurements are to be of.
        seconds: what may be spent to measure what is missing, about; None measures nothing.
        images: that a row is of at least, 2 to 100,000; rows of fewer are measured anew. None takes those that are
            there, or where there is none as many as `bench`.
        force: take plans that were tuned for another model.
        begin: told what will be measured, and into which folder, before it is; `announce` and `watch` are of `bench`.

    Raises:
        InvalidInput: nothing meets the budget, or a file cannot be used.
    """
    source = _checked(pipe, source)
    words = isinstance(pipe, TextPipeline)
    scale = scale_of(pipe, guidance) if words or pipe.classes > 0 else None
    loading = Loading.of(variant, config, allow_pickle)
    asked = Question(
        pipe, source, budget, measure, scale, tuple(paths), prompts, seconds, images, force, loading
    )  # fmt: skip
    results = measured(asked, begin, announce, watch)
    choice, advice, notes = None, None, [*results.notes, *filter(None, [results.unfinished])]
    if results.candidates:
        try:
            choice = decide(results.candidates, budget, measure, results.missing.get(measure, ""))
        except InvalidInput as error:
            if results.unfinished:
                raise InvalidInput(f"{error}. Of what was to be measured: {results.unfinished}") from error
            raise
        chosen = choice.chosen
    else:
        chosen, advice = _advised(asked)
        if budget.ms is not None or budget.quality is not None:
            notes.append("of the milliseconds and the quality that you ask for nothing is known without measuring")
    lines = lines_of(source if isinstance(source, str) else None, chosen, words, loading, str(pipe.device))
    return Answer(budget, measure, chosen, choice, advice, lines, notes)


def _checked(
    pipe: Pipeline | TextPipeline, source: str | os.PathLike[str] | Pipeline | TextPipeline
) -> str | Pipeline | TextPipeline:
    """The source of a pipeline, a path as a text. Raises `InvalidInput` for one that it cannot be of."""
    if getattr(pipe, "dtype", None) not in (None, torch.float32):
        raise InvalidInput(
            f"a plan is chosen for a model in float32, this one is in {pipe.dtype}: load it in float32, and draw with "
            "the plan in any"
        )
    if source is pipe:
        return pipe
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        if name in zoo.SHIPPED or Path(name).exists() or is_hub_id(name):
            return name
    raise InvalidInput(
        f"source is what `fewstep.load` made the pipeline of, or the pipeline itself, got {source!r:.60}: give the "
        "pipeline"
    )


def _advised(asked: Question) -> tuple[Candidate, Advice]:
    """The field's advice for a number of evaluations. Raises `InvalidInput` for other budgets,
    which need measuring.
    """
    pipe, budget, scale = asked.pipe, asked.budget, asked.scale
    schedule = pipe.schedule_at() if isinstance(pipe, TextPipeline) else pipe.schedule
    if budget.nfe is None:
        raise InvalidInput(
            f"nothing is measured of {pipe.name}, and advice knows no milliseconds and no quality: leave out "
            "--no-measure, or run `fewstep bench`; for --budget-nfe there is advice"
        )
    advice = advice_for(budget.nfe)
    plan = next(
        fitting(advice.others[0], schedule, budget.nfe, grid=advice.grid, **advice.options), None
    ) or next(fitting("ddim", schedule, budget.nfe))  # fmt: skip
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
    return chosen, advice
