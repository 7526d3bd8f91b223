"""What plans of a student are worth: their pictures of some noise, beside the teacher's.

By an error, where the student is to make the teacher's picture of the same noise, or by the distance of all pictures to
the teacher's of other noise (`fewstep.distillation.judging.judge`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.judging.health import WIDTHS
from fewstep.distillation.judging.judge import FEW, Draw, Judge, Pictures, by_student
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.pictures.teacher import Conditions, Teacher, solved
from fewstep.measure.distance import OBJECTIVES, overall, squares
from fewstep.measure.features import Features
from fewstep.tuning.renoised import drawn_alike

DISTANCE = "distance"
OBJECTIVES_OF_STUDENTS = (*OBJECTIVES, DISTANCE)
"""What plans of a student are judged by."""
FIRST, EACH = 2**33, 2**28
"""The numbers of the pictures begin here, far from those of any training, and those of each part are so many apart."""
TRAIN, VALIDATION, HELD_OUT, REFERENCE, BESIDE = range(5)
"""Pictures to search by, to choose by and to report on; those that distances are measured to, of the first two and of
what is held out.
"""


def numbers_of(part: int, count: int, seed: int) -> range:
    """The numbers of the pictures of a part: no picture is in two of them, whatever the seeds."""
    first = FIRST + (8 * seed + part) * EACH
    return range(first, first + count)


def pictures_of(
    teacher: Teacher, numbers: range, batch: int, watch: Callable[[int, int], None] = lambda done, of: None
) -> Pairs:
    """What a teacher makes of the noise of some numbers. Raises `InvalidInput` where a picture is not finite."""
    conditions, found = Conditions(teacher), []
    for begin in range(0, len(numbers), batch):
        watch(begin, len(numbers))
        found.append(solved(teacher, conditions, numbers[begin : begin + batch]))
    states = torch.cat(found)
    if not bool(states.isfinite().all()):
        raise InvalidInput("some pictures of the teacher are not finite: use a lower guidance scale")
    return Pairs(teacher, conditions, (states,), numbers.start)


def noise_alone(teacher: Teacher, numbers: range) -> Pairs:
    """The noise of some numbers, whose pictures by the teacher nobody asks for; they are noughts."""
    order = teacher.order.drawing
    shape = teacher.pipe.model.state_shape(order.height, order.width)
    return Pairs(teacher, Conditions(teacher), (torch.zeros(1, *shape).expand(len(numbers), *shape),), numbers.start)


@dataclass(eq=False)
class Trials:
    """Plans of a student on the noise of one part.

    Attributes:
        pairs: the noise, and the teacher's pictures of it; `reference`: its pictures of other noise, None where
            nothing is said of distances.
        objective: one of `OBJECTIVES_OF_STUDENTS`.
        batch: pictures that are drawn at once.
    """

    network: Network
    pairs: Pairs
    reference: Pairs | None
    features: Features
    objective: str
    batch: int
    judges: dict[int, Judge] = field(default_factory=dict, init=False)

    def draw(self, plan: Plan) -> Draw:
        """Draws pictures by their places."""
        return by_student(self.network, plan, self.pairs)

    def score(self, plan: Plan, count: int) -> float:
        """What a plan is worth on the first so many pictures, with the noise that other plans of its rows draw."""
        return self.value(drawn_alike(plan), count)

    def value(self, plan: Plan, count: int | None = None) -> float:
        """What a plan is worth as it is, on the first so many pictures or all: its distance or error."""
        count, draw = self.pairs.count if count is None else count, self.draw(plan)
        if self.objective == DISTANCE:
            judge = self.judge(count)
            figure = judge.distance(judge.look(draw), FEW)
            return math.inf if figure is None else figure.value
        parts = [range(i, min(i + self.batch, count)) for i in range(0, count, self.batch)]
        return overall(torch.cat([self.errors(draw, part) for part in parts]), self.objective)

    def errors(self, draw: Draw, part: Sequence[int]) -> Tensor:
        """Mean squared errors of some pictures."""
        return squares(draw(part), self.pairs.states(part))

    def look(self, plan: Plan) -> Pictures:
        """All pictures of a plan as it is."""
        return self.judge().look(self.draw(plan))

    def judge(self, count: int | None = None) -> Judge:
        """What the first so many pictures are judged by, or all."""
        count = self.pairs.count if count is None else count
        if count not in self.judges:
            assert self.reference is not None
            pairs = replace(self.pairs, parts=(self.pairs.parts[0][:count],))
            self.judges[count] = Judge(pairs, self.reference, self.features, self.batch, WIDTHS)
        return self.judges[count]
