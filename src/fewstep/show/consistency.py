"""Figure 7: a consistency function, which maps every point of a path from noise to data to the path's end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Float
from fewstep.denoise.convert import Network
from fewstep.distillation import Consistency
from fewstep.distillation.terms.span import NOISIEST
from fewstep.recipes.threads import limited
from fewstep.show.mixture import Mixture
from fewstep.show.students import MEASURED, SCHEDULE, Setting, copied, exact_of, noise_of, roles_of, states_at
from fewstep.training import STUDENT, Roles, Seen
from fewstep.training.draws import key_of
from fewstep.training.levels import at_times

METHOD = Consistency(step="heun", first=8, stages=3, least=0.05, mean=0.0, deviation=2.0, huber=0.0)
LEVELS = 17
"""Times of a path at which its end is asked for, from the noisiest that is trained to the least."""
TEACHER = "the teacher's estimate"
MOST_STEPS = 100_000


class Answers(NamedTuple):
    """Where points of paths are mapped to.

    Attributes:
        steps: of training; None for the teacher, which only estimates the data.
        points: (LEVELS, n, 2) for the first paths.
        errors: (LEVELS,) distances from the ends of their paths, root mean square.
    """

    name: str
    steps: int | None
    points: Float
    errors: Float


class Paths(NamedTuple):
    """Exact states (times, n, 2) at times of the flow schedule, and the data (n, 2) that they end in."""

    times: Float
    states: Tensor
    ends: Tensor


class ConsistencyMap(NamedTuple):
    """Exact paths and what their points are mapped to.

    Attributes:
        times: (LEVELS,) of the flow schedule, falling.
        path: (LEVELS, n, 2) exact states there; `ends`: (n, 2) of the paths.
        student: the network after all steps.
    """

    mixture: Mixture
    noises: int
    seed: int
    times: Float
    path: Float
    ends: Float
    answers: Sequence[Answers]
    student: Network

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        teacher, last = self.answers[0], self.answers[-1]
        farther = self.times[last.errors > teacher.errors]
        nearer = (
            f"from t = {farther.max():.2g} on the teacher is nearer" if len(farther) else "it is nearer at all levels"
        )
        return (
            f"From noise a consistency student is {last.errors[0]:.2g} from the end of the path, the teacher's "
            f"estimate {teacher.errors[0]:.2g}; {nearer}"
        )

    @property
    def students(self) -> dict[str, Network]:
        """The network, by its name."""
        return {"consistency": self.student}

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data; the student is apart, see `students.weights_file`."""
        return {
            "figure": "consistency",
            "finding": self.finding,
            "noises": self.noises,
            "seed": self.seed,
            "measured": MEASURED,
            "mixture": self.mixture.described(),
            "times": self.times.tolist(),
            "path": self.path.tolist(),
            "ends": self.ends.tolist(),
            "answers": [
                {"name": a.name, "steps": a.steps, "errors": a.errors.tolist(), "points": a.points.tolist()}
                for a in self.answers
            ],
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """An error a line."""
        rows = [
            [each.name, each.steps, time, error]
            for each in self.answers
            for time, error in zip(self.times.tolist(), each.errors.tolist(), strict=True)
        ]
        return ["what", "training steps", "time", "error"], rows


@dataclass
class Kept:
    """A look that keeps the averaged student at the end of each stage of the method's grid."""

    every: int
    found: dict[int, Network] = field(default_factory=dict)

    def __call__(self, step: int, roles: Roles) -> Seen:
        self.found[step] = copied(roles[STUDENT].network)
        return Seen()


def consistency(
    mixture: Mixture,
    *,
    steps: int = 1500,
    count: int = 3,
    seed: int = 0,
    on_part: Callable[[int, int], None] = lambda done, of: None,
) -> ConsistencyMap:
    """Train a consistency student, and ask it for the end of exact paths all along them.

    Args:
        steps: of training for its beginning, a student that answers as the teacher, and as many, up to a multiple of
            the three stages, for consistency.
        count: paths that are drawn, from noises that no training saw.
        on_part: told how many of two parts are done.

    Raises `InvalidInput` for a mixture that is not in the plane, and for other numbers of steps than 20 to 100,000.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 20 <= steps <= MOST_STEPS:
        raise InvalidInput(f"training steps must be a whole number from 20 to {MOST_STEPS:,}, got {steps!r}")
    setting = Setting.of(mixture, seed)
    kept = Kept(steps // METHOD.stages)
    with limited(1):  # sums over threads would round otherwise
        beginning = setting.beginning(steps)
        on_part(1, 2)
        roles = roles_of(beginning, setting.teacher)
        setting.trained(METHOD, roles, kept.every * METHOD.stages, 3e-3, [kept])
        exact = exact_of(mixture, noise_of(MEASURED, key_of(seed, "measured") >> 1))
        least = METHOD.least / (1 + METHOD.least)  # sigma / (alpha + sigma), the time of a flow
        times = np.linspace(NOISIEST / (1 + NOISIEST), least, LEVELS)
        paths = Paths(times, states_at(exact, times.tolist()), exact.at(0.0))
        answers = [answered(TEACHER, None, setting.teacher, paths, count)]
        for done, network in kept.found.items():
            answers.append(answered(f"after {done:,} steps", done, network, paths, count))
        on_part(2, 2)
    shown = paths.states[:, :count].numpy(), paths.ends[:count].numpy()
    return ConsistencyMap(mixture, count, seed, times, *shown, answers, roles[STUDENT].network)


def answered(name: str, steps: int | None, network: Network, paths: Paths, shown: int) -> Answers:
    """A network's estimates of the data at all points of paths, and how far from the ends they are."""
    with torch.no_grad():
        found = [
            network.estimate(x, at_times(SCHEDULE, t, x))[0].double()
            for t, x in zip(paths.times, paths.states.float(), strict=True)
        ]
    estimates = torch.stack(found)
    errors = (estimates - paths.ends).square().sum(dim=2).mean(dim=1).sqrt()
    return Answers(name, steps, estimates[:, :shown].numpy(), errors.numpy())
