"""What a student gained: its error on noise that no training saw, beside that of the teacher's network untrained.

The error of a picture is its distance to what the teacher makes of the same noise in all of its steps, and that of a
plan is the typical one (see `fewstep.measure.distance`). Beside the student stand the strongest samplers on the
teacher's own network at one and at four times the student's evaluations, the best of each on these pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.distillation.pairs import Pairs, solved
from fewstep.measure.distance import over_images, overall, squares
from fewstep.tuning.rivals import contenders_of

MORE = 4
"""Times the student's evaluations, at which the stronger rival draws."""
REPLICATES = 500


class Line(NamedTuple):
    """A row of the report: what drew, the network evaluations of an image, and the error with its 95% interval."""

    who: str
    nfe: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """What a student gained.

    Attributes:
        lines: the student first, then the best rival at one and at four times its evaluations.
        compared: plans that the best rivals are the best of; `images`: held-out pictures.
        seconds: of training, without the pairs.
    """

    lines: tuple[Line, ...]
    compared: int
    images: int
    seconds: float

    @property
    def verdict(self) -> str:
        """In words."""
        student, *rivals = self.lines
        better = [rival for rival in rivals if student.high < rival.low]
        if not better:
            return f"Not better than {rivals[0].who} at the same evaluations: keep that"
        best = better[-1]
        ratio = best.error / student.error
        return (
            f"{ratio:.1f} times less error in {student.nfe:g} evaluation{'s' * (student.nfe != 1)} of an image than "
            f"{best.who} in {best.nfe:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "lines": [line._asdict() for line in self.lines], "verdict": self.verdict}


def report_of(
    student: Callable[[Sequence[int]], Tensor], plan: Plan, held_out: Pairs, seconds: float, batch: int = 64
) -> Report:
    """The report of a student, which draws held-out pairs by their numbers from 0 by its `plan`."""
    numbers = range(held_out.count)
    teacher = held_out.teacher
    guided = 1.0 if teacher.guidance == 1.0 else 2.0
    rows = len(plan.rows)
    lines = [_line("the student", float(rows), squares(_drawn(student, numbers, batch), held_out.states))]
    compared = 0
    for times in (1, MORE):
        nfe = rows * times
        most = max(1, int(nfe / guided))

        def draw(rival: Plan) -> Callable[[Sequence[int]], Tensor]:
            own = [held_out.first + number for number in numbers]
            return lambda part: solved(teacher, held_out.conditions, [own[i] for i in part], rival)

        found: list[tuple[float, Plan, Tensor]] = []
        for rival in contenders_of(teacher.pipe.model.schedule, most):
            errors = squares(_drawn(draw(rival), numbers, batch), held_out.states)
            found.append((overall(errors, "psnr"), rival, errors))
        compared += len(found)
        _, best, errors = min(found, key=lambda one: one[0])
        who = f"{best.recipe.sampler} on {best.recipe.grid}"
        lines.append(_line(who, len(best.rows) * guided, errors))
    return Report(tuple(lines), compared, held_out.count, seconds)


def _drawn(draw: Callable[[Sequence[int]], Tensor], numbers: range, batch: int) -> Tensor:
    return torch.cat([draw(numbers[i : i + batch]) for i in range(0, len(numbers), batch)])


def _line(who: str, nfe: float, errors: Tensor) -> Line:
    """With the interval of a bootstrap over the pictures."""
    draw = np.random.Generator(np.random.Philox(key=[0, len(errors)]))
    places = torch.from_numpy(draw.integers(len(errors), size=(REPLICATES, len(errors))))
    low, high = np.quantile(over_images(errors[places], "psnr").numpy(), [0.025, 0.975])
    return Line(who, nfe, overall(errors, "psnr"), float(low), float(high))
