"""What a question lacks is measured, until nothing is lacking or the seconds are over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fewstep.benchmark import Estimate, Group, Progress, bench
from fewstep.benchmark.choice.missing import Need, lacking
from fewstep.benchmark.choice.places import folder_for
from fewstep.benchmark.choice.planner import Budget
from fewstep.benchmark.choice.results import Results, gather
from fewstep.benchmark.loading import Loading
from fewstep.benchmark.machine import machine_of
from fewstep.benchmark.pareto import group_of
from fewstep.benchmark.subject import conditions_digest, conditions_of
from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Pipeline, TextPipeline


@dataclass(frozen=True)
class Question:
    """What is asked of a model, see `choose`; `scale` is the guidance, None where there is nothing to guide.

    With `seconds` the rows that count are of the prompts, and of at least as many images, as new ones would have.
    """

    pipe: Pipeline | TextPipeline
    source: str | Pipeline | TextPipeline
    budget: Budget
    measure: str
    scale: float | None
    paths: tuple[str | os.PathLike[str], ...]
    prompts: str | os.PathLike[str] | None
    seconds: float | None
    images: int | None
    force: bool
    loading: Loading

    @property
    def lacks_prompts(self) -> bool:
        """Whether nothing can be measured without --prompts: the model draws from words, and none are known for it."""
        if self.prompts is not None or not isinstance(self.pipe, TextPipeline):
            return False
        try:
            conditions_of(self.pipe, None)
        except InvalidInput:
            return True
        return False

    def known(self, folders: tuple[Path, ...] = ()) -> Results:
        """What is measured, also in `folders`, where `paths` say where to look."""
        results = self._gathered(folders, None if self.lacks_prompts else self.prompts_digest, self.images)
        if results.group is None and (self.seconds is None or self.lacks_prompts):  # others are better than none
            results = self._gathered(folders, None if self.prompts is None else self.prompts_digest, None)
            if self.images is not None and results.group is not None:
                results.notes.append(f"the rows are of {results.group.images} images, and none of {self.images}")
        if not isinstance(self.source, str):  # it is in float32, and cannot be drawn with otherwise
            results.candidates = [one for one in results.candidates if one.precision == "float32"]
        return results

    @property
    def prompts_digest(self) -> str:
        """By which rows of the same labels or prompts are known."""
        return conditions_digest(conditions_of(self.pipe, self.prompts))

    def _gathered(self, folders: tuple[Path, ...], conditions: str | None, images: int | None) -> Results:
        pipe = self.pipe
        schedule = pipe.schedule_at() if isinstance(pipe, TextPipeline) else pipe.schedule
        return gather(
            pipe.name,
            pipe.weights,
            machine_of(pipe.device),
            guidance=self.scale,
            paths=(*self.paths, *folders) if self.paths else (),
            fingerprint=schedule.fingerprint,
            force=self.force,
            conditions=conditions,
            images=images,
            fresh=self.seconds is not None,
        )


def measured(
    asked: Question,
    begin: Callable[[Need, Path], None],
    announce: Callable[[Estimate], None],
    watch: Callable[[Progress], None],
) -> Results:
    """What is known once all is measured that may be; its notes say what is lacking still.

    Raises `InvalidInput` where nothing is known and nothing can be measured for want of prompts.
    """
    results = asked.known()
    need = lacking(results, asked.budget, asked.measure)
    if asked.seconds is None or asked.lacks_prompts:
        if need is not None and results.candidates:
            how = "" if asked.seconds is None else ": give --prompts FILE to measure it"
            results.notes.append(f"{need.why}{how}; this is the best of what is measured")
        elif need is not None and asked.seconds is not None:
            conditions_of(asked.pipe, None)  # refuses
        return results
    end, tried, folders = time.monotonic() + asked.seconds, list[tuple[Need, Group | None]](), dict[Path, None]()
    while need is not None and (need, results.group) not in tried:
        left = end - time.monotonic()
        if tried and left <= 0:
            results.unfinished = f"{need.why}, and the {asked.seconds:g} s are over: allow more"
            break
        pipe, group = asked.pipe, results.group
        timed = asked.budget.ms is not None
        folder = folder_for(pipe.name, pipe.weights, machine_of(pipe.device), asked.paths, timed)
        begin(need, folder)
        found = bench(
            asked.source,
            need.sweep(asked.scale, asked.force),
            output=folder,
            prompts=asked.prompts,
            images=asked.images if group is None else group.images,
            seed=0 if group is None else group.seed,
            seconds=left,
            device=pipe.device,
            **asked.loading.given,
            announce=announce,
            watch=watch,
        )
        if found.stopped == "interrupted":
            raise KeyboardInterrupt
        # The folder may have had rows of more images, which are compared then: those lack the same once more.
        tried.append((need, group_of(found.runs[0]) if found.runs else group))
        folders[folder] = None
        results = asked.known(tuple(folders))
        results.missing = found.missing
        if found.left:
            results.unfinished = f"{found.left} rows were not measured within {asked.seconds:g} s: allow more"
            break
        need = lacking(results, asked.budget, asked.measure)
    return results
