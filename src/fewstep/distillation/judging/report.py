"""What a student gained: how far it is from its teacher on noise that no training saw, beside its rivals.

All draw the same pictures, so a student is compared with a rival picture by picture: what counts is the interval of the
ratio of their errors, and that of the difference of their distances.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.judging.judge import Judge, Pictures, by_student, ratio, typical
from fewstep.distillation.judging.realism import Realism, realism_of
from fewstep.distillation.judging.reference import Interval, difference, ends
from fewstep.distillation.judging.rivals import MORE, Rivals, nfe_of, rivals_of
from fewstep.distillation.student import LADDER
from fewstep.distillation.terms.plan import Plans
from fewstep.measure.figure import Figure
from fewstep.training import is_paired

STUDENT, SAMPLER, TEACHER = "student", "without training", "teacher"


class Line(NamedTuple):
    """A row of the report: what drew, in how many rows, at how many evaluations of an image, and how well.

    Attributes:
        kind: the student, a rival without training of its own, or the teacher in all of its steps.
        at: of a rival 1 or 4, how many times the student's evaluations it may take.
        error: of the typical picture; None where the plan draws noise, and of the teacher, which all are measured by.
        distance: None where pictures are lost.
        times: how many times the student's error it is; `farther`: its distance less the student's.
    """

    who: str
    kind: str
    rows: int
    nfe: float
    error: Interval | None = None
    distance: Interval | None = None
    times: Interval | None = None
    farther: Interval | None = None
    at: int = 1


class Cost(NamedTuple):
    """What a student took: pictures of the teacher, the evaluations of each, and seconds, None where not known; and
    `real` pictures in their place.
    """

    pictures: int
    nfe: float
    drawing: float | None
    training: float
    real: int = 0


@dataclass(frozen=True)
class Report:
    """What a student gained.

    Attributes:
        student: in the rows of its own plan; `ladder`: in 1, 2, 4, 8 and its own, as far as its method knows how.
        left_out: why some of these are missing, or "".
        helped: the most rows up to which each number of rows has surely less distance than the one before.
        rivals: at one and at four times the student's evaluations; `compared`: plans that they are the best of.
        floor: the teacher in all of its steps against itself, with other noise.
        measure: the distance, and on what; `images`: held-out pictures, and as many of the teacher's of other noise.
        cost: of training; `step`: of which the weights are, of `steps`.
        untuned: why no plan was tuned, where one was asked for.
        realism: how near it is to the real pictures that it learned from, beside the teacher; None without any.
        offer: how the student's own plan can be tuned, or "".
    """

    student: Line
    ladder: tuple[Line, ...]
    left_out: str
    helped: int
    rivals: tuple[Line, ...]
    compared: int
    floor: Line
    measure: str
    images: int
    cost: Cost
    step: int
    steps: int
    untuned: str = ""
    realism: Realism | None = None
    offer: str = ""

    @property
    def lines(self) -> tuple[Line, ...]:
        """The student in its own rows, then its rivals and the teacher, then the student in other rows."""
        others = tuple(line for line in self.ladder if line.rows != self.student.rows)
        return (self.student, *self.rivals, self.floor, *others)

    @property
    def verdict(self) -> str:
        """In words, held to the strongest rival that the student is not surely better than."""
        equal, more = ([line for line in self.rivals if line.at == at] for at in (1, MORE))
        strong = [line for line in equal if standing(line, self.student) != "better"]
        where = f"in {evaluations(self.student)} of an image"
        if strong:
            rival = strongest(strong)
            how = "Worse" if standing(rival, self.student) == "worse" else "Not surely better"
            return f"{how} {where} than {rival.who} in {rival.nfe:g}: keep that"
        left = [line for line in more if standing(line, self.student) != "better"]
        rival = strongest(equal if left or not more else more)
        gain = f"{gained(rival)} {where} than {rival.who} in {rival.nfe:g}"
        return f"{gain}; not surely better than {strongest(left).who} in {strongest(left).nfe:g}" if left else gain

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is to be said, a sentence each."""
        return tuple(
            filter(
                None, (self.noise, self.to_data, self.more_rows, self.resolution, self.which, self.untuned, self.offer)
            )
        )

    @property
    def to_data(self) -> str:
        """How near it is to real pictures."""
        return "" if self.realism is None else self.realism.words

    @property
    def noise(self) -> str:
        """Of a student that draws noise."""
        if self.student.error is not None:
            return ""
        return (
            "The student or its teacher draws noise between its rows, or it learned to draw alike and not the same "
            "picture of the same noise: an error says nothing of that, and the distance alone judges"
        )

    @property
    def more_rows(self) -> str:
        """Where more rows stop helping."""
        if len(self.ladder) < 2:
            return f"Other numbers of rows are not measured: {self.left_out}" if self.left_out else ""
        most = self.ladder[-1].rows
        if self.helped == most:
            return f"More rows help up to {most}, the most that were measured"
        return f"More rows help up to {self.helped}: the next are not surely nearer to the teacher"

    @property
    def resolution(self) -> str:
        """How many pictures the distance rests on, and what it is at best."""
        assert self.floor.distance is not None
        return (
            f"The distance ({self.measure}) is that of {self.images} pictures to {self.images} of the teacher; that of "
            f"the teacher itself is {self.floor.distance.value:.4g}"
        )

    @property
    def which(self) -> str:
        """Of which step the weights are, where that is not the last."""
        return f"The student is the best that was seen, of step {self.step} of {self.steps}" * (self.step != self.steps)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; a number that is not finite is null."""
        own = {
            "verdict": self.verdict,
            "notes": self.notes,
            "lines": self.lines,
            "left_out": self.left_out,
            "helped": self.helped,
            "compared": self.compared,
            "measure": self.measure,
            "images": self.images,
            "cost": self.cost,
            "step": self.step,
            "steps": self.steps,
            "realism": self.realism,
        }
        return {name: plain(value) for name, value in own.items()}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()  # type: ignore[union-attr]  # a named one
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def evaluations(line: Line) -> str:
    """How many, in words."""
    return f"{line.nfe:g} evaluation{'s' * (line.nfe != 1)}"


def standing(rival: Line, student: Line) -> str:
    """Whether a student is surely "better" than a rival, surely "worse" or neither.

    By the error, where its plan draws no noise; then it is not better where its distance is surely more. Else by the
    distance.
    """
    if rival.distance is None or student.distance is None:  # of pictures that are lost
        return "better" if student.distance is not None else "worse"
    assert rival.farther is not None
    if rival.times is None:
        return "better" if rival.farther.low > 0 else "worse" if rival.farther.high < 0 else "neither"
    if rival.times.low > 1:
        return "better" if rival.farther.high >= 0 else "neither"
    return "worse" if rival.times.high < 1 else "neither"


def strongest(rivals: Sequence[Line]) -> Line:
    """The one that is nearest to the teacher, by what the student is judged by."""

    def far(line: Line) -> float:
        by = line.times or line.farther
        return math.inf if by is None else by.value

    return min(rivals, key=far)


def gained(rival: Line) -> str:
    """How much better than a rival a student is."""
    if rival.times is not None:
        return f"{rival.times.value:.1f} times less error"
    return "Less distance" if rival.farther is None else f"{rival.farther.value:.3g} less distance"


def report_of(
    network: Network,
    method: Plans,
    judge: Judge,
    cost: Cost,
    step: int,
    steps: int,
    tune: float = 0.0,
) -> Report:
    """The report of a student: a network that is drawn with as its method says.

    Args:
        step: of which its weights are, of `steps`; `tune`: seconds to tune a rival in, or 0.
    """
    plan = method.plan(network)
    paired = is_paired(method)
    seen = {len(plan.rows): judged_plan(network, plan, judge, paired)}
    left_out = ""
    for rows in LADDER:
        if rows in seen:
            continue
        try:
            other = method.plan(network, rows)
        except InvalidInput as error:
            left_out = left_out or str(error)
            continue
        seen[rows] = judged_plan(network, other, judge, paired)
    own, teacher = seen[len(plan.rows)], judge.look(judge.held_out.states)
    found = rivals_of(judge, len(plan.rows), not own.paired, tune)
    ladder = tuple(student_line(rows, seen[rows], own) for rows in sorted(seen))
    student = next(line for line in ladder if line.rows == len(plan.rows))
    return Report(
        student=student,
        ladder=ladder,
        left_out=left_out,
        helped=helped([(rows, seen[rows].distance) for rows in sorted(seen)]),
        rivals=rival_lines(found, own, judge),
        compared=found.compared,
        floor=floor_of(judge, teacher, own),
        measure=judge.measure,
        images=judge.held_out.count,
        cost=cost,
        step=step,
        steps=steps,
        untuned=found.untuned,
        realism=realism_of(judge, own.pictures, teacher),
    )


class Judged(NamedTuple):
    """What a plan of a student drew, how far that is from the teacher's, and whether picture by picture too."""

    pictures: Pictures
    distance: Figure | None
    paired: bool


