"""Pictures at several guidance scales, drawn in rounds: a batch at each scale, then the next batch at each.

So time that is short costs images and not scales. A scale that is behind the best in every sample of the bootstrap is
not drawn further, which leaves the time to those that are hard to tell apart. What was drawn is kept after each batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fewstep.benchmark import batches
from fewstep.benchmark.folder import Folder
from fewstep.benchmark.kept import KeptImages
from fewstep.benchmark.measured import key_of
from fewstep.benchmark.scale import Rung
from fewstep.benchmark.settings import Reporter, Stage
from fewstep.benchmark.subject import Subject
from fewstep.benchmark.yardstick import Yardstick, signed
from fewstep.core.plan import Plan
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Difference, Figure
from fewstep.measure.saturation import saturation
from fewstep.measure.standing import advantage, always_better, standing
from fewstep.tuning import Problem

FIRST, SURE = 16, Bootstrap(4000)
"""After so many images, and after twice as many each time, those that are behind are looked for, by so many samples of
the bootstrap."""


@dataclass(eq=False)
class Case:
    """A guidance scale, with a negative prompt or none, and the plan that draws.

    Attributes:
        kept: what was read of its images so far.
        dropped: after how many images it was given up; None while it is in.
        behind: by how much it was worse then.
    """

    scale: float
    negative: str | None
    plan: Plan
    problem: Problem
    file: Path
    kept: KeptImages
    dropped: int | None = None
    behind: Difference | None = None

    @property
    def words(self) -> str:
        """For people."""
        return f"guidance {self.scale:g}" + ("" if self.negative is None else f", away from {self.negative!r}")


@dataclass(eq=False)
class Rounds:
    """The measuring of cases of a model into its folder; `seconds` are those of a network evaluation of an image."""

    subject: Subject
    folder: Folder
    yardstick: Yardstick
    reporter: Reporter
    seconds: float = field(default=0.0, init=False)
    done: float = field(default=0.0, init=False)
    drew: bool = field(default=False, init=False)

    def case(self, scale: float, plan: Plan, negative: str | None = None) -> Case:
        """A case, with what the folder has of it."""
        subject = self.subject
        facts = {name: value for name, value in subject.facts.items() if name != "images"}
        judged = {"by": self.yardstick.digest, "device": subject.here.device}
        key = key_of({**facts, **judged, "plan": plan.digest, "guidance": scale, "negative": negative})
        file = self.folder.scale(key)
        kept = KeptImages.load(file) if file.exists() else KeptImages.none()
        return Case(scale, negative, plan, subject.problem(scale, negative=negative), file, kept)

    def evaluations(self, case: Case) -> int:
        """Network evaluations of an image of a case."""
        cost = self.subject.target(case.scale).cost
        factors = case.plan.guidance_factors
        return cost * len(case.plan.rows) if factors is None else len(case.plan.rows)

    def pilot(self, cases: Sequence[Case]) -> float:
        """Find the seconds of an evaluation by some short drawings; returns those of the images of all cases."""
        case = max(cases, key=self.evaluations)
        part = case.problem.parts(self.subject.numbers)[0]
        plan = self.subject.plan(1, "ddim")
        found = [batches.draw(case.problem, plan, part, lambda states: states) for _ in range(3)]
        self.seconds = min(one.seconds / one.evaluations for one in found)
        missing = (max(0, self.subject.count - len(case.kept)) * self.evaluations(case) for case in cases)
        return self.seconds * sum(missing)

    def lacking(self, cases: Sequence[Case], base: Case | None = None) -> list[Case]:
        """The cases that have to draw more, as far as what is kept tells; those that are behind in it are dropped."""
        self._rounds(cases, None, base)
        return [case for case in cases if case.dropped is None and len(case.kept) < self.subject.count]

    def run(self, cases: Sequence[Case], end: float, base: Case | None = None) -> int:
        """Draw until all images are there, or the time is at `end`, in seconds of `time.monotonic`.

        The first batch is drawn even where it takes too long, or the same limit would never end. With a `base`, cases
        are given up that are behind this one, else those that are behind the best.

        Returns:
            How many images each case has that was not dropped.
        """
        return self._rounds(cases, end, base)

    def _rounds(self, cases: Sequence[Case], end: float | None, base: Case | None) -> int:
        """See `run`; without an end, until the first image that is not there."""
        numbers, batch = self.subject.numbers, self.subject.batch
        total = float(sum(self.evaluations(case) for case in cases))
        for start in range(0, len(numbers), batch):
            part = numbers[start : start + batch]
            for case in (case for case in cases if case.dropped is None):
                if len(case.kept) >= start + len(part):
                    continue
                takes = self.seconds * self.evaluations(case) * len(part)
                if end is None or (self.drew and time.monotonic() + takes > end):
                    return min(len(case.kept) for case in cases if case.dropped is None)
                self.reporter.watch(Stage(case.words, self.done, max(total, self.done)))
                self._draw(case, part, start)
                self.done += self.evaluations(case) * len(part) / len(numbers)
            self._drop(cases, start, start + len(part), base)
        return len(numbers)

    def rung(self, case: Case, images: int) -> Rung:
        """What is known of a case by its first so many images, or those that it has."""
        kept = case.kept.first(case.dropped or images)
        lost = int(kept.lost.sum())
        return Rung(
            scale=case.scale,
            rows=len(case.plan.rows),
            nfe=float(kept.evaluations.mean()) if len(kept) else float(self.evaluations(case)),
            images=len(kept),
            lost=lost,
            figure=self.figure(case, len(kept)) if not lost and len(kept) >= max(2, self.yardstick.least) else None,
            saturated=float(kept.saturated.mean()) if len(kept) and not lost else None,
            behind=case.behind,
            dropped=case.dropped is not None,
        )

    def figure(self, case: Case, images: int, bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
        """The figure of the first so many images of a case."""
        subjects = [self.subject.condition(n) for n in self.subject.numbers[:images]]
        return self.yardstick.figure(case.kept.values[:images], subjects, bootstrap)

    def _draw(self, case: Case, part: Sequence[int], start: int) -> None:
        """Draw a batch, and keep what is read of it; a last batch that was not full is drawn again, in full."""
        subject = self.subject
        drawn = batches.draw(case.problem, case.plan, part, subject.decode)
        self.seconds, self.drew = drawn.seconds / drawn.evaluations, True
        good = [tensor.isfinite().flatten(1).all(dim=1).cpu() for tensor in (drawn.states, drawn.pictures)]
        low, high = subject.value_range
        pictures = drawn.pictures.nan_to_num().clamp(-1e6, 1e6)
        found = KeptImages(
            self.yardstick.read(signed(pictures, (low, high)), [subject.condition(n) for n in part]).cpu(),
            saturation(pictures, low, high).share.double().cpu(),
            torch.full((len(part),), drawn.evaluations / len(part), dtype=torch.float64),
            ~(good[0] & good[1]),
        )
        case.kept = case.kept.first(start).followed_by(found)
        case.kept.save(case.file)

    def _drop(self, cases: Sequence[Case], before: int, images: int, base: Case | None) -> None:
        """Give up cases that lost images, and after `FIRST` images, and each doubling, those that are surely behind."""
        for case in cases:
            if case.dropped is None and bool(case.kept.first(images).lost.any()) and case is not base:
                case.dropped = images
        known = [case for case in cases if case.dropped is None]
        doubled = (images // FIRST).bit_length() > (before // FIRST).bit_length()
        if not doubled or not known or not self.yardstick.least <= images < self.subject.count:
            return
        figures = {case: self.figure(case, images, SURE) for case in known}
        best = base if base is not None else known[standing(list(figures.values())).best]
        if best not in figures:
            return
        for case in known:
            if case is not best and always_better(figures[best], figures[case]):
                case.dropped = images
                case.behind = advantage(self.figure(best, images), self.figure(case, images))
