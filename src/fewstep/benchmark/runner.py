"""From a sweep to rows: what is there already is not measured again, and what is done is kept whatever happens.

Rows that take little are drawn in turns, a batch of each, so that a machine which is busy for a moment slows all of
them and not one. A row is written when its last batch is judged.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.benchmark import draws
from fewstep.benchmark.folder import Folder
from fewstep.benchmark.judge import Judge, Tally
from fewstep.benchmark.machine import device_name, machine_of
from fewstep.benchmark.pictures import SHOWN, save_strip
from fewstep.benchmark.row import Run, key_of
from fewstep.benchmark.subject import FIRST, Subject
from fewstep.benchmark.sweep import Entry, words_of
from fewstep.core.errors import InvalidInput
from fewstep.measure.converged import Converged, Goal, converge
from fewstep.tuning import Problem

PILOT, SHARE = 8, 0.05
"""On how many images the plan that solves is found, and what share of the judged plan's error its last doubling of
steps may have moved them; of a third order, it is then within an eighth of that."""
FINDING, SOLVING = 216, 96
"""Rows of one image that finding the plan takes, about, and solving with it."""
BLOCK_SECONDS, BLOCK_ROWS = 15.0, 32
"""Rows that together take about so long are drawn in turns, at most so many."""
KEPT_BYTES = 1 << 30
"""Converged pictures up to so many bytes are decoded once."""


class Case(NamedTuple):
    """One row to be measured."""

    entry: Entry
    guidance: float | None
    precision: str
    key: str


class Progress(NamedTuple):
    """What is going on: the stage in words, and how much of the work is done, of how much, in evaluations an image."""

    words: str
    done: float
    of: float


@dataclass(frozen=True)
class Estimate:
    """What the rows that are left will cost: `seconds`, from `evaluation` seconds that one evaluation of one image
    takes, by (guidance, precision).
    """

    rows: int
    kept: int
    images: int
    seconds: float
    evaluation: dict[tuple[float | None, str], float]


@dataclass
class Work:
    """The measuring of the cases of one model into its folder.

    Attributes:
        left: cases without a row yet, in order.
        watch: told what goes on.
    """

    subject: Subject
    folder: Folder
    judge: Judge
    images: int
    cases: Sequence[Case]
    watch: Callable[[Progress], None]
    clock: Callable[[], float] = time.perf_counter
    done: float = 0.0
    _solutions: dict[float | None, Converged] = field(default_factory=dict)
    _pictures: dict[tuple[float | None, int], Tensor] = field(default_factory=dict)
    evaluation: dict[tuple[float | None, str], float] = field(default_factory=dict)

    @property
    def left(self) -> list[Case]:
        return [case for case in self.cases if case.key not in self.folder.rows]

    @property
    def numbers(self) -> range:
        return range(FIRST, FIRST + self.images)

    @property
    def batch(self) -> int:
        assert self.subject.batch is not None
        return min(self.subject.batch, self.images)

    def estimate(self) -> Estimate:
        """Measure one evaluation of each kind that is left, some times, and multiply.

        Raises `InvalidInput` where the device cannot compute in a precision.
        """
        left = self.left
        kinds = dict.fromkeys((case.guidance, case.precision) for case in left)
        for kind in sorted(kinds, key=lambda kind: kind[1] != "float32"):  # first what every device can do
            self.evaluation[kind] = self._evaluation(*kind)
        seconds = sum(self._cost(case) for case in left)
        for scale in dict.fromkeys(case.guidance for case in left if not case.entry.plan.stochastic):
            if not self._solution_file(scale).exists():
                solving = FINDING * min(self.images, PILOT) + SOLVING * self.images
                seconds += solving * self.evaluation.get((scale, "float32"), 0.0)
        return Estimate(len(left), len(self.cases) - len(left), self.images, seconds, dict(self.evaluation))

    def run(self, limit: float | None = None) -> bool:
        """Measure what is left; False where `limit` seconds were over, or would be, before the end."""
        began, first = self.clock(), True
        for block in self._blocks(self.left):
            for case in block:
                if not case.entry.plan.stochastic:
                    self.solution(case.guidance)
            # The first block is measured even where it takes too long, or the same limit would never end.
            if limit is not None and not first and self.clock() - began + sum(map(self._cost, block)) > limit:
                return False
            self._measure(block)
            first = False
        return True

    def solution(self, scale: float | None) -> Converged:
        """The converged images at a scale, from the folder where they are there."""
        if scale not in self._solutions:
            file = self._solution_file(scale)
            if not file.exists():
                self._solve(scale)
            try:
                found = Converged.load(file, file.stem)
            except InvalidInput as error:
                raise InvalidInput(f"{error}. Delete {file}, and it is solved again") from error
            if len(found.solution) != self.images:
                raise InvalidInput(f"{file} holds {len(found.solution)} images: delete it, it is solved again")
            self._solutions[scale] = found
        return self._solutions[scale]

    def _solve(self, scale: float | None) -> None:
        words = "converged solutions" + ("" if scale is None else f" at guidance {scale:g}")
        problem = self.subject.problem(scale)
        total, file = self._total(), self._solution_file(scale)
        found = converge(
            problem.flow,
            self.numbers,
            Goal(SHARE, judged=self.subject.pipe.plan(steps=20)),
            pilots=PILOT,
            batch=self.batch,
            model=file.stem,
            watch=lambda done, of: self.watch(Progress(f"{words}, {done} of {of}", self.done, total)),
        )
        first = self.subject.decode(found.solution[:SHOWN].to(self.subject.device))
        save_strip(self.folder.picture(f"converged-{found.digest}"), first, self.subject.value_range)
        found.save(file)

    def _solution_file(self, scale: float | None) -> Path:
        facts = {
            "model": self.subject.pipe.digest,
            "guidance": scale,
            "conditions": self.subject.conditions_digest,
            "seed": self.subject.seed,
            "images": self.images,
            "batch": self.batch,
            "solved": [PILOT, SHARE],
        }
        return self.folder.converged(key_of(facts))

    def _total(self) -> float:
        return float(sum(case.entry.plan.nfe for case in self.left)) + self.done

    def _evaluation(self, scale: float | None, precision: str) -> float:
        """Seconds of one evaluation of one image."""
        problem = self.subject.problem(scale, precision)
        plan = self.subject.pipe.plan("ddim", steps=1)
        part = problem.parts(self.numbers)[0]
        try:
            found = [draws.draw(problem, plan, part, lambda states: states, self.clock) for _ in range(4)]
        except RuntimeError as error:
            if precision == "float32":
                raise
            raise InvalidInput(
                f"{device_name(self.subject.device)} cannot run {self.subject.pipe.name} in {precision} ({error}): "
                "leave it out"
            ) from error
        return statistics.median(one.seconds for one in found[1:]) / len(part)

    def _cost(self, case: Case) -> float:
        """About how many seconds a case takes."""
        batches = -(-self.images // self.batch)
        images = self.images + max(0, draws.REPEATS - batches) * self.batch
        return case.entry.plan.nfe * images * self.evaluation[case.guidance, case.precision]

    def _blocks(self, left: Sequence[Case]) -> Iterator[list[Case]]:
        """The cases in blocks that are drawn in turns, of one guidance each."""
        block: list[Case] = []
        for case in left:
            full = len(block) == BLOCK_ROWS or sum(map(self._cost, [*block, case])) > BLOCK_SECONDS
            if block and (full or block[0].guidance != case.guidance):
                yield block
                block = []
            block.append(case)
        if block:
            yield block

    def _measure(self, block: Sequence[Case]) -> None:
        """Draw and judge the cases of a block in turns, and write their rows."""
        rows = [_Row(case, self) for case in block]
        parts = rows[0].problem.parts(self.numbers)
        total = self._total()
        for turn in range(max(len(parts), draws.REPEATS)):
            for row in rows:
                words = f"{row.case.entry.plan.recipe.sampler} on {row.case.entry.plan.recipe.grid}"
                self.watch(Progress(f"{words}, {row.case.entry.plan.nfe} evaluations", self.done, total))
                row.draw(parts, turn)
                self.done += row.case.entry.plan.nfe / max(len(parts), draws.REPEATS)
        for row in rows:
            self.folder.rows.append(row.finished())

    def wanted(self, scale: float | None, part: Sequence[int]) -> Tensor:
        """The converged pictures of a batch."""
        key = scale, part[0]
        if key in self._pictures:
            return self._pictures[key]
        states = self.solution(scale).solution[part[0] - FIRST : part[-1] + 1 - FIRST]
        pictures = self.subject.decode(states.to(self.subject.device))
        if pictures.nbytes * -(-self.images // len(part)) <= KEPT_BYTES:
            if any(other != scale for other, _ in self._pictures):
                self._pictures.clear()
            self._pictures[key] = pictures
        return pictures


class _Row:
    """One case on its way to a row."""

    def __init__(self, case: Case, work: Work):
        self.case, self.work = case, work
        self.problem: Problem = work.subject.problem(case.guidance, case.precision)
        solution = None if case.entry.plan.stochastic else work.solution(case.guidance)
        self.tally: Tally = work.judge.tally(solution)
        self.times = draws.Times()
        self.evaluations = 0

    def draw(self, parts: Sequence[Sequence[int]], turn: int) -> None:
        """Draw a batch and judge it; after the last batch, draw the first again and look at the clock alone."""
        work, plan = self.work, self.case.entry.plan
        part = parts[turn % len(parts)]

        def run() -> draws.Drawn:
            return draws.draw(self.problem, plan, part, work.subject.decode, work.clock)

        if turn == 0:
            drawn, peak = draws.draw_with_peak(run, torch.device(self.problem.device))
            self.times.memory = peak or None  # 0: the process had as much at hand
            save_strip(work.folder.picture(self.case.key), drawn.pictures[:SHOWN], work.subject.value_range)
        else:
            drawn = run()
        self.times.add(drawn, work.batch)
        if turn < len(parts):
            wanted = None if self.tally.converged is None else work.wanted(self.case.guidance, part)
            self.tally.add(part, drawn.states, drawn.pictures, wanted)
            self.evaluations += drawn.evaluations

    def finished(self) -> Run:
        """The row."""
        work, case = self.work, self.case
        file = None if case.entry.file is None else work.folder.keep(case.entry.plan)
        return Run(
            key=case.key,
            model=work.subject.model,
            plan_file=file,
            guidance=case.guidance,
            precision=case.precision,
            evaluations=self.evaluations / self.tally.images,
            images=self.tally.images,
            lost=self.tally.lost,
            seed=work.subject.seed,
            conditions=work.subject.conditions_digest,
            figures=self.tally.figures(),
            seconds=self.times.interval(),
            memory=self.times.memory,
            machine=machine_of(work.subject.device),
            **words_of(case.entry),
        )
