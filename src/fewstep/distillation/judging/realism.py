"""How near a student is to the real pictures that it learned from, beside its teacher: it may be nearer."""

from __future__ import annotations

from typing import NamedTuple

from fewstep.distillation.judging.judge import Judge, Pictures
from fewstep.distillation.judging.reference import Interval, difference, ends


class Realism(NamedTuple):
    """Distances to real pictures.

    Attributes:
        student, teacher: of what each draws of the same noise; None where pictures are lost.
        farther: the teacher's less the student's.
        measure: the distance, and on what; `images`: real pictures that it is measured to.
    """

    student: Interval | None
    teacher: Interval | None
    farther: Interval | None
    measure: str
    images: int

    @property
    def words(self) -> str:
        """In a sentence."""
        if self.student is None or self.teacher is None or self.farther is None:
            return "The distance to real pictures is not known, as pictures are lost"
        nearer = "the student is nearer" if self.farther.low > 0 else "the teacher is nearer"
        who = nearer if self.farther.low > 0 or self.farther.high < 0 else "neither is surely nearer"
        return (
            f"To {self.images} real pictures the student has a {self.measure} of {self.student.value:.4g} "
            f"({self.student}), the teacher one of {self.teacher.value:.4g} ({self.teacher}): {who}"
        )


def realism_of(judge: Judge, student: Pictures, teacher: Pictures) -> Realism | None:
    """By what both drew of held-out noise; None where there are no real pictures."""
    if judge.data is None:
        return None
    own, theirs = judge.distance_to_data(student), judge.distance_to_data(teacher)
    return Realism(ends(own), ends(theirs), difference(theirs, own), judge.data.measure, judge.data.pictures.n)
