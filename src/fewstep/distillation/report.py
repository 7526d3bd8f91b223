"""What a student gained: its error on noise that no training saw, beside that of the teacher's network untrained.

The error of a picture is its distance to what the teacher makes of the same noise in all of its steps, and that of a
plan is the typical one (see `fewstep.measure.distance`). Beside the student stand the strongest samplers on the
teacher's own network at one and at four times the student's evaluations, the best of each on these pictures. All draw
the same pictures, so the student is compared with a rival picture by picture: what counts is the interval of the ratio
of their errors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.denoise.guided import Guided
from fewstep.denoise.scale import moments_of
from fewstep.distillation.pairs import Pairs, solved
from fewstep.measure.distance import over_images, overall, squares
from fewstep.pipeline.stages import denoiser_of
from fewstep.tuning.rivals import contenders_of

MORE = 4
"""Times the student's evaluations, at which the stronger rival draws."""
REPLICATES = 500
SOME = 64


class Line(NamedTuple):
    """A row of the report: what drew, the network evaluations of an image, and the error with its 95% interval.

    `times` is how many times the student's error it is, of the typical picture, with the 95% interval from `times_low`
    to `times_high`.
    """

    who: str
    nfe: float
    error: float
    low: float
    high: float
    times: float = 1.0
    times_low: float = 1.0
    times_high: float = 1.0


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
        better = list(takewhile(lambda rival: rival.times_low > 1, rivals))
        if not better:
            first = rivals[0]
            how = "Worse" if first.times_high < 1 else "Not surely better"
            return f"{how} in {evaluations(student)} of an image than {first.who} in {first.nfe:g}: keep that"
        best = better[-1]
        gain = (
            f"{best.times:.1f} times less error in {evaluations(student)} of an image than {best.who} in {best.nfe:g}"
        )
        left = rivals[len(better) :]
        return f"{gain}; not surely less than {left[0].who} in {left[0].nfe:g}" if left else gain

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; a number that is not finite is null."""
        lines = [{name: plain(value) for name, value in line._asdict().items()} for line in self.lines]
        return {**asdict(self), "lines": lines, "verdict": self.verdict}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluations(line: Line) -> str:
    """How many, in words."""
    return f"{line.nfe:g} evaluation{'s' * (line.nfe != 1)}"


def report_of(
    student: Callable[[Sequence[int]], Tensor], plan: Plan, held_out: Pairs, seconds: float, batch: int = 64
) -> Report:
    """The report of a student, which draws held-out pairs by their numbers from 0 by its `plan`.

    A rival has at least one row, and fewer than the teacher's own plan, which is what all are measured by.
    """
    teacher, numbers = held_out.teacher, range(held_out.count)
    drawing = teacher.order.drawing
    schedule = teacher.pipe.model.schedule_at(drawing.height, drawing.width)
    guided = 2.0 if teacher.guidance != 1.0 and held_out.conditions.guided else 1.0
    rows = len(plan.rows)
    own = errors_of(student, held_out, batch)
    lines, compared = [line_of("the student", float(rows), own, own)], 0
    for times in (1, MORE):
        most = max(1, min(int(rows * times / guided), len(teacher.order.plan.rows) - 1))

        def draw(rival: Plan) -> Callable[[Sequence[int]], Tensor]:
            return lambda part: solved(teacher, held_out.conditions, [held_out.first + i for i in part], rival)

        rivals = contenders_of(schedule, most)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of guidance between levels that the few rows do not meet
            found = [(errors_of(draw(rival), held_out, batch), rival) for rival in rivals]
        errors, best = min(found, key=lambda one: overall(one[0], "psnr"))
        lines.append(line_of(f"{best.recipe.sampler} on {best.recipe.grid}", nfe_of(best, held_out), errors, own))
        compared += len(rivals)
    return Report(tuple(lines), compared, len(numbers), seconds)


def nfe_of(plan: Plan, held_out: Pairs) -> float:
    """Network evaluations of an image by a plan of the teacher's network, the mean over some pictures."""
    teacher, numbers = held_out.teacher, range(min(held_out.count, SOME))
    conditions = held_out.conditions.of([held_out.first + number for number in numbers])
    denoiser = denoiser_of(teacher.pipe.model, teacher.order.drawing.guidance, conditions, plan)
    if not isinstance(denoiser, Guided):
        return float(len(plan.rows))
    moments = moments_of(plan.rows, range(len(plan.rows)))
    return sum(len(denoiser.need(i, moment).branches) for i in numbers for moment in moments) / len(numbers)


def errors_of(draw: Callable[[Sequence[int]], Tensor], held_out: Pairs, batch: int) -> Tensor:
    """(n,) mean squared errors of what draws held-out pairs by their numbers."""
    parts = [range(i, min(i + batch, held_out.count)) for i in range(0, held_out.count, batch)]
    return torch.cat([squares(draw(part), held_out.states(part)) for part in parts])


def line_of(who: str, nfe: float, errors: Tensor, student: Tensor) -> Line:
    """With the intervals of a bootstrap over the pictures, which are the same for all."""
    draw = np.random.Generator(np.random.Philox(key=[0, len(errors)]))
    places = torch.from_numpy(draw.integers(len(errors), size=(REPLICATES, len(errors))))
    values = over_images(errors[places], "psnr")
    ratios = values / over_images(student[places], "psnr")
    ends = [*between(values), *between(ratios)]
    error = overall(errors, "psnr")
    return Line(who, nfe, error, ends[0], ends[1], error / overall(student, "psnr"), ends[2], ends[3])


def between(values: Tensor) -> tuple[float, float]:
    """The ends of 95% of some values (R,), which may be infinite, so that none is interpolated."""
    cut = round(0.025 * (len(values) - 1))
    ordered = values.sort().values
    return float(ordered[cut]), float(ordered[-1 - cut])
