"""Progressive distillation seen: each round a student takes half of the steps to where its teacher ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fewstep.core.schedule import Float
from fewstep.denoise.convert import Network
from fewstep.distillation import Progressive
from fewstep.show.students import Setting, distance, drawn, roles_of, walked

BEGIN = 8
"""Steps of the first teacher."""


class Round(NamedTuple):
    """A student, or the first teacher.

    Attributes:
        points: (steps + 1, n, 2) states at the ends of its steps.
        error: distance of its ends from the first teacher's, root mean square.
        untrained: that of the exact score in as many steps.
    """

    steps: int
    points: Float
    error: float
    untrained: float


class Halving(NamedTuple):
    """The first teacher and the student of each round, and their networks by the steps that they take."""

    rounds: Sequence[Round]
    networks: dict[int, Network]

    @property
    def finding(self) -> str:
        """What the numbers say."""
        first, last = self.rounds[0], self.rounds[-1]
        return (
            f"in {last.steps} step a progressive student ends {last.error:.2g} from its teacher's {first.steps}, the "
            f"teacher {last.untrained:.2g}"
        )

    def document(self) -> list[dict[str, Any]]:
        """All numbers as JSON-serialisable data."""
        return [
            {"steps": r.steps, "error": r.error, "untrained": r.untrained, "points": r.points.tolist()}
            for r in self.rounds
        ]


def halving(setting: Setting, beginning: Network, steps: Sequence[int], noise: Tensor, shown: int) -> Halving:
    """Rounds from 8 steps to 1, of so many training steps each; measured from noise (n, 2), the first of it shown."""
    exact, student = setting.teacher, beginning
    teacher, ends = exact, drawn(exact, noise, BEGIN)
    rounds, networks = [Round(BEGIN, walked(exact, noise[:shown], BEGIN), 0.0, 0.0)], {}
    for turn, count in enumerate(steps):
        fine, few = BEGIN >> turn, BEGIN >> (turn + 1)
        student = setting.trained(Progressive(begin=fine, end=few), roles_of(student, teacher), count, 3e-3)
        error, untrained = (distance(drawn(network, noise, few), ends) for network in (student, exact))
        rounds.append(Round(few, walked(student, noise[:shown], few), error, untrained))
        teacher = networks[few] = student
    return Halving(rounds, networks)
