"""What a student draws while it learns: held-out pairs, so that their noise is always the same."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.distillation.judging.judge import by_student
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.pipeline.stages import decode
from fewstep.training import STUDENT, Roles
from fewstep.training.sheets import MOST


def by_pairs(held_out: Pairs, plan: Callable[[Roles], Plan]) -> Callable[[Roles], Tensor]:
    """Draws (n, c, h, w) on the host, pictures of the first pairs, by the student of the roles and its plan."""
    teacher = held_out.teacher
    model = teacher.pipe.model

    def pictures(roles: Roles) -> Tensor:
        draw = by_student(roles[STUDENT].at(teacher.guidance), plan(roles), held_out)
        states = draw(range(min(MOST, held_out.count)))
        return decode(model, states.to(model.device), teacher.order.drawing)

    return pictures