def judged_plan(network: Network, plan: Plan, judge: Judge, paired: bool) -> Judged:
    """What a student draws by a plan; `paired` is whether its method makes the teacher's picture of the same noise."""
    pictures = judge.look(by_student(network, plan, judge.held_out))
    return Judged(pictures, judge.distance(pictures), paired and judge.pairs(plan))


def student_line(rows: int, found: Judged, own: Judged) -> Line:
    """Of a student in some rows; ratio and difference are to what it draws in its own."""
    error = typical(found.pictures.errors) if found.paired else None
    times = ratio(found.pictures.errors, own.pictures.errors) if found.paired and own.paired else None
    who = f"the student in {rows} row{'s' * (rows != 1)}" if found is not own else "the student"
    farther = difference(found.distance, own.distance)
    return Line(who, STUDENT, rows, float(rows), error, ends(found.distance), times, farther)


def rival_lines(found: Rivals, own: Judged, judge: Judge) -> tuple[Line, ...]:
    """Of the rivals, those at the fewest evaluations first."""
    return tuple(
        Line(
            who=one.who,
            kind=SAMPLER,
            rows=len(one.plan.rows),
            nfe=nfe_of(one.plan, judge.held_out),
            error=typical(one.pictures.errors) if judge.pairs(one.plan) else None,
            distance=ends(one.distance),
            times=ratio(one.pictures.errors, own.pictures.errors) if own.paired and judge.pairs(one.plan) else None,
            farther=difference(one.distance, own.distance),
            at=one.at,
        )
        for one in found.each
    )


def floor_of(judge: Judge, teacher: Pictures, own: Judged) -> Line:
    """The teacher in all of its steps, against its pictures of other noise."""
    plan = judge.held_out.teacher.order.plan
    distance = judge.distance(teacher)
    nfe = nfe_of(plan, judge.held_out)
    farther = difference(distance, own.distance)
    return Line("the teacher", TEACHER, len(plan.rows), nfe, None, ends(distance), None, farther)


def helped(ladder: Sequence[tuple[int, Figure | None]]) -> int:
    """The most rows up to which each line has surely less distance than the one before."""
    most, before = ladder[0]
    for rows, figure in ladder[1:]:
        found = difference(figure, before)
        if found is None or found.high >= 0:
            break
        most, before = rows, figure
    return most
