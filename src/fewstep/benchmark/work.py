"""The cases of a sweep, measured one after the other: what is done is kept whatever happens.

Plans that take little are drawn in turns, a batch of each, so that a machine which is busy for a moment slows all of
them and not one. A measurement is written when its last batch is judged.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.benchmark import batches
from fewstep.benchmark.folder import Folder
from fewstep.benchmark.judge import Judge, Tally
from fewstep.benchmark.measured import Measured, PlanFacts, key_of, unmeasured
from fewstep.benchmark.settings import SILENT, Forecast, Reporter, Stage
from fewstep.benchmark.strips import SHOWN, save_strip
from fewstep.benchmark.subject import FIRST, Subject
from fewstep.benchmark.sweep import Candidate
from fewstep.core.errors import InvalidInput
from fewstep.measure.converged import Converged, Goal, converge
from fewstep.tuning import Problem

BLOCK_SECONDS, BLOCK_CASES = 5.0, 32
"""Cases that together take about so long are drawn in turns, at most so many."""
PILOT, SHARE = 8, 0.05
"""On how many images the plan that solves is found, and what share of the judged plan's error its last doubling of
steps may have moved them; of a third order, it is then within an eighth of that."""
FINDING, SOLVING = 520, 144
"""Rows of one image that finding the plan takes, about, and solving with it."""
KEPT_BYTES = 1 << 30
"""Converged pictures up to so many bytes are decoded once."""


class Case(NamedTuple):
    """One plan to be measured, at a guidance scale and in a precision."""

    candidate: Candidate
    guidance: float | None
    precision: str
    key: str

    @property
    def rows(self) -> int:
        """Of its plan."""
        return len(self.candidate.plan.rows)

    @property
    def is_judged(self) -> bool:
        """Whether it has a converged solution to be near to: whether its plan draws no noise on the way."""
        return not self.candidate.plan.stochastic


@dataclass
class Work:
    """The measuring of the cases of one model into its folder.

    Attributes:
        left: cases that are not measured yet, in order.
        done: rows of plans that were drawn, and of converged solutions.
        row: seconds that one row takes for one image, by (guidance, precision).
    """

    subject: Subject
    folder: Folder
    judge: Judge
    cases: Sequence[Case]
    reporter: Reporter = SILENT
    done: float = field(default=0.0, init=False)
    row: dict[tuple[float | None, str], float] = field(default_factory=dict, init=False)
    _solutions: dict[float | None, Converged] = field(default_factory=dict, init=False)
    _pictures: dict[tuple[float | None, int], Tensor] = field(default_factory=dict, init=False)

    @property
    def left(self) -> list[Case]:
        return [case for case in self.cases if case.key not in self.folder.results]

    def forecast(self) -> Forecast:
        """Measure one row of each kind that is left, some times, and multiply.

        Raises `InvalidInput` where the device cannot compute in a precision.
        """
        left, count = self.left, self.subject.count
        kinds = dict.fromkeys((case.guidance, case.precision) for case in left)
        for kind in sorted(kinds, key=lambda kind: kind[1] != "float32"):  # first what every device can do
            self.row[kind] = self._row(*kind)
        seconds = sum(self._cost(case) for case in left)
        for scale in self._unsolved():
            seconds += self._solving_rows * count * self.row.get((scale, "float32"), 0.0)
        return Forecast(len(left), len(self.cases) - len(left), count, seconds, dict(self.row))

    def run(self, limit: float | None = None) -> bool:
        """Measure what is left; False where `limit` seconds were over, or would be, before the end."""
        began, first, left = time.perf_counter(), True, self.left
        while left:
            if left[0].is_judged:
                self.solution(left[0].guidance)
            rest = math.inf if limit is None else limit - (time.perf_counter() - began)
            # The first case is measured even where it takes too long, or the same limit would never end.
            if not first and self._cost(left[0]) > rest:
                return False
            block = self._block(left, min(BLOCK_SECONDS, rest))
            if any(case.is_judged for case in block):
                self.solution(block[0].guidance)
            self._measure(block)
            first = False
            left = left[len(block) :]
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
            if len(found.solution) != self.subject.count:
                raise InvalidInput(f"{file} holds {len(found.solution)} images: delete it, it is solved again")
            self._solutions[scale] = found
        return self._solutions[scale]

    def _solve(self, scale: float | None) -> None:
        subject, total, before = self.subject, self._total(), self.done
        words = "converged solutions" + ("" if scale is None else f" at guidance {scale:g}")

        def watch(done: int, of: int) -> None:
            # Finding the plan comes first, and takes as long as many batches.
            share = 0.0 if not done else self._finding + (1 - self._finding) * (done - 1) / max(1, of - 1)
            self.done = before + share * self._solving_rows
            self.reporter.watch(Stage(f"{words}, {done} of {of}", self.done, total))

        file = self._solution_file(scale)
        found = converge(
            subject.problem(scale).flow,
            subject.numbers,
            Goal(SHARE, judged=subject.plan(20)),
            pilots=self._pilots,
            batch=subject.batch,
            model=file.stem,
            watch=watch,
        )
        first = subject.decode(found.solution[:SHOWN].to(subject.device))
        save_strip(self.folder.picture(f"converged-{found.digest}"), first, subject.value_range)
        found.save(file)
        self.done = before + self._solving_rows

    @property
    def _pilots(self) -> int:
        """Images on which the plan that solves is found."""
        return max(2, min(PILOT, self.subject.count // 4))

    @property
    def _solving_rows(self) -> float:
        """Rows of each image that a converged solution takes, about, finding it included."""
        return FINDING * self._pilots / self.subject.count + SOLVING

    @property
    def _finding(self) -> float:
        """The share of it that finding takes."""
        return 1 - SOLVING / self._solving_rows

    def _unsolved(self) -> list[float | None]:
        """The scales whose converged solutions are wanted and not there."""
        scales = dict.fromkeys(case.guidance for case in self.left if case.is_judged)
        return [scale for scale in scales if not self._solution_file(scale).exists()]

    def _solution_file(self, scale: float | None) -> Path:
        solved = [self._pilots, SHARE]
        return self.folder.converged(key_of({**self.subject.facts, "guidance": scale, "solved": solved}))

    def _total(self) -> float:
        solving = self._solving_rows * len(self._unsolved())
        return float(sum(case.rows for case in self.left)) + solving + self.done

    def _row(self, scale: float | None, precision: str) -> float:
        """Seconds of one row for one image."""
        problem = self.subject.problem(scale, precision)
        plan = self.subject.plan(1, "ddim")
        part = problem.parts(self.subject.numbers)[0]
        try:
            found = [batches.draw(problem, plan, part, lambda states: states) for _ in range(4)]
        except RuntimeError as error:
            if precision == "float32":
                raise
            raise InvalidInput(
                f"{self.subject.here.device} cannot run {self.subject.model.name} in {precision} ({error}): "
                "leave it out"
            ) from error
        return statistics.median(one.seconds for one in found[1:]) / len(part)

    def _cost(self, case: Case) -> float:
        """About how many seconds a case takes."""
        full = -(-self.subject.count // self.subject.batch)
        images = self.subject.count + max(0, batches.REPEATS - full) * self.subject.batch
        return case.rows * images * self.row[case.guidance, case.precision]

    def _block(self, left: Sequence[Case], most: float) -> list[Case]:
        """The first cases of one guidance that take at most so many seconds together; one at least."""
        block, seconds = [left[0]], self._cost(left[0])
        for case in left[1:BLOCK_CASES]:
            seconds += self._cost(case)
            if seconds > most or case.guidance != left[0].guidance:
                break
            block.append(case)
        return block

    def _measure(self, block: Sequence[Case]) -> None:
        """Draw and judge the cases of a block in turns, and write what was measured."""
        measurements = [_Measurement(case, self) for case in block]
        parts = measurements[0].problem.parts(self.subject.numbers)
        total, turns = self._total(), max(len(parts), batches.REPEATS)
        for turn in range(turns):
            for one in measurements:
                recipe = one.case.candidate.plan.recipe
                words = f"{recipe.sampler} on {recipe.grid}, {one.case.rows} rows"
                self.reporter.watch(Stage(words, self.done, total))
                one.draw(parts, turn)
                self.done += one.case.rows / turns
                if turn == turns - 1:
                    self.folder.results.append(one.finished())

    def wanted(self, scale: float | None, part: Sequence[int]) -> Tensor:
        """The converged pictures of a batch."""
        key = scale, part[0]
        if key in self._pictures:
            return self._pictures[key]
        states = self.solution(scale).solution[part[0] - FIRST : part[-1] + 1 - FIRST]
        pictures = self.subject.decode(states.to(self.subject.device))
        if pictures.nbytes * -(-self.subject.count // len(part)) <= KEPT_BYTES:
            if any(other != scale for other, _ in self._pictures):
                self._pictures.clear()
            self._pictures[key] = pictures
        return pictures


class _Measurement:
    """One case while it is measured."""

    def __init__(self, case: Case, work: Work):
        self.case, self.work = case, work
        self.problem: Problem = work.subject.problem(case.guidance, case.precision)
        solution = work.solution(case.guidance) if case.is_judged else None
        self.tally: Tally = work.judge.tally(solution)
        self.seconds: list[float] = []
        self.memory: int | None = None
        self.evaluations = 0

    def draw(self, parts: Sequence[Sequence[int]], turn: int) -> None:
        """Draw a batch and judge it; after the last batch, draw the first again and look at the clock alone."""
        work, plan = self.work, self.case.candidate.plan
        part = parts[turn % len(parts)]

        def run() -> batches.Drawn:
            return batches.draw(self.problem, plan, part, work.subject.decode)

        if turn == 0:
            drawn, peak = batches.draw_with_peak(run, torch.device(self.problem.device))
            self.memory = peak or None  # 0: the process had as much at hand
            save_strip(work.folder.picture(self.case.key), drawn.pictures[:SHOWN], work.subject.value_range)
        else:
            drawn = run()
        if len(part) == work.subject.batch:  # one that is not full takes longer for an image
            self.seconds.append(drawn.seconds / len(part))
        if turn < len(parts):
            wanted = None if self.tally.converged is None else work.wanted(self.case.guidance, part)
            self.tally.add(part, drawn.states, drawn.pictures, wanted)
            self.evaluations += drawn.evaluations

    def finished(self) -> Measured:
        """What was measured."""
        case, tally, subject = self.case, self.tally, self.work.subject
        plan = case.candidate.plan
        file = None if case.candidate.file is None else self.work.folder.keep(plan)
        return replace(
            unmeasured(subject.model, PlanFacts.of(plan, file), case.guidance, 1),
            key=case.key,
            by="bench",
            nfe=self.evaluations / tally.images,
            precision=case.precision,
            images=tally.images,
            lost=tally.lost,
            seed=subject.pictures.seed,
            conditions=subject.conditions_digest,
            figures=tally.figures(),
            seconds=batches.seconds_of(self.seconds),
            memory=self.memory,
            machine=subject.here,
        )
