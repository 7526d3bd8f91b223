"""Which techniques pay, one on top of the other: the fastest of those that lose little enough, until none is faster.

What is slower alone may be faster on top of another, as INT8 is only where it is compiled; so all are timed again on
what was kept. One that loses too much is not tried again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from fewstep.core.errors import InvalidInput
from fewstep.optimization.quality import Judge
from fewstep.optimization.speed import Times, race
from fewstep.optimization.technique import TECHNIQUES, Technique
from fewstep.optimization.trial import Trial
from fewstep.pipeline import Pipeline
from fewstep.variants import Store, Variant, compile_seconds

Watch = Callable[[str], None]


@dataclass(eq=False)
class Choice:
    """The choosing of a variant of a model.

    Attributes:
        judge: of what is lost; `most`: the share that may be.
        draw: draws a batch with a pipeline, by the number of the turn, from prompts to pixels.
        batch: images of a drawing; `batches`: all numbers that the variant is made for.
        end: in seconds of `time.monotonic`; None is no limit.
        variant: what was kept; `trials`: what was tried.
    """

    judge: Judge
    most: float
    draw: Callable[[Pipeline, int], object]
    batch: int
    batches: Sequence[int]
    store: Store
    end: float = math.inf
    watch: Watch = lambda words: None
    techniques: Sequence[Technique] = TECHNIQUES
    variant: Variant = field(default_factory=Variant)
    trials: list[Trial] = field(default_factory=list)
    cut: bool = field(default=False, init=False)

    def run(self) -> Variant:
        """Try until nothing is faster, or the time is over."""
        left = list(self.techniques)
        while left and not self.cut:
            left, found = self._round(left)
            if not found:
                break
        return self.variant

    def made(self, variant: Variant) -> Pipeline:
        """A pipeline with a variant of the model."""
        return Pipeline(variant.of(self.judge.pipe.model, (self.batch,), self.store))

    def _round(self, techniques: Sequence[Technique]) -> tuple[list[Technique], bool]:
        """Time all on top of what was kept, and keep the fastest that may be.

        Returns which may be tried on top of it, all but that and those that lose too much, and whether one was kept.
        """
        base, names = self.made(self.variant), str(self.variant)
        options = [(technique, variant) for technique in techniques if (variant := technique.on(self.variant))]
        pipes, ready = [], []
        for technique, variant in options:
            self.watch(f"{technique.name}, on {names}")
            try:
                pipe = self.made(variant)
                self.draw(pipe, 0)
            except InvalidInput as error:
                self.trials.append(Trial(technique.name, names, False, str(error)))
                continue
            pipes.append(pipe)
            ready.append((technique, variant))
        self.watch(f"timing {len(ready)} in turns, on {names}")
        device = torch.device(base.model.device)
        draws: list[Callable[[int], object]] = [lambda turn, pipe=pipe: self.draw(pipe, turn) for pipe in pipes]
        times = race(lambda turn: self.draw(base, turn), draws, device, self.end)
        order = sorted(range(len(ready)), key=lambda i: -times[i].ratio.value)
        going, kept = [ready[i][0] for i in order], ""
        for i in order:
            technique, variant = ready[i]
            speed = times[i].ratio
            if speed.low <= 1:
                words = "slower" if speed.high < 1 else "not surely faster"
                self.trials.append(Trial(technique.name, names, False, f"{words}: {speed.value:.2f} times", speed))
            elif kept:
                self.trials.append(Trial(technique.name, names, False, f"faster, but less than {kept}", speed))
            else:
                trial = self._judged(technique, pipes[i], times[i])
                self.trials.append(trial)
                going.remove(technique)
                if trial.kept:
                    self.variant, kept = variant, technique.name
        self.cut = time.monotonic() > self.end
        return going, bool(kept)

    def _judged(self, technique: Technique, pipe: Pipeline, times: Times) -> Trial:
        """Whether what is faster loses little enough, and fewer rows do no better."""
        self.watch(f"judging {technique.name}, on {self.variant}")
        gallery, names = self.judge.gallery(pipe), str(self.variant)
        _, loss = self.judge.judged(gallery, self.most)
        saved = (sum(times.base) / len(times.base) - times.seconds) / self.batch
        compiling = compile_seconds(pipe.model)
        pays = math.ceil(compiling / saved) if compiling and saved > 0 else None
        trial = Trial(technique.name, names, False, "", times.ratio, loss.error, loss.adherence, pays)
        if not loss.within(self.most):
            return replace(trial, why=loss.words(self.most))
        rows = int(len(self.judge.plan.rows) / times.ratio.value)
        rival = self.judge.beside_fewer(pipe, rows) if 0 < rows < len(self.judge.plan.rows) else None
        if rival is None:
            return replace(trial, kept=True, why="kept")
        plan, gained = rival
        fewer = f"{len(plan.rows)} rows take the same time ({plan.recipe.sampler} on {plan.recipe.grid})"
        if gained.low > 0:
            return replace(trial, why=f"{fewer} and have less error: take fewer rows")
        return replace(trial, kept=True, why=f"kept: {fewer} and have more error")
