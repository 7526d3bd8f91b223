"""Small students: networks of a point of the plane and a time, which the methods of `fewstep.distillation` train.

The teacher is the exact score of a mixture on the flow schedule, x_t = (1 - t) x0 + t e, whose velocity is

    v(x, t) = E[e - x0 | x_t = x] = (x - E[x0 | x]) / t

So every fault of a student is its own. A student first learns to answer as the teacher, and begins each method from
there. It has 3,602 weights, 14 kB, which a web page can hold.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float, Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation.pictures.recording import Recorded
from fewstep.run.eager import sample
from fewstep.run.noise import START, seeds_of, unit_noise
from fewstep.show.exact import Exact, angle_of
from fewstep.show.mixture import Mixture
from fewstep.solvers.compiler import compile
from fewstep.training import (
    STUDENT,
    TEACHER,
    Batch,
    Draws,
    Look,
    Loss,
    Method,
    Needs,
    Phase,
    Role,
    Roles,
    Run,
    Settings,
    one_stage,
    schedule_of,
    train,
)
from fewstep.training.draws import key_of
from fewstep.training.levels import at_times, noised

SCHEDULE: Schedule = schedules.flow()
PREDICTION = "flow"
WIDTH, LAYERS = 40, 3
"""Units of a hidden layer, and how many of these a student has."""
FEATURES = 5
"""What it is told: both coordinates, and of the time t itself, t^2 and sqrt(t)."""
TOLERANCE = 1e-7
"""Largest error of a step of the exact solution, finer than students can be."""
LEARNT, MEASURED = 4096, 2048
"""Pairs to learn from, and other noises to measure on."""
BATCH, WIDE, NEVER = 256, 0.05, 10**9
"""Points of a step, the width of the average of weights, and steps between states."""


class Perceptron(nn.Module):
    """A velocity (B, 2) of points (B, 2) and times (B,), through layers with the activation SiLU."""

    def __init__(self, width: int = WIDTH, layers: int = LAYERS) -> None:
        super().__init__()
        sizes = [FEATURES, *[width] * layers]
        parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*parts, nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = t.to(x)[:, None]
        return self.layers(torch.cat([x, time, time.square(), time.sqrt()], dim=1))


class Velocity(nn.Module):
    """The exact velocity of a mixture, at times above 0."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = t.to(x)[:, None]
        return (x - self.mixture.data(x, 1 - time, time)) / time


def exact_network(mixture: Mixture) -> Network:
    """The teacher."""
    return Network(Velocity(mixture), SCHEDULE, PREDICTION)


def copied(network: Network) -> Network:
    """The same network with weights of its own."""
    return Network(copy.deepcopy(network.network), SCHEDULE, PREDICTION)


@dataclass(frozen=True, eq=False)
class Points:
    """Points (n, 2) to learn from, each beside its noise where they are pairs; float32."""

    data: Tensor
    noise: Tensor | None = None
    name: str = "points"

    @property
    def count(self) -> int:
        return len(self.data)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"data": self.name, "count": self.count}

    def batch(self, numbers: Sequence[int]) -> Batch:
        places = list(numbers)
        return Batch(self.data[places], None if self.noise is None else self.noise[places])


def noise_of(count: int, seed: int) -> Tensor:
    """(count, 2) unit noise, float64, each of a seed of its own."""
    return unit_noise(seeds_of(seed, count), START, torch.empty(count, 2, dtype=torch.float64))


def exact_of(mixture: Mixture, noise: Tensor) -> Exact:
    """The exact trajectories from noise (n, 2) at time 1."""
    return Exact(mixture, noise, angle_of(0.0, 1.0), tolerance=TOLERANCE)


def states_at(exact: Exact, times: Sequence[float]) -> Tensor:
    """The exact states (times, n, 2) at decreasing times, in the coordinates of the flow schedule."""
    levels = [(float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))) for t in times]
    return torch.stack([exact.at(angle_of(*level)) * math.hypot(*level) for level in levels])


def pairs(mixture: Mixture, count: int, seed: int) -> Points:
    """Noise, and where the exact flow takes it: points of the data that are paired with noise."""
    noise = noise_of(count, seed)
    return Points(exact_of(mixture, noise).at(0.0).float(), noise.float(), "pairs")


