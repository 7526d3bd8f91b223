"""What a way of training says of itself, so that one loop runs all of them.

A method is a frozen dataclass of its settings. It names what it needs and the networks that take part, says for each
step where in the training it is, and yields losses, which the loop back-propagates one by one, so that the graph of one
is in memory. It holds no optimiser, device, precision, average or file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.denoise.guided import Guided
from fewstep.training.draws import Draws

STUDENT, TEACHER = "student", "teacher"


class Needs(NamedTuple):
    """What a method cannot do without.

    Attributes:
        images: samples of the data; `pairs`: noise and what the teacher makes of it.
        predictions: what the student's network may predict; None is anything.
    """

    teacher: bool = False
    images: bool = False
    pairs: bool = False
    predictions: tuple[str, ...] | None = None


class Phase(NamedTuple):
    """Where a training is at a step.

    Attributes:
        stage: 0, 1 .. With each later stage the averaged student becomes the teacher, and optimiser, rate and average
            begin anew.
        stages: in all.
        begins: the step at which the stage begins; `steps`: how many it has.
        step: the step of the whole training.
    """

    stage: int
    stages: int
    begins: int
    steps: int
    step: int

    @property
    def share(self) -> float:
        """How much of the stage is done, in [0, 1)."""
        return (self.step - self.begins) / self.steps


def one_stage(step: int, steps: int) -> Phase:
    """The phase of a method that has one stage alone."""
    return Phase(0, 1, 0, steps, step)


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a step, or of a part of it.

    Attributes:
        data: (B, ..) clean states: images, or what the teacher made of the noise of pairs.
        noise: (B, ..) of pairs, unit; None where images are not paired with noise.
        condition, negative: keyword arguments of the network, with the batch first; without `negative` nothing guides.
    """

    data: Tensor
    noise: Tensor | None = None
    condition: Mapping[str, Any] = field(default_factory=dict)
    negative: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True, eq=False)
class Role:
    """A network that takes part: one that is trained, or one that only answers.

    Attributes:
        network: as a denoiser, its condition still to be given.
        guidance: the scale at which it answers, as long as it is the original teacher; 1 is the conditional model.
    """

    network: Network
    trained: bool = True
    guidance: float = 1.0

    @property
    def module(self) -> nn.Module:
        """The module behind the network."""
        module = self.network.module
        if module is None:
            raise InvalidInput("only a network that is a torch.nn.Module can be trained, and this one is a function")
        return module

    def answering(self, batch: Batch, guided: bool = False) -> Denoiser:
        """The denoiser of a batch under its conditions, guided where asked and where there is something to guide by."""
        if guided and self.guidance != 1.0:
            if batch.negative is None:
                raise InvalidInput(f"the teacher is asked to guide at {self.guidance:g}, and no batch has a negative")
            return Guided(self.network, batch.condition, batch.negative, self.guidance)
        return self.network.given(batch.condition)


Roles = Mapping[str, Role]


class Loss(NamedTuple):
    """A scalar to go down, for the weights of one role; `figures` are numbers for the log."""

    role: str
    value: Tensor
    figures: Mapping[str, float] = {}


class Method(Protocol):
    """A way of training; see the module's docstring."""

    name: ClassVar[str]
    needs: ClassVar[Needs]

    def phase(self, step: int, steps: int) -> Phase:
        """Where the training is; a pure function, so that a resumed run needs nothing else."""
        ...

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        """The losses of a batch, each a mean over it."""
        ...

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        """The plan that the trained network is to be sampled with, in other `rows` than those of the method if asked.

        Raises `InvalidInput` where the network has not learnt to draw in so many, saying why.
        """
        ...


def student_of(teacher: Network, guidance: float = 1.0, succeeds: bool = False) -> dict[str, Role]:
    """The two roles of most methods: the teacher, in evaluation mode, and a copy of it that is trained.

    Where the student `succeeds` the teacher in later stages, the teacher is a copy too, and the caller's stays.
    """
    roles = {
        STUDENT: Role(twin(teacher)),
        TEACHER: Role(twin(teacher) if succeeds else teacher, trained=False, guidance=guidance),
    }
    roles[STUDENT].module.requires_grad_(True).train()
    roles[TEACHER].module.requires_grad_(False).eval()
    return roles


def check_rows(method: str, own: int, rows: int | None) -> None:
    """Raise `InvalidInput` for other rows than a method's `own`, where its student knows the times of these alone."""
    if rows is not None and rows != own:
        raise InvalidInput(
            f"a student by {method} knows the times of its own {own} row{'s' * (own != 1)} alone: train one for {rows}"
        )


def schedule_of(network: Network) -> Schedule:
    """The noise schedule of a network. Raises `InvalidInput` where it has none."""
    if network.schedule is None:
        raise InvalidInput("a network is trained on its noise schedule, and this one has none")
    return network.schedule


def twin(network: Network) -> Network:
    """The same denoiser with weights of its own."""
    return Network(
        copy.deepcopy(network.network),
        schedule_of(network),
        network.prediction,
        condition=network.condition,
        dtype=network.dtype,
        time_scale=network.time_scale,
        integer_time=network.integer_time,
        sigma_data=network.sigma_data,
    )