@dataclass(frozen=True)
class Answering:
    """A method: the student answers as the teacher does at every time, before it learns to draw in few steps."""

    name: ClassVar[str] = "answering"
    needs: ClassVar[Needs] = Needs(teacher=True, images=True)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, teacher = (roles[name].network for name in (STUDENT, TEACHER))
        schedule = schedule_of(student)
        times = schedule.t_min + (schedule.t_max - schedule.t_min) * draws.spread("time")
        level = at_times(schedule, times, batch.data)
        x = noised(batch.data, draws.normal("noise", batch.data.shape[1:]), level)
        with torch.no_grad():
            target = teacher.output(x, level)
        yield Loss(STUDENT, (student.output(x, level) - target).square().mean())

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return plan_of(rows or 1)


def plan_of(steps: int) -> Plan:
    """Steps of DDIM, even in time; in the coordinates of a flow they are Euler's."""
    return compile("ddim", schedule=SCHEDULE, steps=steps, grid="trailing")


def drawn(network: Network, noise: Tensor, steps: int = 1) -> Tensor:
    """Where a network takes noise (n, 2) in so many steps, float32."""
    with torch.no_grad():
        return sample(plan_of(steps), network, noise=noise.float())


def walked(network: Network, noise: Tensor, steps: int) -> Float:
    """The states (steps + 1, n, 2) at the ends of the steps of a network, from noise (n, 2)."""
    way = Recorded(network)
    with torch.no_grad():
        end = sample(plan_of(steps), way, noise=noise.float())
    return torch.stack([*way.states, end]).double().numpy()


class Setting(NamedTuple):
    """What all students of a figure share.

    Attributes:
        mixture: the data; `points`: of it, which are pairs of noise and its exact end, to learn from.
        seed: of training.
    """

    mixture: Mixture
    points: Points
    seed: int

    @staticmethod
    def of(mixture: Mixture, seed: int) -> Setting:
        """Raises `InvalidInput` for a mixture that is not in the plane."""
        if mixture.means.shape[1] != 2:
            raise InvalidInput(f"students are of the plane, got a mixture in {mixture.means.shape[1]} dimensions")
        return Setting(mixture, pairs(mixture, LEARNT, key_of(seed, "pairs") >> 1), seed)

    @property
    def teacher(self) -> Network:
        return exact_network(self.mixture)

    def trained(self, method: Method, roles: Roles, steps: int, rate: float, looks: Sequence[Look] = ()) -> Network:
        """The student of the roles, with averaged weights, after so many steps of the loop."""
        settings = Settings(
            steps=steps, batch=BATCH, rate=rate, width=WIDE, seed=self.seed, state_every=NEVER, log_every=NEVER
        )
        with tempfile.TemporaryDirectory() as folder:
            train(Run(method, roles, self.points, settings, Path(folder), looks=looks))
        return roles[STUDENT].network

    def beginning(self, steps: int) -> Network:
        """A student that answers as the teacher."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key_of(self.seed, "student"))
            new = Network(Perceptron(), SCHEDULE, PREDICTION)
        return self.trained(Answering(), roles_of(new, self.teacher), steps, 5e-3)


def roles_of(student: Network, teacher: Network) -> dict[str, Role]:
    """A student that is trained, with weights of its own, beside a teacher that stays."""
    return {STUDENT: Role(copied(student)), TEACHER: Role(teacher, trained=False)}


def distance(points: Tensor, ends: Tensor) -> float:
    """Root mean square over n points (n, 2) of their distance."""
    return float((points.double() - ends.double()).square().sum(dim=1).mean().sqrt())


def weights_file(students: Mapping[str, Network]) -> bytes:
    """All students as a safetensors file: their weights under `NAME.layers.0.weight` and so on, and how they are asked.

    The same students give the same bytes.
    """
    tensors = {
        f"{name}.{key}": tensor.detach().contiguous()
        for name, student in students.items()
        for key, tensor in Role(student).module.state_dict().items()
    }
    facts = {
        "students": list(students),
        "input": ["x", "y", "t", "t^2", "t^0.5"],
        "activation": "silu",
        "output": "flow: the data is (x, y) - t output",
    }
    return save(tensors, {"show": json.dumps(facts)})
